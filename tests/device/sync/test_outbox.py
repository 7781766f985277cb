"""What was told, and is on its way, is kept: it cannot be told twice, nor be lost, nor be read by others."""

import sqlite3
import stat

import numpy as np
import pytest
from simulators.caller import statistics

from edge_cl.device.sync import outbox as outboxes
from edge_cl.device.sync.outbox import DATABASE, FOLDER, Enrolment, open_outbox, read_outbox, take_button
from edge_cl.device.sync.parcels import Parcel
from edge_cl.errors import MismatchError, StoreBusyError, StoreDamagedError
from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.labels import Assigned, Edit

WHO = Enrolment("https://host.example:8443", "ab" * 32, "pi-1", "cd" * 32, "waste", "canary", "images")
PARCEL = Parcel("features", 0, ((1, "mug"), (2, "fork")))
NAME = "f" * 64


def row(number=1, since=None, **changes):
    return statistics("pi-1", number, since, **changes)


def tell(outbox, message, parcels=()):
    """Have a whole round with it."""
    outbox.replace_ready(message, parcels, outbox.standing())
    names = [content_id(message), *(name for name, _, _ in parcels)]
    outbox.commit(names)
    outbox.acknowledge(names)


def test_a_key_is_read_by_its_owner_only(tmp_path):
    with open_outbox(tmp_path) as outbox:
        outbox.enrol(WHO, 5)
    mode = stat.S_IMODE((tmp_path / FOLDER / DATABASE).stat().st_mode)
    assert mode == 0o600
    with open_outbox(tmp_path) as outbox:
        assert outbox.enrolment() == WHO
        assert outbox.standing().floor == 5


def test_one_process_at_a_time_but_any_number_reads(tmp_path):
    with read_outbox(tmp_path) as nothing:
        assert nothing is None
    with open_outbox(tmp_path) as outbox, pytest.raises(StoreBusyError), open_outbox(tmp_path):
        pass
    with open_outbox(tmp_path) as outbox:
        outbox.enrol(WHO, 5)
        with read_outbox(tmp_path) as reader:
            assert reader is not None
            assert reader.enrolment() == WHO


def test_what_is_ready_may_be_replaced_and_what_is_committed_may_not(tmp_path):
    first, other = row(), row(error=7)
    with open_outbox(tmp_path) as outbox:
        outbox.replace_ready(first, [(NAME, 10, PARCEL)], outbox.standing())
        assert outbox.told() is None
        assert outbox.next_number() == 1
        outbox.replace_ready(other, [], outbox.standing())
        assert [name for name, _ in outbox.outgoing()] == [content_id(other)]
        assert outbox.sending() == []
        outbox.commit([content_id(other)])
        second = row(2, other)
        outbox.replace_ready(second, [(NAME, 10, PARCEL)], outbox.standing())
    with open_outbox(tmp_path) as outbox:
        assert outbox.outgoing() == [(content_id(each), canonical(each)) for each in (other, second)]
        assert outbox.ready() == content_id(second)
        assert outbox.newest() is None
        assert outbox.told().id == content_id(other)
        outbox.commit([content_id(second), NAME])
        outbox.acknowledge([content_id(other), content_id(second), NAME])
        assert outbox.newest() == outbox.told().id == content_id(second)
        assert outbox.told(until=content_id(other)).counts.tolist() == other.counts.tolist()
        assert outbox.told(until="0" * 64) is None
        assert outbox.sent() == {"features": {1: "mug", 2: "fork"}}
        assert outbox.outgoing() == outbox.sending() == []


def test_what_is_withdrawn_is_not_with_the_host_any_more(tmp_path):
    first = row()
    with open_outbox(tmp_path) as outbox:
        tell(outbox, first, [(NAME, 10, PARCEL)])
        tell(outbox, row(2, first, withdrawn=np.array([2, 9])))
        assert outbox.sent() == {"features": {1: "mug"}}


def test_to_start_anew_is_to_tell_and_send_all_again_under_a_higher_number(tmp_path):
    first = row()
    with open_outbox(tmp_path) as outbox:
        tell(outbox, first, [(NAME, 10, PARCEL)])
        outbox.start_anew(50)
        assert outbox.told() is None
        assert outbox.newest() is None
        assert outbox.told(until=content_id(first)).id == content_id(first)  # a bundle may have it
        assert outbox.standing().is_anew
        assert outbox.next_number() == 51
        assert outbox.sent() == {"features": {1: "", 2: ""}}
        tell(outbox, row(outbox.next_number()))
        assert not outbox.standing().is_anew
        assert outbox.told().number == 51
        assert outbox.told(until=content_id(first)).id == content_id(first)


