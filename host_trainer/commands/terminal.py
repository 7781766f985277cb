"""What every command of the workshop shares: its usual options, one JSON object, and a progress bar."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def print_json(result: dict[str, Any]) -> None:
    """Print the command's one JSON object."""
    typer.echo(json.dumps(result, allow_nan=False))


def command_line() -> str:
    """Return what was typed, so that a report can say how to repeat it."""
    return shlex.join(["host-trainer", *sys.argv[1:]])


def say(line: str) -> None:
    """Print a line for the person, on standard error."""
    print(line, file=sys.stderr, flush=True)


class Meter:
    """A running task: where it stands and how fast it goes, told to a progress bar."""

    def __init__(self, bar: Progress, total: int, unit: str) -> None:
        self._bar, self._unit, self._start, self._first = bar, unit, time.monotonic(), 0.0
        self._task = bar.add_task("", total=total)

    def begin(self, done: float) -> None:
        """Say how much was done before this run; it does not count for the speed."""
        self._start, self._first = time.monotonic(), done
        self._bar.update(self._task, completed=done)

    def show(self, done: float, words: str = "", size: int = 1) -> None:
        """Move on: `done` of the total, each worth `size` units of speed."""
        rate = (done - self._first) * size / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, completed=done, description=f"{words}  {rate:.0f} {self._unit}/s")


@contextmanager
def meter(total: int, unit: str = "images", *, shown: bool = True) -> Iterator[Meter]:
    """Yield a Meter; its bar is shown on a terminal and not in a pipe."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, transient=False) as bar:
        yield Meter(bar, total, unit)


silent_meter = partial(meter, shown=False)  # of a process that another one speaks for


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yield a question: whether Ctrl-C was pressed. A second press ends the program at once."""
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        say("stopping after this step; Ctrl-C again stops at once, from the last checkpoint")

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
