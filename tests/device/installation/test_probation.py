"""On probation every answer is counted and every crash too; without a probation nothing is written."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from simulators.killer import PYTHON, process_environment
from simulators.releases import START, install, later, own_of
from simulators.workshop import call, ok
from test_installation import TOLD

from edge_cl.config import InstallationSettings
from edge_cl.device import install as pointer
from edge_cl.device.install import read_current
from edge_cl.device.installation import probation, records
from edge_cl.device.installation.probation import Tally, Verdict, Watch, verdict
from edge_cl.device.installation.states import FAILED, PASSED, Record
from edge_cl.errors import EngineError, ImageError
from edge_cl.wire.bundle import Gates

GATES = Gates(0, 20, 0, 990, 5_000, 0)
POLICY = InstallationSettings(predictions=10, minutes=5, crashes=2)
RECORD = Record("probation", 1, since=1_000, before=0.9)


@pytest.mark.parametrize(
    ("tally", "now", "event", "words"),
    [
        (Tally("x"), 1_000, "", ""),
        (Tally("x", predictions=10), 1_299, "", ""),
        (Tally("x", predictions=10), 1_300, PASSED, ""),
        (Tally("x", predictions=9), 9_999, "", ""),
        (Tally("x", predictions=4, judged=6, right=6), 9_999, PASSED, ""),
        (Tally("x", predictions=10), None, "", ""),
        (Tally("x", predictions=10, crashes=1), 9_999, PASSED, ""),
        (Tally("x", predictions=10, crashes=2), 9_999, FAILED, "died or failed 2 times"),
        (Tally("x", 10, latencies=(9_000,) * 9), None, "", ""),
        (Tally("x", 10, latencies=(4_000,) * 10), None, "", ""),
        (Tally("x", 10, latencies=(9_000,) * 10), None, FAILED, "9.0 ms, more than 5.0 ms"),
        (Tally("x", judged=19, right=0), None, "", ""),
        (Tally("x", judged=20, right=15), None, "", ""),  # 75 %, but of twenty
        (Tally("x", judged=20, right=14), None, FAILED, "of 20 pictures 70 % were right"),
        (Tally("x", judged=2_000, right=1_720), None, FAILED, "86 %"),
        (Tally("x", judged=2_000, right=1_760), None, "", ""),
    ],
)
def test_the_verdict_follows_from_what_was_counted(tally, now, event, words):
    found = verdict(tally, RECORD, GATES, POLICY, now)
    assert found.event == event
    assert words in found.reason


def test_an_owner_s_limit_counts_beside_the_release_s_own():
    slow = Tally("x", latencies=(3_000,) * 10)
    assert verdict(slow, RECORD, GATES, POLICY, None) == Verdict("")
    limited = InstallationSettings(latency_ms=2.0)
    assert verdict(slow, RECORD, GATES, limited, None).event == FAILED
    assert verdict(slow, RECORD._replace(before=-1.0), GATES, limited, None).event == FAILED


def test_answers_and_failures_are_counted(tmp_path):
    watch = Watch(tmp_path, "x")
    for number in range(40):
        with watch.answering([]) as _:
            pass
        watch.judged(1, number % 2)
    with pytest.raises(ImageError), watch.answering([]):
        raise ImageError("unreadable")
    with pytest.raises(EngineError), watch.answering([]):
        raise EngineError("the engine failed")
    with pytest.raises(EngineError), watch.guarded():
        raise EngineError("the engine failed")
    assert Watch(tmp_path, "x").tally() == Tally("x", 40, 2, (), 40, 20)
    assert Watch(tmp_path, "y").tally() == Tally("y")  # another release begins at nothing


def test_the_last_latencies_are_kept(tmp_path):
    watch = Watch(tmp_path, "x")
    for number in range(40):
        with watch.answering([number]):
            pass
    assert watch.tally().latencies == tuple(range(9, 40))


def test_who_is_at_work_has_not_crashed_and_who_was_killed_has(tmp_path):
    code = (
        "import sys, pathlib; from edge_cl.device.installation.probation import Watch\n"
        "with Watch(pathlib.Path(sys.argv[1]), 'x').guarded():\n"
        "    print('working', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [PYTHON, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=process_environment(),
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    watch = Watch(tmp_path, "x")
    assert watch.tally().crashes == 0
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert watch.tally().crashes == 1
    assert watch.tally().crashes == 1  # counted once


def test_a_damaged_tally_begins_anew(tmp_path):
    watch = Watch(tmp_path, "x")
    with watch.answering([]):
        pass
    (tmp_path / "installation" / "watch" / "tally.json").write_bytes(b"{")
    assert watch.tally() == Tally("x")


def test_where_marks_cannot_be_written_answers_are_given_all_the_same(tmp_path):
    (tmp_path / "installation").write_text("no folder")
    with Watch(tmp_path, "x").answering([]):
        pass
    Watch(tmp_path, "x").judged(1, 1)


def test_a_storage_that_refuses_is_no_crash_of_the_release(tmp_path, monkeypatch):
    watch = Watch(tmp_path, "x")
    with watch.answering([]):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        for _ in range(3):
            with watch.answering([]):
                pass
    assert watch.tally() == Tally("x", predictions=1)


def refuse(_descriptor):
    raise OSError(28, "No space left on device")


@pytest.fixture
def tried(device, host, tmp_path):
    installation, record = install(device, host.release(tmp_path / "tuf"), TOLD, {TOLD: own_of(device)})
    assert record.state == "probation"
    return installation


def crash(device: Path, photos: Path) -> None:
    """Ask in a process of its own whose backbone dies of a signal, as from a bug of its engine."""
    code = (
        "import os, signal, sys; from edge_cl import cli; from edge_cl.vision import backbone\n"
        "backbone.Backbone.embed = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "cli.main(sys.argv[1:])"
    )
    picture = sorted(photos.glob("0/*"))[0]
    done = subprocess.run(
        [PYTHON, "-c", code, "predict", str(picture), "--state", str(device)],
        env=process_environment(), capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGSEGV


def test_a_release_that_crashes_three_times_is_undone_by_whoever_comes_next(tried, device, photos):
    before = read_current(device)
    for _ in range(3):
        assert read_current(device) == before
        crash(device, photos)
    asked = ok("predict", *sorted(photos.glob("0/*"))[:2], "--state", device)
    assert {found["best"] for found in asked["predictions"]} <= {"0", "1", "2"}
    assert read_current(device).life == before.fallback
    record = tried.advance(later(1))
    assert (record.state, record.failures) == ("rollback", 1)
    assert "died or failed 3 times" in record.reason


def test_teaching_counts_the_answers_before_it_told_them(tried, device, all_photos):
    ok("learn", "--label", "3", *sorted((all_photos / "3").iterdir())[:6], "--state", device)
    tally = Watch(device, read_current(device).bundle).tally()
    assert tally.judged == 6
    assert tally.crashes == 0


def test_a_clock_that_was_set_back_does_not_keep_a_release_on_probation_for_years(tried, device, photos):
    ok("predict", *sorted(photos.glob("0/*"))[:3], "--state", device)
    record = tried.standing()
    records.write(device, record._replace(since=record.since + 10**9))
    assert tried.advance(START).state == "probation"
    assert tried.advance(later(11)).state == "commit"


def test_without_a_record_the_pointer_says_that_a_release_is_on_probation(tried, device, photos):
    (device / "installation" / "record.json").unlink()
    record = tried.standing()
    assert (record.state, record.staged) == ("probation", read_current(device).bundle)
    ok("predict", *sorted(photos.glob("0/*"))[:3], "--state", device)
    assert tried.advance(later(11)).state == "commit"
    assert read_current(device).fallback is None


def test_an_undoing_that_was_cut_off_is_finished_by_whoever_comes_next(tried, device, monkeypatch):
    record = tried.standing()
    with monkeypatch.context() as patch:
        patch.setattr(pointer, "roll_back", cut_off)
        with pytest.raises(KeyboardInterrupt):
            probation.fail(device, record, "a test")
    assert tried.standing().state == "rollback"
    assert read_current(device).fallback is not None
    assert call("status", "--state", device).status == 0
    assert read_current(device).fallback is None
    assert tried.advance(START).staged == ""


def cut_off(_folder):
    raise KeyboardInterrupt


def test_an_answer_writes_nothing_where_nothing_is_on_probation(device, photos):
    before = written(device)
    ok("predict", *sorted(photos.glob("0/*"))[:2], "--state", device)
    assert written(device) == before


def written(folder: Path) -> dict[Path, int]:
    """Return when each file was written; SQLite makes two empty ones to read, and leaves them."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return {path: path.stat().st_mtime_ns for path in files if not path.name.endswith("-shm")}
