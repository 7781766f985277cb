"""What nobody asks for is done: the repository stays valid, bundles are found, training is asked for."""

import hashlib
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from simulators.listing import list_bundle
from sqlalchemy import func, select

from host_trainer.server import contents, overview
from host_trainer.server.fleet import Fleet
from host_trainer.server.jobs import RETRAIN, Jobs
from host_trainer.server.limits import Limits
from host_trainer.server.rules.retraining import Policy
from host_trainer.server.tables import COMMITTED, BundleRow, Code, ContentRow, Device, StatusRow
from host_trainer.server.upkeep import Upkeep

DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = int(datetime.now(timezone.utc).timestamp())

    def __call__(self) -> float:
        return float(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def upkeep(small_fleet: Fleet, clock: Clock) -> Upkeep:
    return Upkeep(small_fleet, Limits(policy=Policy(contents=2)), clock)


def device(name: str = "pi-1", **more: object) -> Device:
    fields = {"key": bytes(32), "hardware": [], "runtime": "0.1.0", "model": "waste", "channel": "canary"}
    return Device(name=name, level="images", enrolled_at=0, **fields, **more)  # type: ignore[arg-type]


def content(name: str, at: int) -> ContentRow:
    return ContentRow(
        device="pi-1",
        id=name * 64,
        level="statistics",
        size=1,
        received=1,
        key=name * 64,
        state=COMMITTED,
        arrived_at=at,
        committed_at=at,
    )


def test_the_stamp_is_renewed_before_it_expires(small_fleet: Fleet, upkeep: Upkeep, clock: Clock) -> None:
    first = small_fleet.place.read().timestamp.signed
    upkeep.turn()
    assert small_fleet.place.read().timestamp.signed.version == first.version
    for _ in range(20):
        clock.now += DAY // 3
        upkeep.turn()
        now = datetime.fromtimestamp(clock.now, timezone.utc)
        repository = small_fleet.place.read()
        for document in (repository.timestamp, repository.snapshot):
            assert document.signed.expires - now > timedelta(0)
    assert upkeep.faults == {}


def test_without_its_key_the_fault_is_told_and_the_rest_goes_on(
    small_fleet: Fleet, upkeep: Upkeep, clock: Clock
) -> None:
    key = small_fleet.folder / "keys" / "online" / "timestamp-1.pem"
    key.rename(small_fleet.folder / "away.pem")
    clock.now += DAY
    upkeep.turn()
    assert "timestamp-1" in upkeep.faults["renew the repository"]
    (small_fleet.folder / "away.pem").rename(key)
    upkeep.turn()
    assert upkeep.faults == {}


def test_a_bundle_is_found_once_it_is_listed(small_fleet: Fleet, upkeep: Upkeep) -> None:
    upkeep.turn()
    list_bundle(small_fleet.folder, 3)
    list_bundle(small_fleet.folder, 3, hardware=("edgetpu",))
    upkeep.turn()
    upkeep.turn()
    with small_fleet.database.reading() as session:
        found = overview.releases(session)
    assert [(each.number, each.channel, each.classes) for each in found] == [(3, "canary", 2)]


def test_training_is_asked_for_once_enough_waits(small_fleet: Fleet, upkeep: Upkeep, clock: Clock) -> None:
    jobs = Jobs(small_fleet.database)
    with small_fleet.database.writing() as session:
        session.add(device())
        session.flush()
        session.add(content("a", clock.now))
    upkeep.turn()
    assert jobs.take([RETRAIN], "w", clock.now) is None
    with small_fleet.database.writing() as session:
        session.add(content("b", clock.now))
    upkeep.turn()
    upkeep.turn()
    job = jobs.take([RETRAIN], "w", clock.now)
    assert job is not None
    assert (job.subject, job.payload["waiting"]) == ("waste", 2)
    jobs.finish(job, {}, clock.now)
    held = contents.Contents(small_fleet.database, small_fleet.objects)
    held.take(held.listed())
    upkeep.turn()
    assert jobs.take([RETRAIN], "w", clock.now) is None


def test_by_its_usual_policy_nothing_is_trained(small_fleet: Fleet, clock: Clock) -> None:
    with small_fleet.database.writing() as session:
        session.add(device())
        session.flush()
        session.add(content("a", 0))
    Upkeep(small_fleet, Limits(), clock).turn()
    assert Jobs(small_fleet.database).take([RETRAIN], "w", clock.now) is None


def test_what_was_given_up_in_a_crash_is_destroyed_later(small_fleet: Fleet, upkeep: Upkeep) -> None:
    key = "ab" * 32
    path = small_fleet.folder / "objects" / "ab" / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a picture")
    with small_fleet.database.writing() as session:
        contents.doom(session, key)
    upkeep.turn()
    assert not path.exists()


def test_an_object_that_no_row_speaks_of_is_destroyed_after_a_day(
    small_fleet: Fleet, upkeep: Upkeep, clock: Clock
) -> None:
    data = b"a picture"
    key = hashlib.sha256(data).hexdigest()
    small_fleet.objects.put(key, data)
    upkeep.turn()
    assert small_fleet.objects.get(key) == data
    clock.now += DAY + 60
    upkeep.turn()
    assert not (small_fleet.folder / "objects" / key[:2] / key).exists()


def test_what_is_old_is_forgotten(small_fleet: Fleet, upkeep: Upkeep, clock: Clock) -> None:
    status = {
        "bundle": 0,
        "install": "idle",
        "tried": 0,
        "reason": "",
        "samples": 0,
        "suspects": 0,
        "latency": 0,
    }
    code = Code(
        device="pi", model="waste", channel="canary", level="images", uses=1, many=False, made_at=0, token="a"
    )
    with small_fleet.database.writing() as session:
        session.add(device())
        session.flush()
        session.add(StatusRow(device="pi-1", round=1, at=clock.now - 91 * DAY, **status))
        session.add(StatusRow(device="pi-1", round=2, at=clock.now - 89 * DAY, **status))
        code.expires_at = clock.now - 2 * DAY
        session.add(code)
    upkeep.turn()
    with small_fleet.database.reading() as session:
        assert list(session.scalars(select(StatusRow.round))) == [2]
        assert session.scalar(select(func.count()).select_from(Code)) == 0


def test_what_is_published_is_offered_at_once_and_not_only_with_the_next_turn(
    small_fleet: Fleet, upkeep: Upkeep
) -> None:
    def numbers() -> set[int]:
        with small_fleet.database.reading() as session:
            return set(session.scalars(select(BundleRow.number)))

    stop = threading.Event()
    thread = threading.Thread(target=upkeep.run, args=(stop, 3600.0))
    thread.start()
    try:
        before = numbers()
        list_bundle(small_fleet.folder, 7)
        end = time.monotonic() + 20
        while 7 not in numbers() and time.monotonic() < end:
            time.sleep(0.1)
        assert numbers() - before == {7}
    finally:
        stop.set()
        thread.join()
