"""Touches RESULTS.md: each script writes its own rows there, between its two markers; nobody types a figure.

Also decides how a figure is held against its target, and what the machine is called.
"""

import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
PLOTS = RESULTS.parent / "plots"
WIDTHS = ("claim", "target", "figure", "verdict")


class Row(NamedTuple):
    """A claim held against what was measured: the figure and the target in words, and whether it is met.

    `met` is None where there is nothing to meet: a figure for information.
    """

    claim: str
    figure: str
    target: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """The row's last column."""
        return "" if self.met is None else "met" if self.met else "**missed**"


def at_least(claim: str, figure: float, target: float, digits: int = 3, note: str = "") -> Row:
    """Return the row of a figure that must reach a target; compared as measured, not as rounded."""
    return Row(claim, f"{figure:.{digits}f}{note}", f">= {target:g}", figure >= target)


def at_most(claim: str, figure: float, target: float, unit: str = "", digits: int = 3, note: str = "") -> Row:
    """Return the row of a figure that must stay below a target; compared as measured, not as rounded."""
    space = f" {unit}" if unit else ""
    return Row(claim, f"{figure:.{digits}f}{space}{note}", f"<= {target:g}{space}", figure <= target)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a small table."""
    print(f"\n{title}")
    width = max(len(row.claim) for row in rows)
    for row in rows:
        verdict = row.verdict.strip("*")
        print(f"  {row.claim:{width}}  {row.figure:>24}  {row.target:>12}  {verdict}".rstrip())


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return head + ["| " + " | ".join(line) + " |" for line in lines]


def rows_table(rows: Sequence[Row]) -> list[str]:
    """Return rows as a Markdown table."""
    return table(WIDTHS, [(row.claim, row.target, row.figure, row.verdict) for row in rows])


def write(name: str, command: str, lines: Sequence[str], machine: str = "") -> None:
    """Put `lines` between the markers of section `name`, under the command, the machine and the date."""
    text = RESULTS.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"RESULTS.md has no place for {name!r}: add the lines {begin} and {end}")
    day = datetime.now(timezone.utc).date().isoformat()
    body = "\n".join([begin, f"`{command}` - {machine or this_machine()} - {day}", "", *lines, end])
    text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: body, text, flags=re.DOTALL)
    RESULTS.write_text(text, encoding="utf-8")
    print(f"wrote its rows in {RESULTS.name}")


def this_machine() -> str:
    """Return processor, cores and versions, as the ledger names them."""
    import numpy as np

    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores; Python {platform.python_version()}, numpy {np.__version__}"


def _processor() -> str:
    try:
        facts = Path("/proc/cpuinfo").read_text(errors="replace")
        board = Path("/proc/device-tree/model")
        name = board.read_text(errors="replace").strip("\0 \n") if board.exists() else ""
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", facts, re.MULTILINE)
    return f"{name or (found.group(1).replace('(R)', '') if found else 'unknown')} ({platform.machine()})"


def on_one_thread() -> None:
    """Start this script again with matrix products on one thread, unless they are; numpy reads that once."""
    if os.environ.get("OPENBLAS_NUM_THREADS") == "1":
        return
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.argv])
