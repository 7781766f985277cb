"""Rounds over real connections: nothing is lost, nothing counts twice, what is wrong is refused by name."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from simulators import postgres
from simulators.caller import Caller, chunks, features, images, statistics
from simulators.hosting import Hosted, hosting
from simulators.listing import list_bundle, manifest
from sqlalchemy import func, select

from edge_cl.wire.codec import canonical, content_id, decode
from edge_cl.wire.labels import MAX_EDITS
from edge_cl.wire.messages import (
    Acknowledgement,
    Features,
    Images,
    Message,
    Offer,
    Receipt,
    Renaming,
    Welcome,
)
from edge_cl.wire.release import Facts
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import publish
from host_trainer.server import bundles, classes
from host_trainer.server.contents import Held
from host_trainer.server.fleet import Address
from host_trainer.server.limits import Limits
from host_trainer.server.rules.rollout import Rollout, place
from host_trainer.server.tables import (
    QUARANTINED,
    WITHDRAWN,
    ContentRow,
    Device,
    Doomed,
    Piece,
    StatusRow,
    Trial,
)

NOW = 1_800_000_000
NUMBERS = itertools.count(1)  # of devices


@pytest.fixture
def address(database_address: str) -> Address:
    return Address(database_address)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, founded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosted]:
    """A host for all who bring devices of their own, on each kind of database."""
    where = "" if request.param == "sqlite" else postgres.fresh(request.getfixturevalue("postgresql"))
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("shared") / "FLEET"))
    with hosting(folder, Address(where), clock=lambda: NOW) as hosted:
        yield hosted


@pytest.fixture
def alone(folder: Path, address: Address) -> Iterator[Hosted]:
    """A host for who changes what is the fleet's."""
    with hosting(folder, address, clock=lambda: NOW) as hosted:
        yield hosted


def joined(host: Hosted, name: str = "", **terms: object) -> Caller:
    caller = Caller(host.url, NOW)
    token = host.token(name or f"pi-{next(NUMBERS)}", **terms)  # type: ignore[arg-type]
    assert caller.enrol(token).status == 200
    return caller


@pytest.fixture
def device(shared: Hosted) -> Caller:
    return joined(shared)


def listed(host: Hosted, device: Caller) -> list[Held]:
    return [each for each in host.contents.listed() if each.device == device.name]


def row(host: Hosted, message: Message) -> ContentRow:
    with host.fleet.database.reading() as session:
        found = session.scalars(select(ContentRow).where(ContentRow.id == content_id(message))).one()
        session.expunge(found)
        return found


def count(host: Hosted, table: type[ContentRow | Piece | StatusRow], device: Caller) -> int:
    with host.fleet.database.reading() as session:
        return session.scalar(select(func.count()).where(table.device == device.name)) or 0


def test_a_round_brings_its_contents_whole(shared: Hosted, device: Caller) -> None:
    sent = [statistics(device.name), features(device.name), images(device.name)]
    welcome = device.said(device.greet(1, *sent))
    assert isinstance(welcome, Welcome)
    assert {each.id: each.received for each in welcome.missing} == dict.fromkeys(map(content_id, sent), 0)
    for each in sent:
        device.upload(each, size=100)
    offer = device.said(device.commit(1, *sent))
    assert offer == Offer(1, 0, None, 0, None)
    assert isinstance(device.said(device.status(1)), Acknowledgement)
    held = {each.id: each for each in listed(shared, device)}
    assert held.keys() == set(map(content_id, sent))
    for each in sent:
        assert shared.contents.read(held[content_id(each)]) == canonical(each)
        assert type(shared.contents.message(held[content_id(each)])) is type(each)
    assert [each.samples for each in held.values() if each.level != "statistics"] == [3, 3]
    assert count(shared, Piece, device) == 0


def test_nothing_is_for_use_before_it_is_committed(shared: Hosted, device: Caller) -> None:
    sent = statistics(device.name)
    device.said(device.greet(1, sent))
    device.upload(sent)
    assert listed(shared, device) == []


