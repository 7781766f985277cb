"""`edge-cl relabel`: correct a label, or confirm it."""

import argparse
from pathlib import Path
from typing import Any

from edge_cl.commands.terminal import printable


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "relabel",
        help="correct a label, or confirm it",
        description="Give the same label again to confirm it: the sample is not suspected any more.",
    )
    parser.add_argument(
        "target", metavar="SAMPLE|FILE", help="sample id as in `status`, or the picture's file"
    )
    parser.add_argument("label", metavar="LABEL", help="what it shows")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Relabel, and return what was and what is."""
    from edge_cl.device.opening import open_agent

    with open_agent(args.state) as agent:
        is_id = args.target.isascii() and args.target.isdigit()
        sample = int(args.target) if is_id else agent.find(Path(args.target)).sample
        was = agent.relabel(sample, args.label)
        now = agent.known(sample)
    return {
        "sample": sample,
        "file": now.source,
        "was": was,
        "label": now.label,
        "confirmed": was == now.label,
    }


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    name = f"sample {result['sample']} ({printable(result['file'])})"
    if result["confirmed"]:
        return f"{name} is {printable(result['label'])}: confirmed"
    return f"{name} is {printable(result['label'])} now; it was {printable(result['was'])}"
