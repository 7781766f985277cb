"""`edge-cl backup`: the whole learner in one file."""

import argparse
from pathlib import Path
from typing import Any

from edge_cl.commands.terminal import megabytes, printable


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("backup", help="put the whole learner into one file")
    parser.add_argument("file", type=Path, metavar="FILE.tar", help="where to; must not be there yet")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the backup; another process may go on learning meanwhile."""
    from edge_cl.device.archive import write_backup
    from edge_cl.device.staged import settings_of

    settings_of(args.state)
    found = write_backup(args.state, args.file)
    return {"file": str(args.file), "members": list(found.names), "size_bytes": found.size_bytes}


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    return f"{printable(result['file'])}: {megabytes(result['size_bytes'])}, {len(result['members'])} parts"
