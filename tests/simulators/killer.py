"""Runs a command over and over, and stops or fails it at each call that writes, one after the other.

The harness of every crash test: `strace` injects a signal or an error at the n-th such call of a process. The
command must be the real interpreter (`PYTHON`): a shim that forks would have its own calls counted.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

PYTHON = os.path.realpath(sys.executable)
CHECKOUT = Path(__file__).resolve().parents[2]
SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64", "ftruncate", *SYNCS)
NAMES = ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat")
EVERYTHING_THAT_WRITES = WRITES + NAMES
KILL = "signal=SIGKILL"
TIMEOUT_S = 120.0  # for one run; tracing slows a process three to five times


class Outcome(NamedTuple):
    """One run: the call it was stopped at (`pwrite64 17`), how it ended, what it said, if it was hit."""

    point: str
    status: int
    stdout: str
    stderr: str
    hit: bool


def process_environment() -> dict[str, str]:
    """Return one in which `PYTHON` finds what this interpreter imports, and the packages of the checkout."""
    places = [str(CHECKOUT), str(CHECKOUT / "tests"), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


@cache
def why_not() -> str:
    """Return why processes cannot be stopped at a system call here; "" when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with tempfile.NamedTemporaryFile() as log:
        probe = _strace(["/bin/true"], ["-e", "trace=write"], Path(log.name))
    return "" if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()[:100]}"


def points(
    command: Sequence[str], calls: Sequence[str], environment: dict[str, str]
) -> list[tuple[str, int]]:
    """Run `command` once untouched and return every (call, n) it made: strace counts each call by itself."""
    with tempfile.NamedTemporaryFile() as log:
        _strace(command, ["-e", f"trace={','.join(calls)}"], Path(log.name), environment)
        made = Counter(_call(line) for line in Path(log.name).read_text(errors="replace").splitlines())
    return [(call, nth) for call in calls for nth in range(1, made[call] + 1)]


def run_failing_at(
    command: Sequence[str],
    prepare: Callable[[], object],
    *,
    fault: str = KILL,
    calls: Sequence[str] = EVERYTHING_THAT_WRITES,
    stride: int = 1,
    onwards: bool = False,
    environment: dict[str, str] | None = None,
) -> Iterator[Outcome]:
    """Run `command` once for every (`stride`-th) call of `calls` that it makes, with `fault` at that call.

    `prepare()` makes the world anew before each run; look at the world between the outcomes. `fault` is what
    strace's `inject=` takes: `signal=SIGKILL`, `error=ENOSPC`. `onwards` lets the later ones fail as well.
    """
    prepare()
    environment = {"PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    for call, nth in points(command, calls, environment)[::stride]:
        prepare()
        inject = f"inject={call}:{fault}:when={nth}{'+' if onwards else ''}"
        with tempfile.NamedTemporaryFile() as log:
            done = _strace(command, ["-e", f"trace={call}", "-e", inject], Path(log.name), environment)
            said = Path(log.name).read_text(errors="replace")
        hit = "(INJECTED)" in said or "killed by SIGKILL" in said
        yield Outcome(f"{call} {nth}", done.returncode, done.stdout, done.stderr, hit)


def _call(line: str) -> str:
    """Return the name of the call in a line of strace: `123 write(1, ...`."""
    return line.split("(", 1)[0].split()[-1] if "(" in line else ""


def _strace(
    command: Sequence[str], options: Sequence[str], log: Path, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", str(log), *options, *command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**process_environment(), **(environment or {})},
    )
