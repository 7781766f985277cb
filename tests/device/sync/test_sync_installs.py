"""A device, a server and a release: fetched, installed, and what is told afterwards still adds up."""

import shutil
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from simulators.hosting import Hosted
from simulators.releases import GATES, Host, of_folder
from simulators.workshop import ok, refused
from sqlalchemy import delete

from edge_cl.config import InstallationSettings, Settings, SyncSettings, write_settings
from edge_cl.device.opening import open_agent
from edge_cl.device.staged import model_path, settings_of
from edge_cl.device.sync.enrolment import enrol
from edge_cl.device.sync.knowledge import knowledge
from edge_cl.device.sync.syncing import Synced, sync
from edge_cl.learning import increment
from edge_cl.learning.named import Named, on
from edge_cl.wire.codec import decode
from edge_cl.wire.release import Facts
from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import publish
from host_trainer.retraining.told import Told, taken_in
from host_trainer.server import bundles
from host_trainer.server.tables import ContentRow, Device


def meet(state: Path) -> Synced:
    return sync(state, datetime.now(timezone.utc))


def heard(host: Hosted, device: str = "pi-1") -> Told:
    told, rows = None, [each for each in host.contents.listed() if each.level == "statistics"]
    rows = [each for each in rows if each.device == device]
    messages = [(each.id, decode(host.contents.read(each))) for each in rows]
    for name, message in sorted(messages, key=lambda pair: pair[1].number):
        told = taken_in(told, message, name, ())
    assert told is not None
    return told


def offered(
    fleet: Path,
    host: Hosted,
    workshop: Host,
    number: int,
    told: Told | None,
    device: str = "pi-1",
    **more: object,
) -> None:
    """Sign a release of what the workshop knows, and note what of the device it holds."""
    made = workshop.release(fleet / "made", number, **more)  # type: ignore[arg-type]
    place = RepositoryFolder(fleet)
    ring = Keyring(place.key_folders(), lambda words: b"")
    now = datetime.now(timezone.utc)
    facts = Facts(number, ("any",), "0.1.0", "")
    publish(place, ring, made.file, "signs", "canary", facts, now, f"signs-{number}.bundle")
    with host.fleet.database.writing() as session:
        assert bundles.adopt(session, place, int(now.timestamp())).others == ()
        if told is not None:
            bundles.know(session, "signs", number, {device: told.contents[-1]})


def known(host: Hosted) -> Named:
    told = heard(host)
    return Named(told.labels, told.statistics())


@pytest.fixture
def device(taught: Path, host: Hosted) -> Path:
    """Taught the signs 0, 1 and 2, and enrolled; a probation is one answer."""
    found = settings_of(taught)
    policy = InstallationSettings(1, 0)
    write_settings(
        taught, Settings(found.learner, found.teaching, found.engine, SyncSettings(minimum=1), policy)
    )
    enrol(taught, host.url, host.code("pi-1", model="signs"), ("cpu",))
    return taught


def check(state: Path, host: Hosted) -> None:
    """What the host has heard is all that was taught here, also what came back in a bundle."""
    told = known(host)
    with open_agent(state, read_only=True) as agent:
        own = knowledge(agent).own
    labels = increment.union(own.labels, told.labels)
    mine, theirs = on(own, labels), on(told, labels)
    assert mine.counts.tolist() == theirs.counts.tolist()
    assert np.array_equal(mine.sums, theirs.sums)


def test_a_release_comes_is_kept_and_nothing_is_told_twice(
    device: Path, host: Hosted, fleet: Path, all_photos: Path
) -> None:
    meet(device)
    workshop = Host(model_path(device), of_folder(all_photos, "3", "4"), known(host))
    offered(fleet, host, workshop, 1, heard(host))
    found = meet(device)
    assert (found.offered, found.fetched, found.installed) == (1, True, "probation")
    check(device, host)
    ok("predict", all_photos / "3" / "01.jpg", "--state", device)
    assert meet(device).installed == "commit"
    with host.fleet.database.reading() as session:
        row = session.get_one(Device, "pi-1")
        assert (row.bundle, row.install, row.tried) == (1, "commit", 0)
    with open_agent(device, read_only=True) as agent:
        assert set(agent.learner.labels) >= {"0", "1", "2", "3", "4"}
    quiet = meet(device)
    assert (quiet.offered, quiet.fetched) == (1, False)
    assert quiet.traffic.up < 2_000 > quiet.traffic.down
    check(device, host)
    (device.parent / "more" / "5").mkdir(parents=True)
    for path in sorted((all_photos / "5").iterdir())[:4]:
        (device.parent / "more" / "5" / path.name).write_bytes(path.read_bytes())
    ok("learn", device.parent / "more", "--state", device)
    meet(device)
    check(device, host)
    workshop.hear(known(host))
    offered(fleet, host, workshop, 2, heard(host))
    assert meet(device).installed == "probation"
    check(device, host)
    ok("predict", all_photos / "3" / "01.jpg", "--state", device)
    assert meet(device).installed == "commit"
    meet(device)
    check(device, host)


