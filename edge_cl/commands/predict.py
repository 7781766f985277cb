"""`edge-cl predict`: ask what is on pictures."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cl.commands.terminal import (
    Progress,
    add_engine_options,
    listed,
    percent,
    printable,
    whole_number,
)
from edge_cl.config import MAX_VIEWS
from edge_cl.errors import ImageError, InputError

if TYPE_CHECKING:
    from edge_cl.sample import Prediction

logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("predict", help="ask what is on pictures")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="picture files")
    parser.add_argument("--views", type=whole_number(1, MAX_VIEWS), default=1, metavar="P",
                        help="views averaged: slower, more often right (default: 1)")  # fmt: skip
    add_engine_options(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Answer every readable picture; nothing is written."""
    from edge_cl.device.opening import open_agent

    answered: list[dict[str, Any]] = []
    unreadable: list[dict[str, str]] = []
    with open_agent(
        args.state,
        with_backbone=True,
        read_only=True,
        threads=args.threads,
        isolate=args.isolate,
        delegate=args.delegate,
    ) as agent:
        for note in agent.notes:
            logger.warning("%s", note)
        with Progress(len(args.files)) as progress:
            for number, path in enumerate(args.files, start=1):
                try:
                    answered.append(_plain(path, agent.answer(path, args.views)))
                except ImageError as error:
                    reason = str(error).removeprefix(f"{path.name}: ")
                    unreadable.append({"file": str(path), "reason": reason})
                progress.show(number, path.name)
    if not answered:
        first = unreadable[0]
        raise InputError(f"no picture could be read; the first: {first['file']}: {first['reason']}")
    return {"predictions": answered, "unreadable": unreadable}


def _plain(path: Path, found: "Prediction") -> dict[str, Any]:
    return {"file": str(path), "unknown": found.label is None, **found._asdict()}


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    lines = [_line(found) for found in result["predictions"]]
    lines += listed("unreadable", (f"{found['file']}: {found['reason']}" for found in result["unreadable"]))
    return "\n".join(lines)


def _line(found: dict[str, Any]) -> str:
    best = f"{found['best']} {percent(found['probability'])}"
    second = f", then {found['second']} {percent(found['second_probability'])}" if found["second"] else ""
    answer = f"unknown (nearest: {best}{second})" if found["unknown"] else f"{best}{second}"
    return printable(f"{found['file']}: {answer}")
