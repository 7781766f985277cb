"""Touches the terminal: options that commands share, the progress bar, Ctrl-C, questions, printable names."""

import argparse
import signal
import sys
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

from edge_cl.config import MAX_THREADS
from edge_cl.errors import ConfigError

BAR_WIDTH = 24  # characters; leaves room for the words on an 80 column terminal
MAX_LISTED = 20  # names printed of a long list; --json has them all


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how the backbone runs; None means as in config.toml."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--threads", type=whole_number(1, MAX_THREADS), metavar="N", help="threads of the interpreter"
    )
    group.add_argument(
        "--isolate",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="run the backbone in a child process, so that a crash of its engine is not the end",
    )
    group.add_argument(
        "--delegate",
        metavar="NAME",
        help="edgetpu, edgetpu:usb, edgetpu:pci:0, a delegate library's path, or tensorrt:PYTHON",
    )


def whole_number(low: int, high: int) -> Any:
    """Return an argparse type for integers in low..high."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not in {low}..{high}")
        return value

    parse.__name__ = "whole number"
    return parse


def fraction(text: str) -> float:
    """Parse a number above 0 and at most 1, for argparse."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def size_bytes(text: str) -> int:
    """Parse a number of bytes, with k, M or G for thousands, millions, billions, for argparse."""
    unit = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}.get(text[-1:].lower(), 1)
    value = int(float(text[:-1]) * unit) if unit > 1 else int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a size")
    return value


class Progress:
    """One line on standard error that is drawn over and over; silent unless that is a terminal."""

    def __init__(self, total: int, is_shown: bool | None = None) -> None:
        self.total = total
        self._is_shown = sys.stderr.isatty() if is_shown is None else is_shown
        self._width = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            print(file=sys.stderr, flush=True)

    def show(self, done: int, words: str) -> None:
        """Draw the bar at `done` of `total` with a few words behind it."""
        if not self._is_shown:
            return
        filled = BAR_WIDTH * done // max(1, self.total)
        line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done}/{self.total} {printable(words)}"
        print("\r" + line.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(line)


class StopFlag:
    """Turns the first Ctrl-C, or SIGTERM, into a question that work asks itself; the second ends at once."""

    def __init__(self) -> None:
        self._is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Tell whether to stop at the next good moment."""
        return self._is_set

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self._is_set:
            raise KeyboardInterrupt
        self._is_set = True


def confirm(question: str, is_sure: bool) -> None:
    """Ask on a terminal; `is_sure` answers yes beforehand.

    Raises:
        ConfigError: not confirmed, or nobody is there to ask.
    """
    if is_sure:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError("this cannot be undone, and there is no terminal to ask: add --yes")
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigError("not confirmed: nothing was changed")


def printable(text: object) -> str:
    """Return a name so that it stays on one line and cannot steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def listed(title: str, lines: Iterable[str]) -> list[str]:
    """Return a title and indented lines, the rest of a long list counted; nothing for an empty list."""
    found = [f"  {printable(line)}" for line in lines]
    if not found:
        return []
    rest = len(found) - MAX_LISTED
    more = [f"  ... and {rest} more"] if rest > 0 else []
    return [f"{title} ({len(found)}):", *found[:MAX_LISTED], *more]


def percent(ratio: float | None) -> str:
    """Return a fraction as people read it, "-" when it is unknown."""
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def megabytes(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