def test_every_message_may_come_twice(shared: Hosted, device: Caller) -> None:
    sent = statistics(device.name)
    for message in (device.greet(1, sent), *chunks(sent, 100), device.commit(1, sent), device.status(1)):
        first, second = device.said(message), device.said(message)
        assert first == second or isinstance(first, Receipt)
    assert len(listed(shared, device)) == 1
    assert count(shared, StatusRow, device) == 1
    welcome = device.said(device.greet(2, sent))
    assert isinstance(welcome, Welcome)
    assert welcome.missing == ()
    assert welcome.last == content_id(sent)


def test_a_round_goes_on_where_it_was_cut(device: Caller) -> None:
    sent = features(device.name, tuple(range(1, 30)))
    pieces = chunks(sent, 500)
    device.said(device.greet(1, sent))
    for piece in pieces[:2]:
        device.said(piece)
    welcome = device.said(device.greet(2, sent))
    assert isinstance(welcome, Welcome)
    assert [each.received for each in welcome.missing] == [1000]
    for piece in pieces[2:]:
        last = device.said(piece)
    assert last == Receipt(content_id(sent), len(canonical(sent)), True)


def test_a_chunk_that_overlaps_counts_once(shared: Hosted, device: Caller) -> None:
    sent = statistics(device.name)
    data = canonical(sent)
    first, second = chunks(sent, 200)[0], chunks(sent)[0]
    device.said(device.greet(1, sent))
    assert device.said(first) == Receipt(content_id(sent), 200, False)
    assert device.said(second) == Receipt(content_id(sent), len(data), True)
    device.said(device.commit(1, sent))
    with shared.fleet.database.reading() as session:
        assert session.get_one(Device, device.name).day_bytes == len(data)


def test_the_host_may_be_restarted_after_every_message(folder: Path, address: Address) -> None:
    sent = [statistics("pi-1"), features("pi-1")]
    device: Caller | None = None
    script = [
        lambda d: d.greet(1, *sent),
        *[lambda d, piece=piece: piece for each in sent for piece in chunks(each, 300)],
        lambda d: d.commit(1, *sent),
        lambda d: d.status(1),
    ]
    for make in script:
        with hosting(folder, address, clock=lambda: NOW) as host:
            if device is None:
                device = joined(host, "pi-1")
            device.url = host.url
            device.said(make(device))
    with hosting(folder, address, clock=lambda: NOW) as host:
        assert len(host.contents.listed()) == 2


def test_messages_out_of_their_order_change_nothing(shared: Hosted, device: Caller) -> None:
    sent = statistics(device.name)
    early = [chunks(sent)[0], device.commit(1, sent), device.status(1)]
    for message in early:
        answer = device.ask(message)
        assert (answer.status, answer.reason) == (409, "stale")
    device.said(device.greet(1, sent))
    for message in (device.commit(1, sent), device.status(1), device.greet(0, sent)):
        answer = device.ask(message)
        assert (answer.status, answer.reason, answer.headers["edge-cl-round"]) == (409, "stale", "1")
    device.upload(sent)
    device.said(device.commit(1, sent))
    assert len(listed(shared, device)) == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "not what its name says"),
        (lambda data: bytes(len(data)), "not what its name says"),
    ],
    ids=["a changed byte", "zeros"],
)
def test_a_content_that_is_not_what_was_announced_is_dropped_and_can_be_sent_again(
    shared: Hosted, device: Caller, spoil: Callable[[bytes], bytes], words: str
) -> None:
    sent = statistics(device.name)
    pieces, spoiled = chunks(sent, 200), spoil(canonical(sent))
    device.said(device.greet(1, sent))
    for piece in pieces:
        data = spoiled[piece.offset : piece.offset + len(piece.data)]
        answer = device.ask(type(piece)(piece.content, piece.offset, piece.size, data))
    assert (answer.status, answer.reason) == (400, "malformed")
    assert words in answer.message.words  # type: ignore[attr-defined]
    assert (count(shared, Piece, device), count(shared, ContentRow, device)) == (0, 0)
    device.said(device.greet(2, sent))
    device.upload(sent)
    device.said(device.commit(2, sent))


