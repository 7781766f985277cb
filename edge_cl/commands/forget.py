"""`edge-cl forget`: take pictures or a whole class out again, from the storage too."""

import argparse
from pathlib import Path
from typing import Any

from edge_cl.commands.terminal import confirm, printable
from edge_cl.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "forget",
        help="take pictures or a whole class out again",
        description="What is forgotten is destroyed on the storage too. A file that is still in a folder is"
        " taught anew when that folder is.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="pictures that were taught")
    parser.add_argument("--label", metavar="CLASS", help="a whole class")
    parser.add_argument(
        "--sample", nargs="+", type=int, default=[], metavar="ID", help="samples, as in `status`"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Forget, and return how much went and how."""
    if not (args.files or args.sample or args.label is not None):
        raise ConfigError("say what to forget: files, --sample ID, or --label CLASS")
    from edge_cl.device.opening import open_agent

    with open_agent(args.state) as agent:
        samples = [*args.sample, *(agent.find(path).sample for path in args.files)]
        chosen = {sample: agent.known(sample) for sample in samples}
        in_class = 0
        if args.label is not None:
            name = agent.taught_label(args.label)
            in_class = sum(shown.label == name for shown in agent.samples())
        confirm(_question(args.label, in_class, len(chosen)), args.yes)
        exact, approximate = agent.forget(chosen, label=args.label)
    return {
        "forgotten": exact + approximate,
        "exact": exact,
        "approximate": approximate,
        "samples": sorted(chosen),
        "label": args.label,
    }


def _question(label: str | None, in_class: int, samples: int) -> str:
    parts = [f"the class {label!r} with {in_class} pictures"] if label is not None else []
    parts += [f"{samples} pictures"] if samples else []
    return f"forget {' and '.join(parts)} for good?"


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    of = f" of {printable(result['label'])}" if result["label"] else ""
    lines = [f"forgot {result['forgotten']} pictures{of}"]
    if result["approximate"]:
        lines.append(
            f"{result['approximate']} of them had left the memory: "
            + ("they went with their class" if result["label"] else "a trace stays in their class's mean")
        )
    return "\n".join(lines)
