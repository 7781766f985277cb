"""Killed, or refused by the disk, at any call that writes: a clean start, and no promise is broken."""

import shutil
from pathlib import Path

import pytest
from simulators import pupil
from simulators.killer import KILL, PYTHON, Outcome, run_failing_at, why_not
from simulators.workshop import call, ok

from edge_cl.device.install import check_bundle, load_checkpoint, read_current
from edge_cl.device.opening import open_agent

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "traced")
PUPIL = str(Path(pupil.__file__))
QUICK_STRIDE = 41  # calls between the ones tried in the quick test
REFUSALS = ("error=ENOSPC", "error=EIO")


@pytest.fixture
def dozen(photos: Path) -> Path:
    """Two classes of four photographs."""
    shutil.rmtree(photos / "2")
    for path in sorted(photos.glob("*/*"))[4::6] + sorted(photos.glob("*/*"))[5::6]:
        path.unlink()
    return photos


def test_a_learner_killed_at_some_calls_keeps_its_promises(backbone, dozen, tmp_path):
    assert kill_everywhere(backbone, tmp_path / "state", dozen, KILL, QUICK_STRIDE) >= 3


@pytest.mark.slow
def test_a_learner_killed_at_every_call_that_writes_keeps_its_promises(backbone, dozen, tmp_path):
    assert kill_everywhere(backbone, tmp_path / "state", dozen, KILL, 1) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_learner_whose_disk_refuses_from_some_call_on_keeps_its_promises(backbone, dozen, tmp_path, fault):
    hits = kill_everywhere(backbone, tmp_path / "state", dozen, fault, 7, onwards=True)
    assert hits >= 10


def kill_everywhere(backbone: Path, state: Path, photos: Path, fault: str, stride: int, onwards=False) -> int:
    hits = 0
    command = [PYTHON, PUPIL, str(backbone), str(state), str(photos)]
    for outcome in run_failing_at(
        command,
        lambda: shutil.rmtree(state, ignore_errors=True),
        fault=fault,
        stride=stride,
        onwards=onwards,
        environment={"OPENBLAS_NUM_THREADS": "1"},
    ):
        assert outcome.hit or outcome.status == 0, outcome
        assert "Traceback" not in outcome.stderr or fault != KILL, outcome
        check_promises(state, photos, backbone, outcome)
        hits += outcome.hit
    return hits


def check_promises(state: Path, photos: Path, backbone: Path, outcome: Outcome) -> None:
    promises = [line.split() for line in outcome.stdout.splitlines() if not line.startswith("{")]
    kept = max((int(words[1]) for words in promises if words[0] == "kept"), default=0)
    forgot = ["forgot", str(pupil.FORGOTTEN)] in promises
    if not (state / "config.toml").exists():  # `init` had not said that it was done: it can be done again
        assert promises == [], outcome
        ok("init", "--state", state, "--backbone", backbone, "--seed", "1")
    status = call("status", "--json", "--state", state)
    assert status.status == 0, (outcome, status)
    assert status.err == "", (outcome, status)
    may_have_forgotten = kept == len(list(photos.glob("*/*")))  # it begins when all is kept
    assert status.json["samples"] >= kept - may_have_forgotten, outcome
    check_pointer(state, outcome)
    check_second_life(state, photos, forgot, outcome)


def check_pointer(state: Path, outcome: Outcome) -> None:
    current = read_current(state)
    assert current.bundle is not None, outcome
    check_bundle(state, current.bundle)
    loaded = load_checkpoint(state)
    assert loaded is None or loaded.problem == "", outcome


def check_second_life(state: Path, photos: Path, forgot: bool, outcome: Outcome) -> None:
    """The next process starts clean, and the same teaching carries on to the end."""
    with open_agent(state, with_backbone=True) as agent:
        assert agent.notes == [], outcome
        known = {shown.sample for shown in agent.samples()}
        assert not (forgot and pupil.FORGOTTEN in known), outcome
        assert agent.store.erasures() == ()
    result = ok("learn", photos, "--state", state)
    assert result["learned"] + result["skipped"] == len(list(photos.glob("*/*"))), outcome
    left = [path.name for path in state.rglob(".part-*")]
    assert left == [], outcome