@pytest.mark.parametrize(
    "sent",
    [statistics("other"), features("other")],
    ids=["statistics", "features"],
)
def test_a_content_of_another_device_is_refused(shared: Hosted, device: Caller, sent: Message) -> None:
    device.said(device.greet(1, sent))
    assert device.ask(chunks(sent)[0]).reason == "malformed"
    assert count(shared, ContentRow, device) == 0


def test_two_devices_may_send_at_once_and_learn_nothing_of_each_other(shared: Hosted, device: Caller) -> None:
    other = joined(shared, "pi-2")
    sent = statistics(device.name)
    device.sync(1, sent)
    welcome = other.said(other.greet(1, sent))
    assert isinstance(welcome, Welcome)
    assert [each.received for each in welcome.missing] == [0]


def test_what_is_beyond_the_level_is_not_taken(shared: Hosted) -> None:
    device = joined(shared, level="features")
    sent = [features(device.name), images(device.name)]
    welcome = device.said(device.greet(1, *sent))
    assert isinstance(welcome, Welcome)
    assert welcome.level == "features"
    assert [each.id for each in welcome.missing] == [content_id(sent[0])]
    assert device.said(chunks(sent[1])[0]) == Receipt(content_id(sent[1]), len(canonical(sent[1])), True)
    device.upload(sent[0])
    device.said(device.commit(1, *sent))
    assert [each.level for each in listed(shared, device)] == ["features"]


def test_what_is_announced_no_more_is_forgotten(shared: Hosted, device: Caller) -> None:
    old, new = features(device.name), features(device.name, seed=1)
    device.said(device.greet(1, old))
    device.said(chunks(old, 100)[0])
    assert count(shared, Piece, device) == 1
    device.sync(2, new)
    assert count(shared, Piece, device) == 0
    assert [each.id for each in listed(shared, device)] == [content_id(new)]


def test_a_whole_content_that_was_never_committed_is_destroyed_too(alone: Hosted) -> None:
    device = joined(alone)
    old = features(device.name)
    device.said(device.greet(1, old))
    device.upload(old)
    device.said(device.greet(2))
    assert not [path for path in (alone.fleet.folder / "objects").rglob("*") if path.is_file()]
    with alone.fleet.database.reading() as session:
        assert session.scalars(select(Doomed)).first() is None


def test_statistics_are_told_in_their_order(shared: Hosted, device: Caller) -> None:
    first = statistics(device.name)
    second = statistics(device.name, 2, first)
    anew = statistics(device.name, 3)
    after = statistics(device.name, 4, anew)
    device.sync(1, second, first)
    assert [each.id for each in shared.contents.told(device.name)] == [content_id(first), content_id(second)]
    device.sync(2, anew)
    device.sync(3, after)
    assert [each.id for each in shared.contents.told(device.name)] == [content_id(anew), content_id(after)]


def test_statistics_that_continue_nothing_are_set_aside_and_the_device_starts_anew(
    shared: Hosted, device: Caller
) -> None:
    lost = statistics(device.name)
    orphan = statistics(device.name, 2, lost)
    device.sync(1, orphan)
    assert row(shared, orphan).state == QUARANTINED
    welcome = device.said(device.greet(2))
    assert isinstance(welcome, Welcome)
    assert welcome.last is None
    anew = statistics(device.name, 3)
    device.sync(3, anew)
    assert [each.id for each in shared.contents.told(device.name)] == [content_id(anew)]


def test_statistics_that_the_workshop_sets_aside_are_told_anew(shared: Hosted, device: Caller) -> None:
    first = statistics(device.name)
    second = statistics(device.name, 2, first)
    device.sync(1, first)
    device.sync(2, second)
    shared.contents.quarantine(shared.contents.told(device.name)[:1], "longer than its samples")
    assert shared.contents.told(device.name) == []
    welcome = device.said(device.greet(3))
    assert isinstance(welcome, Welcome)
    assert welcome.last is None
    anew = statistics(device.name, 3)
    device.sync(4, anew)
    assert [each.id for each in shared.contents.told(device.name)] == [content_id(anew)]


