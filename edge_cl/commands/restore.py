"""`edge-cl restore`: a learner back from a backup."""

import argparse
from pathlib import Path
from typing import Any

from edge_cl.commands.terminal import megabytes, printable


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("restore", help="get a learner back from a backup")
    parser.add_argument("file", type=Path, metavar="FILE.tar", help="made by `edge-cl backup`")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make the state folder anew, whole or not at all."""
    from edge_cl.device.archive import restore_backup

    found = restore_backup(args.file, args.state)
    return {"state": str(args.state), "members": list(found.names), "size_bytes": found.size_bytes}


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    return f"{printable(result['state'])} is back: {megabytes(result['size_bytes'])}, every part checked"
