"""Killed, or refused by the disk, at any call that writes: what was told is told once, the rest next time."""

import shutil
from pathlib import Path

import pytest
from simulators import teller
from simulators.hosting import hosting
from simulators.killer import KILL, PYTHON, Outcome, run_failing_at, why_not
from simulators.workshop import call
from test_syncing import check, enrol, heard, meet, rules, teach

from edge_cl.wire.codec import decode
from edge_cl.wire.messages import Features

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "traced")
TELLER = str(Path(teller.__file__))
QUICK_STRIDE = 41  # calls between the ones tried in the quick test


def test_a_sync_killed_at_some_calls_tells_everything_once(furnished, fleet, tmp_path):
    assert kill_everywhere(furnished, fleet, tmp_path, KILL, QUICK_STRIDE) >= 2


@pytest.mark.slow
def test_a_sync_killed_at_every_call_that_writes_tells_everything_once(furnished, fleet, tmp_path):
    assert kill_everywhere(furnished, fleet, tmp_path, KILL, 1) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error=ENOSPC", "error=EIO"])
def test_a_sync_whose_disk_refuses_says_so_and_tells_everything_once(furnished, fleet, tmp_path, fault):
    assert kill_everywhere(furnished, fleet, tmp_path, fault, 11, onwards=True) >= 4


def kill_everywhere(furnished: Path, fleet: Path, place: Path, fault: str, stride: int, onwards=False) -> int:
    """Fail one sync after the other, each of a device of its own, told twice before; return those hit."""
    hits, number = 0, 0
    with hosting(fleet) as host:
        state = place / "victim"

        def prepare() -> None:
            nonlocal number
            number += 1
            shutil.rmtree(state, ignore_errors=True)
            shutil.copytree(furnished, state)
            rules(state, level="features")
            enrol(state, host.url, host.code(f"pi-{number}"), ("cpu",))
            meet(state)
            teach(state, "bowl", 4)

        for outcome in run_failing_at(
            [PYTHON, TELLER, str(state)],
            prepare,
            fault=fault,
            stride=stride,
            onwards=onwards,
            environment={"OPENBLAS_NUM_THREADS": "1"},
        ):
            assert outcome.hit or outcome.status == 0, outcome
            check_promises(state, host, f"pi-{number}", outcome)
            hits += outcome.hit
    return hits


def check_promises(state: Path, host, name: str, outcome: Outcome) -> None:
    preview = call("sync", "--dry-run", "--json", "--state", state)
    assert preview.status == 0, (outcome, preview)
    if outcome.stdout.startswith("told"):
        check(state, heard(host, name))
    meet(state)
    check(state, heard(host, name))
    rows = [each for each in host.contents.listed() if each.device == name and each.level == "features"]
    found = [decode(host.contents.read(each), Features) for each in rows]
    numbers = [number for each in found for number in each.samples.tolist()]
    assert sorted(numbers) == list(range(1, 23)), outcome
