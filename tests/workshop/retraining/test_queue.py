"""Retrainings come from the server's queue and its database, and survive the death of their worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from simulators.foreman import call, ok, refused, started
from simulators.foundry import KINDS, NEW, OLD, Fleet

from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.messages import Message, Statistics
from host_trainer.retraining import runs
from host_trainer.retraining.worker import Around, work
from host_trainer.server.fleet import Fleet as Served
from host_trainer.server.fleet import open_fleet
from host_trainer.server.jobs import RETRAIN, Jobs
from host_trainer.server.tables import COMMITTED, QUARANTINED, TAKEN, ContentRow, Device, JobRow, Knowledge


def commit(served: Served, device: str, *messages: Message) -> None:
    """Hold contents as a round that has ended leaves them."""
    with served.database.writing() as session:
        if session.get(Device, device) is None:
            facts = {"hardware": [], "runtime": "0.1.0", "model": "waste", "channel": "canary"}
            session.add(Device(name=device, key=bytes(32), level="images", enrolled_at=0, **facts))
            session.flush()
        for number, message in enumerate(messages):
            data, name = canonical(message), content_id(message)
            served.objects.put(name, data)
            since = message.since if isinstance(message, Statistics) else None
            level = type(message).__name__.lower()
            session.add(
                ContentRow(device=device, id=name, level=level, size=len(data), received=len(data), key=name,
                           state=COMMITTED, since=since, arrived_at=number, committed_at=number)
            )  # fmt: skip


def states(served: Served) -> dict[str, tuple[str, str]]:
    with served.database.reading() as session:
        return {row.id: (row.state, row.reason) for row in session.query(ContentRow)}


def test_what_devices_sent_to_the_server_is_learned_from_and_it_hears_what_became_of_it(fleet: Fleet) -> None:
    good, seen = fleet.device("good"), fleet.samples("good", [NEW], 14, 20)
    liar = fleet.device("liar")
    lie = liar.tell(fleet.samples("liar", [NEW], 14, 60))
    lie = Statistics(**{**vars(lie), "labels": OLD[:1]})
    with open_fleet(fleet.folder) as served:
        commit(served, "good", good.tell(seen), good.features(seen))
        commit(served, "liar", lie)
    result = ok("retrain", fleet.folder, "--model", "waste")
    assert result["bundle"] == 2 and set(result["suspects"]) == {"liar"}
    with open_fleet(fleet.folder) as served, served.database.reading() as session:
        found = states(served)
        assert sorted(state for state, _ in found.values()) == [QUARANTINED, TAKEN, TAKEN]
        assert "agree" in found[content_id(lie)][1]
        known = session.get(Knowledge, ("waste", 2, "good"))
        assert known is not None and known.content == good.last


def test_there_is_only_one_model_so_it_need_not_be_named(fleet: Fleet) -> None:
    idle = ok("retrain", fleet.folder)
    assert idle["idle"] and idle["bundle"] == 0 and idle["reasons"] == ["nothing came since bundle 1"]
    assert "nothing came since bundle 1: nothing to do" in call("retrain", fleet.folder).out
    assert "no model other" in refused("retrain", fleet.folder, "--model", "other")
    assert "--once belongs to a worker" in refused("retrain", fleet.folder, "--once")
    assert "--backbone belongs to a first release" in refused(
        "retrain", fleet.folder, "--backbone", fleet.backbone
    )


def test_a_worker_does_what_is_queued_and_says_what_came_of_it(fleet: Fleet) -> None:
    device = fleet.device("device-1")
    with open_fleet(fleet.folder) as served:
        commit(served, "device-1", device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    job = ok("retrain", fleet.folder, "--queue")["job"]
    assert ok("retrain", fleet.folder, "--queue")["job"] == job  # one of a kind waits
    assert ok("retrain", fleet.folder, "--worker", "--once")["done"] == 1
    with open_fleet(fleet.folder) as served, served.database.reading() as session:
        row = session.get(JobRow, job)
        assert row is not None and row.state == "done" and row.result is not None
        assert row.result["bundle"] == 2 and row.result["accepted"]
    assert ok("retrain", fleet.folder, "--worker", "--once")["done"] == 0


def test_a_server_with_a_worker_makes_a_release_of_what_devices_sent(fleet: Fleet) -> None:
    device = fleet.device("device-1")
    with open_fleet(fleet.folder) as served:
        commit(served, "device-1", device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    listening = ("--insecure-loopback", "--port", 0, "--json")
    server = started("serve", fleet.folder, *listening, "--retrain-after", 1, "--worker")
    try:
        end = time.monotonic() + 120
        while not any(run.result for run in runs.runs(fleet.folder)[1:]):
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.2)
    finally:
        server.terminate()
        said, errors = server.communicate(timeout=60)
    result = runs.runs(fleet.folder)[-1].result
    assert result is not None and result["accepted"] and result["bundle"] == 2
    assert server.returncode == 0 and '"url"' in said, errors
    with pytest.raises(ProcessLookupError):  # the worker, by the number in its name, has ended too
        os.kill(_worker_of(fleet), 0)


def _worker_of(fleet: Fleet) -> int:
    with open_fleet(fleet.folder) as served, served.database.reading() as session:
        return int(session.query(JobRow).one().worker.rpartition("-")[2])


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def around(self, stop_after: int = 1000) -> Around:
        pauses = []

        def pause(seconds: float) -> None:
            self.now += seconds
            pauses.append(seconds)

        return Around(lambda: self.now, pause, lambda line: None, lambda: len(pauses) >= stop_after)


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def served(fleet: Fleet):
    with open_fleet(fleet.folder) as opened:
        yield opened


def test_a_process_that_fails_is_tried_again_later_and_in_the_end_given_up(served: Served) -> None:
    jobs, clock = Jobs(served.database), Clock()
    number = jobs.put(RETRAIN, "waste", {}, int(clock.now), attempts=2)
    failing = python("import sys; print('no space here', file=sys.stderr); sys.exit(2)")
    assert work(jobs, "w", lambda job: failing, clock.around(), once=True) == 0
    with served.database.reading() as session:
        row = session.get(JobRow, number)
        assert row is not None and row.state == "queued" and row.words == "no space here"
    clock.now += 1000
    work(jobs, "w", lambda job: failing, clock.around(), once=True)
    with served.database.reading() as session:
        row = session.get(JobRow, number)
        assert row is not None and row.state == "given up"


def test_a_rejected_release_is_a_job_that_is_done(served: Served) -> None:
    jobs, clock = Jobs(served.database), Clock()
    jobs.put(RETRAIN, "waste", {}, int(clock.now))
    rejecting = python('print(\'{"accepted": false, "reasons": ["worse"]}\'); import sys; sys.exit(1)')
    assert work(jobs, "w", lambda job: rejecting, clock.around(), once=True) == 1


def test_a_worker_that_lost_its_lease_lets_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, clock = Jobs(served.database), Clock()
    number = jobs.put(RETRAIN, "waste", {}, int(clock.now))
    monkeypatch.setattr("host_trainer.retraining.worker.PERIOD_S", 0.2)

    def slow(job) -> Sequence[str]:
        clock.now += 10_000  # so long was it silent
        other = jobs.take([RETRAIN], "another", int(clock.now))
        assert other is not None and other.id == number
        return python("import time; time.sleep(60)")

    start = time.monotonic()
    assert work(jobs, "w", slow, clock.around(), once=True) == 0
    assert time.monotonic() - start < 30
    with served.database.reading() as session:
        row = session.get(JobRow, number)
        assert row is not None and row.worker == "another" and row.state == "leased"


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(fleet: Fleet) -> None:
    device = fleet.device("device-1")
    with open_fleet(fleet.folder) as served:
        seen = fleet.samples("device-1", KINDS, 14, 20)
        commit(served, "device-1", device.tell(seen), device.features(seen))
    ok("retrain", fleet.folder, "--queue")
    command = [sys.executable, "-m", "host_trainer.cli", "retrain", str(fleet.folder), "--worker", "--once"]
    worker = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while len(runs.runs(fleet.folder)) < 2 or not runs.runs(fleet.folder)[-1].place("2-update").is_dir():
        time.sleep(0.02)
    os.killpg(worker.pid, signal.SIGKILL)  # with the child that trains
    worker.wait()
    with open_fleet(fleet.folder) as served, served.database.writing() as session:
        for row in session.query(JobRow):
            row.lease_until = 0  # five minutes later
    assert ok("retrain", fleet.folder, "--worker", "--once")["done"] == 1
    run = runs.runs(fleet.folder)[-1]
    assert run.number == 2 and run.result is not None and run.result["bundle"] == 2
    assert call("retrain", fleet.folder, "--worker", "--once").status == 0