def installed(device: Path, host: Hosted, fleet: Path, all_photos: Path) -> Path:
    """Let a bundle that has what the device told be kept; return a picture."""
    meet(device)
    workshop = Host(model_path(device), of_folder(all_photos, "3", "4"), known(host))
    offered(fleet, host, workshop, 1, heard(host))
    meet(device)
    ok("predict", all_photos / "3" / "01.jpg", "--state", device)
    assert meet(device).installed == "commit"
    return all_photos / "5" / "01.jpg"


def test_a_host_that_forgot_hears_all_again_also_what_its_bundle_has(
    device: Path, host: Hosted, fleet: Path, all_photos: Path
) -> None:
    picture = installed(device, host, fleet, all_photos)
    with host.fleet.database.writing() as session:
        session.execute(delete(ContentRow))
        session.get_one(Device, "pi-1").last = None
    ok("learn", "--label", "5", picture, "--state", device)
    meet(device)
    check(device, host)


def test_a_device_that_forgot_what_it_told_tells_all_anew(
    device: Path, host: Hosted, fleet: Path, all_photos: Path
) -> None:
    picture = installed(device, host, fleet, all_photos)
    before = heard(host)
    shutil.rmtree(device / "sync")
    enrol(device, host.url, host.code("pi-1", model="signs"), ("cpu",))
    ok("learn", "--label", "5", picture, "--state", device)
    workshop = Host(model_path(device), of_folder(all_photos, "3", "4"), known(host))
    offered(fleet, host, workshop, 2, before)
    found = meet(device)
    assert not found.fetched  # it has what is forgotten here
    assert "does not know to have told" in found.notes[0]
    check(device, host)
    workshop.hear(known(host))
    offered(fleet, host, workshop, 3, heard(host))
    assert meet(device).installed == "probation"


def test_a_release_that_is_worse_is_undone_and_its_reason_is_told(
    device: Path, host: Hosted, fleet: Path, all_photos: Path
) -> None:
    meet(device)
    workshop = Host(model_path(device), of_folder(all_photos, "3", "4"), known(host))
    offered(fleet, host, workshop, 1, heard(host), gates=GATES.__class__(**{**vars(GATES), "latency": 1}))
    for attempt in range(3):
        found = meet(device)
        assert found.installed == "rollback", attempt
        assert found.notes
    assert not meet(device).fetched  # it has failed often enough
    with host.fleet.database.reading() as session:
        row = session.get_one(Device, "pi-1")
        assert (row.bundle, row.install, row.tried) == (0, "rollback", 1)
        assert row.reason
    check(device, host)


def test_what_the_signed_list_does_not_have_is_left(
    device: Path, host: Hosted, fleet: Path, all_photos: Path
) -> None:
    meet(device)
    workshop = Host(model_path(device), of_folder(all_photos, "3", "4"))
    offered(fleet, host, workshop, 1, None)
    listed = fleet / "repository" / "metadata"
    before = {path.name: path.read_bytes() for path in listed.iterdir()}
    offered(fleet, host, workshop, 7, None)
    served = {path.name: path.read_bytes() for path in listed.iterdir()}
    assert before != served
    for path in listed.iterdir():  # a host that was broken into takes the list back, and offers all the same
        if path.name not in before:
            path.unlink()
        else:
            path.write_bytes(before[path.name])
    found = meet(device)
    assert (found.offered, found.fetched) == (7, False)
    assert "its signed list does not have" in found.notes[0]
    check(device, host)


def test_the_same_over_the_command_line(device: Path, host: Hosted) -> None:
    result = ok("sync", "--state", device)
    assert result["installation"] == "idle"
    assert result["sent"][0]["level"] == "statistics"
    assert "holds a learner already" in refused(
        "init", "--state", device, "--host", host.url, "--code", host.code("pi-9"), "--views", "2"
    )