def test_samples_that_the_device_takes_back_are_destroyed(alone: Hosted) -> None:
    device = joined(alone)
    kept, gone, pictures = features(device.name), features(device.name, (7,), seed=1), images(device.name)
    device.sync(1, kept, gone, pictures)
    before = canonical(kept)
    device.sync(2, statistics(device.name, withdrawn=np.array([2, 7])))
    held = {each.id: each for each in listed(alone, device) if each.level != "statistics"}
    assert held.keys() == {content_id(kept), content_id(pictures)}
    left = decode(alone.contents.read(held[content_id(kept)]), Features)
    assert isinstance(left, Features)
    assert left.samples.tolist() == [1, 3]
    assert np.array_equal(left.features, kept.features[[0, 2]])
    shown = decode(alone.contents.read(held[content_id(pictures)]), Images)
    assert isinstance(shown, Images)
    assert shown.files() == [images(device.name).files()[0], images(device.name).files()[2]]
    assert row(alone, gone).state == WITHDRAWN
    files = [path.read_bytes() for path in (alone.fleet.folder / "objects").rglob("*") if path.is_file()]
    assert before not in files
    assert not any(kept.features[1].tobytes() in data for data in files)
    welcome = device.said(device.greet(3, kept, gone))
    assert isinstance(welcome, Welcome)
    assert welcome.missing == ()


def test_a_day_has_an_end(folder: Path, address: Address) -> None:
    sent = features("pi-1", tuple(range(1, 100)))
    size = len(canonical(sent))
    clock = [NOW]
    limits = Limits(quota_bytes=size - 1)
    with hosting(folder, address, limits=limits, clock=lambda: clock[0]) as host:
        device = joined(host, "pi-1")
        welcome = device.said(device.greet(1, sent))
        assert isinstance(welcome, Welcome)
        assert welcome.quota == size - 1
        first, *others = chunks(sent, 4000)
        device.said(first)
        answer = device.ask(others[-1] if len(others) == 1 else others[0])
        assert (answer.status, answer.reason) == (429, "quota")
        assert int(answer.headers["retry-after"]) == answer.message.wait  # type: ignore[attr-defined]
        assert 0 < answer.message.wait <= 86_400  # type: ignore[attr-defined]
        clock[0] += 86_400
        device.now = clock[0]
        device.sync(2, sent)
        assert len(host.contents.listed()) == 1


def test_the_devices_follow_the_registry(alone: Hosted) -> None:
    device = joined(alone)
    with alone.fleet.database.writing() as session:
        for number in range(MAX_EDITS + 1):
            classes.edit(session, [f"mug {number}"], f"mug {number + 1}", NOW)
            session.flush()
    welcome = device.said(device.greet(1))
    assert isinstance(welcome, Welcome)
    assert welcome.registry == MAX_EDITS + 1
    some, rest = (device.registry(since).message for since in (0, MAX_EDITS))
    assert isinstance(some, Renaming)
    assert isinstance(rest, Renaming)
    assert [each.version for each in (*some.edits, *rest.edits)] == list(range(1, MAX_EDITS + 2))


def adopted(host: Hosted, *numbers: int, **listed: object) -> None:
    for number in numbers:
        list_bundle(host.fleet.folder, number, **listed)  # type: ignore[arg-type]
    with host.fleet.database.writing() as session:
        bundles.adopt(session, host.fleet.place, NOW)


def test_a_device_is_offered_what_the_repository_lists_and_what_of_it_that_knows(alone: Hosted) -> None:
    device = joined(alone)
    adopted(alone, 3, 4)
    sent = statistics(device.name)
    device.sync(1, sent)
    with alone.fleet.database.writing() as session:
        bundles.know(session, "waste", 4, {device.name: content_id(sent)})
    offer = device.sync(2)
    size = (alone.fleet.folder / "waste-4-any.bundle").stat().st_size
    assert offer == Offer(2, 4, bundles.manifest_digest(manifest(4)), size, content_id(sent))
    assert device.said(device.greet(3, bundle=5))
    assert device.said(device.commit(3)) == Offer(3, 0, None, 0, None)


