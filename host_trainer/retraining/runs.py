"""Touches the folder of runs: every stage of a run leaves its result there, whole, once and for good.

FLEET/runs/<n>/order.json         what was asked; a run that was killed goes on with the same
FLEET/runs/<n>/<k>-<stage>/       what a stage found: facts.json beside its files
FLEET/runs/<n>/result.json        the last: the run is over

Nothing of a stage is written twice, with one exception: what a device takes back is destroyed everywhere.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ProtocolError, StoreBusyError, StoreError
from edge_cl.wire.tensors import Limits, pack, unpack
from host_trainer.artefacts import make_folder, remove_folder, staged_folder, write_file

RUNS, ORDER, RESULT, FACTS, LOCK = "runs", "order.json", "result.json", "facts.json", "lock"
LIMITS = Limits(tensors=64)
Facts = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]


class Run(NamedTuple):
    """A run: its fleet's folder and its number, from 1."""

    fleet: Path
    number: int

    @property
    def folder(self) -> Path:
        """Where it leaves its results."""
        return self.fleet / RUNS / str(self.number)

    @property
    def order(self) -> Facts:
        """What was asked."""
        return read_facts(self.folder / ORDER)

    @property
    def result(self) -> Facts | None:
        """How it ended; None while it has not."""
        return read_facts(self.folder / RESULT) if (self.folder / RESULT).is_file() else None

    def place(self, stage: str) -> Path:
        """Return the folder of a stage, as in `1-intake`."""
        return self.folder / stage

    def scratch(self, stage: str) -> Path:
        """Return a folder in which a stage may leave what is not whole yet, to go on from."""
        return make_folder(self.folder / f".scratch-{stage}")

    def facts(self, stage: str) -> Facts:
        """Return what a stage that is over found."""
        return read_facts(self.place(stage) / FACTS)

    def carry_out(self, stage: str, work: Callable[[Path], Facts]) -> Facts:
        """Let a stage work in a folder that gets its name when all of it is written; once only."""
        place = self.place(stage)
        if not place.is_dir():
            with staged_folder(place) as part:
                (part / FACTS).write_text(_text(work(part)), encoding="utf-8")
            remove_folder(self.folder / f".scratch-{stage}")
        return self.facts(stage)

    def finish(self, result: Facts) -> None:
        """Say how the run ended."""
        write_file(self.folder / RESULT, _text(result).encode("utf-8"))


def runs(fleet: Path) -> list[Run]:
    """Return all runs of a fleet, oldest first."""
    folder = fleet / RUNS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return [run for run in (Run(fleet, number) for number in numbers) if (run.folder / ORDER).is_file()]


def begun(fleet: Path, order: Facts) -> tuple[Run, bool]:
    """Return the run of this order that was not finished, else a new one; and whether it is new."""
    earlier = runs(fleet)
    open_ones = [run for run in earlier if run.result is None and run.order == _plain(order)]
    if open_ones:
        return open_ones[-1], False
    run = Run(fleet, earlier[-1].number + 1 if earlier else 1)
    remove_folder(run.folder)  # of one that was killed before its order was written
    make_folder(run.folder)
    write_file(run.folder / ORDER, _text(order).encode("utf-8"))
    return run, True


@contextmanager
def locked(fleet: Path) -> Iterator[None]:
    """Let one process at a time retrain; StoreBusyError while another does."""
    folder = make_folder(fleet / RUNS)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreBusyError(f"{fleet} is being retrained by another process: wait for it") from error
        yield


def read_facts(path: Path) -> Facts:
    """Return the JSON object of a file; StoreError when it does not read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} does not read ({error}): restore a copy of the run, or remove it"
        ) from error
    return dict(found)


def write_tensors(path: Path, arrays: Arrays) -> None:
    """Write arrays into a folder that is being made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def write_part(path: Path, data: bytes) -> None:
    """Write a file into a folder that is being made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a folder that is being made, or that a stage works in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_folder(source: Path, target: Path, without: Sequence[str] = ()) -> None:
    """Copy a folder into one that is being made, some entries left out."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without))


def rewrite_tensors(path: Path, arrays: Arrays) -> None:
    """Write arrays in the place of a stage's file: only where samples in it are to be destroyed."""
    write_file(path, pack({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def remove_file(path: Path) -> None:
    """Destroy a file; where there is none, nothing happens."""
    path.unlink(missing_ok=True)


def remove_others(folder: Path, kept: Collection[Path]) -> None:
    """Remove the files of a folder that is being made, but for some."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in kept:
            path.unlink()


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file; StoreError when they do not read."""
    try:
        return unpack(path.read_bytes(), LIMITS)[0]
    except (OSError, ProtocolError) as error:
        raise StoreError(f"{path} does not read ({error}): restore a copy of the run") from error


def write_report(run: Run, name: str, text: str) -> Path:
    """Write what a person reads of a run, and return where."""
    write_file(run.folder / name, text.encode("utf-8"))
    return run.folder / name


def _plain(facts: Facts) -> Facts:
    return dict(json.loads(_text(facts)))


def _text(facts: Facts) -> str:
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