def test_another_name_knows_nothing_and_the_same_name_goes_on(tmp_path):
    with open_outbox(tmp_path) as outbox:
        outbox.enrol(WHO, 5)
        tell(outbox, row(), [(NAME, 10, PARCEL)])
        outbox.write_standing(outbox.standing()._replace(counter=300, round=7, blocked="revoked", attempt=3))
        outbox.enrol(WHO._replace(key="ef" * 32), 9)
        assert outbox.newest()
        standing = outbox.standing()
        assert (standing.counter, standing.round, standing.blocked, standing.attempt) == (300, 7, "", 0)
        outbox.enrol(WHO._replace(device="pi-2"), 9)
        assert outbox.newest() is None
        assert outbox.sent() == {}
        assert outbox.standing().counter == 300


def test_edits_are_kept_in_order_and_move_what_was_sent(tmp_path):
    edit = Edit(1, ("mug",), "cup", (Assigned("pi-1", 1, "bowl"),))
    with open_outbox(tmp_path) as outbox:
        tell(outbox, row(), [(NAME, 10, PARCEL)])
        outbox.follow(edit, "pi-1")
        outbox.follow(edit, "pi-1")
        assert outbox.edits() == (edit,)
        assert outbox.sent() == {"features": {1: "bowl", 2: "fork"}}
    told = row(
        2, row(), registry=1, labels=("cup",), counts=np.array([12]), sums=np.array([[1, 2, 3]], np.int8)
    )
    with open_outbox(tmp_path) as outbox:
        tell(outbox, told)
        assert outbox.told().labels == ("cup", "fork")
        assert outbox.told().counts.tolist() == [24, 24]


def test_a_new_space_has_features_sent_again_but_not_pictures(tmp_path):
    pictures = ("e" * 64, 10, Parcel("images", 0, ((1, "mug"),)))
    with open_outbox(tmp_path) as outbox:
        tell(outbox, row(), [(NAME, 10, PARCEL), pictures])
        outbox.enter_space("1" * 16)
        assert outbox.sent() == {"features": {1: "", 2: ""}, "images": {1: "mug"}}
        assert outbox.standing().space == "1" * 16


def test_many_statistics_become_one_without_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(outboxes, "MAX_ROWS", 5)
    monkeypatch.setattr(outboxes, "FOLDED_ROWS", 2)
    rows = [row()]
    for number in range(2, 9):
        rows.append(row(number, rows[-1], error=number))
    with open_outbox(tmp_path) as outbox:
        for each in rows:
            tell(outbox, each)
        whole, sixth = outbox.told(), outbox.told(until=content_id(rows[5]))
        outbox.shorten()
        assert len(outbox._states()) == 3  # the older ones as one, and two after it
        for found, wanted in ((outbox.told(), whole), (outbox.told(until=content_id(rows[5])), sixth)):
            assert found.counts.tolist() == wanted.counts.tolist()
            assert np.array_equal(found.scatter, wanted.scatter)
            assert (found.id, found.number) == (wanted.id, wanted.number)
        assert outbox.told(until=content_id(rows[4])) is None
        tell(outbox, row(9, rows[-1]))
        outbox.shorten()
        assert len(outbox._states()) == 4
        assert outbox.told().number == 9
        assert outbox.newest() == outbox.told().id
        assert outbox.next_number() == 10


def test_an_outbox_that_is_damaged_or_foreign_is_named_with_what_to_do(tmp_path):
    with open_outbox(tmp_path) as outbox:
        tell(outbox, row())
        outbox._connection.execute("UPDATE told SET data = x'00'")
        with pytest.raises(StoreDamagedError, match="enrol again"):
            outbox.told()
    path = tmp_path / FOLDER / DATABASE
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(MismatchError, match="newer"), open_outbox(tmp_path):
        pass
    other.close()
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(StoreDamagedError, match="enrol again"), open_outbox(tmp_path):
        pass


def test_a_button_works_once(tmp_path):
    assert not take_button(tmp_path)
    (tmp_path / "sync-now").touch()
    assert take_button(tmp_path)
    assert not take_button(tmp_path)