def test_a_bundle_that_is_withdrawn_is_offered_no_more(alone: Hosted) -> None:
    device = joined(alone)
    adopted(alone, 3, 4)
    with alone.fleet.database.writing() as session:
        assert bundles.withdraw(session, "waste", 4, "confuses mugs and forks") == 1
    assert device.sync(1).bundle == 3  # type: ignore[attr-defined]


def test_what_is_no_bundle_is_not_adopted(alone: Hosted) -> None:
    device = joined(alone)
    file = alone.fleet.folder / "other.bin"
    file.write_bytes(b"anything")
    ring = Keyring(alone.fleet.place.key_folders(), lambda words: b"")
    publish(alone.fleet.place, ring, file, "waste", "canary", Facts(9), datetime.now(timezone.utc))
    with alone.fleet.database.writing() as session:
        found = bundles.adopt(session, alone.fleet.place, NOW)
    assert [path for path, _ in found.others] == ["waste/canary/other.bin"]
    assert device.sync(1).bundle == 0  # type: ignore[attr-defined]


def judged(host: Hosted) -> None:
    """Do what `upkeep` does now and then."""
    with host.fleet.database.writing() as session:
        for each in bundles.open_rollouts(session):
            bundles.judge(session, *each, NOW)


def test_a_rollout_begins_with_its_share_goes_on_by_success_and_stops_at_failures(alone: Hosted) -> None:
    adopted(alone, 3, 4)
    names = sorted((f"pi-{k}" for k in range(10)), key=lambda name: place(name, "waste", 4))
    callers = {name: joined(alone, name) for name in names}
    first = names[:4]
    shares = (place(first[-1], "waste", 4) + 1, 1000)
    with alone.fleet.database.writing() as session:
        rollout = Rollout(share=shares[0], steps=(1000,), success=750, error=500)
        bundles.roll_out(session, "waste", "canary", 4, rollout, NOW)
    offers = {name: caller.sync(1).bundle for name, caller in callers.items()}  # type: ignore[attr-defined]
    assert offers == {name: 4 if name in first else 3 for name in names}
    callers[first[0]].sync(2, bundle=3, install="rollback", tried=4, reason="accuracy fell")
    for name in first[1:3]:
        callers[name].sync(2, bundle=4, install="probation", tried=4)
        callers[name].sync(3, bundle=4, install="commit")
    judged(alone)
    assert callers[names[-1]].sync(2).bundle == 3  # type: ignore[attr-defined]
    callers[first[3]].sync(2, bundle=4)
    judged(alone)
    assert callers[names[-1]].sync(3).bundle == 4  # type: ignore[attr-defined]
    for name in names[4:8]:
        callers[name].sync(4, bundle=3, install="rollback", tried=4, reason="accuracy fell")
    with alone.fleet.database.reading() as session:
        found = bundles.rollouts(session, "waste", "canary")[4]
    assert "5 of 10" in found.reason
    assert callers[names[-1]].sync(5).bundle == 3  # type: ignore[attr-defined]


def test_a_status_is_kept_and_the_last_word_of_a_round_counts(shared: Hosted, device: Caller) -> None:
    device.sync(1, install="shadow", tried=4)
    device.said(device.status(1, install="rollback", tried=4, reason="slow", suspects=7))
    with shared.fleet.database.reading() as session:
        found = session.get_one(Device, device.name)
        assert (found.install, found.reason, found.suspects, found.accuracy) == ("rollback", "slow", 7, 900)
        trial = session.get_one(Trial, (device.name, "waste", 4))
        assert (trial.outcome, trial.reason) == ("failed", "slow")
        assert session.get_one(StatusRow, (device.name, 1)).suspects == 7
