"""`edge-cl doctor`: look at this machine, and say what to do."""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

from edge_cl.commands.terminal import printable

TOPIC_WIDTH = 12  # characters
MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="look at this machine, and say what to do",
        description="Exit status 1 when something needs to be mended before the learner can work.",
    )
    # For looking at the collected /proc and /sys of another machine.
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Look at everything; nothing is changed."""
    from edge_cl.config import read_settings
    from edge_cl.device import health, probe
    from edge_cl.errors import EdgeError

    findings = []
    try:
        settings = read_settings(args.state)
    except EdgeError as error:
        settings = None
        findings.append(health.Finding("settings", health.FAIL, str(error), "correct config.toml"))
    year = time.localtime().tm_year
    findings += [
        *probe.interpreter(),
        *probe.backbone(args.state, settings),
        *probe.coral(settings, args.root / "sys"),
        *health.jetson(args.root),
        *health.memory(args.root),
        *health.disk(args.state),
        *health.clock(year, probe.is_clock_synchronised()),
        *health.temperature(args.root),
        *health.throttling(args.root),
        *health.wear(args.root),
    ]
    return {
        "machine": health.board(args.root) or platform.machine(),
        "verdict": health.worst(findings),
        "findings": [found._asdict() for found in findings],
        "failed": health.worst(findings) == health.FAIL,
    }


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    lines = [f"{printable(result['machine'])}:"]
    for found in result["findings"]:
        lines.append(f"{MARKS[found['verdict']]} {found['topic']:{TOPIC_WIDTH}} {printable(found['text'])}")
        if found["advice"]:
            lines.append(f"     {'':{TOPIC_WIDTH}} -> {printable(found['advice'])}")
    return "\n".join(lines)
