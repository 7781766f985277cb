"""Killed or refused by the disk at any call that writes: promises are kept, nothing is half done."""

import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from simulators import teacher
from simulators.killer import PYTHON, SYNCS, Outcome, process_environment, run_failing_at, why_not

from edge_cl.device.install import bundle_folder, check_bundle, load_checkpoint, read_current, tidy
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import EventKind

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "traced")
TEACHER = str(Path(teacher.__file__))
QUICK_STRIDE = 17  # calls between the ones tried in the quick test


def test_a_teacher_killed_at_some_calls_keeps_its_promises(tmp_path):
    assert kill_everywhere(tmp_path / "state", stride=QUICK_STRIDE) >= 8


@pytest.mark.slow
def test_a_teacher_killed_at_every_call_that_writes_keeps_its_promises(tmp_path):
    assert kill_everywhere(tmp_path / "state", stride=1) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("onwards", [False, True], ids=["once", "from-then-on"])
def test_a_disk_that_refuses_any_call_costs_one_clear_line_and_nothing_else(tmp_path, fault, onwards):
    folder, tried = tmp_path / "state", 0
    command = [PYTHON, TEACHER, str(folder), "2"]
    calls = ("write", "pwrite64", *SYNCS, "rename", "ftruncate")
    for outcome in run_failing_at(
        command,
        lambda: fresh(folder),
        fault=fault,
        calls=calls,
        stride=5,
        onwards=onwards,
    ):
        assert outcome.stderr == "", outcome
        refused = [line for line in outcome.stdout.splitlines() if line.startswith("error ")]
        assert len(refused) == (outcome.status != 0), outcome  # exactly one line, when it failed at all
        check_promises(folder, outcome)
        tried += 1
    assert tried >= 10


def kill_everywhere(folder: Path, stride: int) -> int:
    killed = 0
    command = [PYTHON, TEACHER, str(folder), "2"]
    for outcome in run_failing_at(command, lambda: fresh(folder), stride=stride):
        assert outcome.stderr == "", outcome
        assert outcome.hit == (outcome.status != 0), outcome
        check_promises(folder, outcome)
        check_second_life(folder)
        killed += outcome.hit
    return killed


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def check_promises(folder: Path, outcome: Outcome) -> None:
    said = dict(line.split(" ", 1) for line in outcome.stdout.splitlines())
    taught, saved = int(said.get("taught", 0)), int(said.get("checkpoint", 0))
    with open_store(folder, teacher.SPACE) as store:
        assert store.salvage is None, outcome
        tidy(folder)
        events = list(store.events_after(0))
        assert store.dropped == 0
        there = [event.sample for event in events]
        # Whole batches, in order, at least what was promised; forgetting takes both samples or neither.
        gone = [sample for sample in teacher.FORGOTTEN if sample not in there] if there else []
        assert gone in ([], list(teacher.FORGOTTEN)), outcome
        assert gone or "forgot" not in said, outcome
        everyone = sorted(there + gone)
        assert everyone == list(range(1, len(everyone) + 1)), outcome
        assert len(everyone) >= taught and len(everyone) % teacher.BATCH == 0, outcome
        for event in events:
            assert event.kind is EventKind.TEACH
            np.testing.assert_array_equal(event.features, teacher.features(event.sample))
            assert event.source == f"{event.sample}.jpg"
    check_pointer(folder, saved, len(everyone), outcome)


def check_pointer(folder: Path, saved: int, taught: int, outcome: Outcome) -> None:
    current = read_current(folder)
    if current.bundle is not None:
        check_bundle(folder, current.bundle)
    loaded = load_checkpoint(folder)
    assert (loaded is not None) or saved == 0, outcome
    if loaded is not None:
        assert loaded.problem == ""
        assert saved <= loaded.header["seq"] <= taught, outcome
        samples = range(1, loaded.header["seq"] + 1)
        total = np.sum([teacher.features(sample).sum(axis=0, dtype=np.int64) for sample in samples], axis=0)
        np.testing.assert_array_equal(loaded.tensors["sum"], total)
    kept = {generation.name for generation in (current.checkpoint, current.previous) if generation}
    assert {file.name for file in (folder / "checkpoints").glob("*")} == kept
    for place in (folder / "bundles").glob("*"):
        check_bundle(folder, place.name)
        assert (bundle_folder(folder, place.name) / "bundle.json").read_bytes() == b"{}"


def check_second_life(folder: Path) -> None:
    """The next process starts clean and keeps teaching."""
    with open_store(folder, teacher.SPACE) as store:
        before = store.next_sample
        store.append(teacher.lesson(store))
        assert store.next_sample == before + teacher.BATCH
    with sqlite3.connect(folder / "learner.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()


def test_the_teacher_alone_keeps_all_its_promises(tmp_path):
    done = subprocess.run(
        [PYTHON, TEACHER, str(tmp_path / "state"), "2"],
        capture_output=True,
        text=True,
        env=process_environment(),
        check=True,
    )
    assert done.stdout.split("\n") == [
        "taught 4", "checkpoint 4", "taught 8", "checkpoint 8", "forgot 2 3", ""
    ]  # fmt: skip
    check_promises(tmp_path / "state", Outcome("none", 0, done.stdout, "", False))


def test_every_promise_comes_after_the_sync_that_makes_it_true(tmp_path):
    """SIGKILL loses nothing that the kernel holds; a pulled plug does. So the order of calls is looked at."""
    folder, log = tmp_path / "state", tmp_path / "log"
    calls = "trace=pwrite64,write,writev,fsync,fdatasync,rename,unlink"
    command = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-s",
        "200",
        "-o",
        str(log),
        "-e",
        calls,
        PYTHON,
        TEACHER,
        str(folder),
        "2",
    ]
    subprocess.run(command, check=True, capture_output=True, env=process_environment())
    unsynced: set[str] = set()
    promises = 0
    for call, file, rest in re.findall(r"^\d+ +(\w+)\((?:\d+<([^>]*)>)?(.*)$", log.read_text(), re.MULTILINE):
        if call in ("pwrite64", "write") and str(folder) in file and not file.endswith("-shm"):
            unsynced.add(file)
        elif call in ("fsync", "fdatasync"):
            unsynced.discard(file)
        elif call == "rename":
            source, target = re.findall(r'"([^"]*)"', rest)
            assert source not in unsynced, "renamed before its content was safe"
            unsynced.add(str(Path(target).parent))
        elif call == "writev" and ("taught" in rest or "checkpoint" in rest):
            # The table itself may wait: the log beside it is synced and replayed.
            assert unsynced <= {str(folder / "learner.db")}, rest
            promises += 1
    assert promises == 4
