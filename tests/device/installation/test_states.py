"""The table of an installation: every legal way leads to an end, and a release that fails is left alone."""

import json

import pytest

from edge_cl.device.installation import lent, records
from edge_cl.device.installation.states import (
    ACCEPTED,
    COMMIT,
    EVENTS,
    FAILED,
    FAILURES,
    FETCHED,
    IDLE,
    NEXT,
    PASSED,
    PROBATION,
    RESTING,
    ROLLBACK,
    SHADOW,
    STATES,
    STORED,
    SWAPPED,
    VERIFIED,
    VERIFY,
    Record,
    advance,
    considered,
)
from edge_cl.errors import MismatchError, ReleaseError
from edge_cl.wire import bundle
from edge_cl.wire.messages import INSTALLS

WAY = (FETCHED, VERIFIED, STORED, ACCEPTED, SWAPPED, PASSED)


def test_the_table_speaks_of_its_states_and_events_only():
    assert set(NEXT) == set(STATES)
    assert {event for moves in NEXT.values() for event in moves} == set(EVENTS)
    assert {state for moves in NEXT.values() for state in moves.values()} <= set(STATES)
    assert set(STATES) - {"check"} == set(INSTALLS)


def test_names_that_two_modules_know_are_the_same():
    assert lent.FILE == bundle.EXEMPLARS


def test_a_release_that_does_all_well_is_kept():
    record = Record(bundle=7)
    for event in WAY:
        record = advance(record, event)
    assert record.state == COMMIT


@pytest.mark.parametrize("steps", range(1, len(WAY)))
def test_from_every_state_on_the_way_a_failure_leads_back_and_is_counted(steps):
    record = Record(bundle=7)
    for event in WAY[:steps]:
        record = advance(record, event)
    record = advance(record._replace(begun=2), FAILED, reason="a test")
    assert (record.state, record.failures, record.reason, record.begun) == (ROLLBACK, 1, "a test", 0)


@pytest.mark.parametrize("state", STATES)
def test_what_the_table_does_not_have_is_misuse(state):
    for event in set(EVENTS) - set(NEXT[state]):
        with pytest.raises(ValueError, match="out of place"):
            advance(Record(state), event)


@pytest.mark.parametrize("state", RESTING)
def test_a_newer_release_is_taken_up_at_rest(state):
    record = considered(Record(state, bundle=7, failures=3, reason="old", staged="x"), 8, 7, file="f")
    assert record == Record(VERIFY, bundle=8, file="f")


def test_a_release_that_failed_is_tried_again_until_it_has_failed_too_often():
    record = Record()
    for times in range(FAILURES):
        record = considered(record, 7, 6)
        assert record.failures == times
        record = advance(record, FAILED, reason="too slow")
    with pytest.raises(ReleaseError, match=r"failed 3 times here \(too slow\)"):
        considered(record, 7, 6)
    assert considered(record, 8, 6).failures == 0


@pytest.mark.parametrize(
    ("record", "number", "running", "words"),
    [
        (Record(SHADOW, bundle=7), 8, 6, "still at shadow"),
        (Record(PROBATION, bundle=7), 8, 7, "still at probation"),
        (Record(COMMIT, bundle=7), 7, 7, "not newer than 7"),
        (Record(COMMIT, bundle=7), 6, 7, "not newer than 7"),
        (Record(ROLLBACK, bundle=9), 8, 7, "older than 9"),
    ],
)
def test_what_may_not_be_taken_up_is_said(record, number, running, words):
    with pytest.raises(ReleaseError, match=words):
        considered(record, number, running)


def test_a_record_reads_back_equal(tmp_path):
    assert records.read(tmp_path) == Record()
    record = Record(
        PROBATION, 7, "a" * 64, "/x", None, "b" * 64, "c" * 64, 1, 2, "why: é", 99, 0.5,
        {"mug": {"pictures": 3}}, {"space": ["id", 4, "int8", 0.5, 0]},
    )  # fmt: skip
    records.write(tmp_path, record)
    assert records.read(tmp_path) == record
    records.write(tmp_path, Record(taken="d" * 64, before=1))
    assert records.read(tmp_path).taken == "d" * 64


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"format": 1, "state": "idle"}', b'{"format": "x"}']
)
def test_a_damaged_record_is_as_none(tmp_path, content):
    records.write(tmp_path, Record(PROBATION, 7))
    (tmp_path / "installation" / "record.json").write_bytes(content)
    assert records.read(tmp_path) == Record(IDLE)


@pytest.mark.parametrize("name", ["state", "bundle", "taken", "facts"])
def test_a_record_with_a_wrong_value_is_as_none(tmp_path, name):
    records.write(tmp_path, Record(PROBATION, 7))
    path = tmp_path / "installation" / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: 1.5}))
    assert records.read(tmp_path) == Record(IDLE)


def test_a_record_of_a_newer_program_is_refused(tmp_path):
    records.write(tmp_path, Record())
    (tmp_path / "installation" / "record.json").write_text('{"format": 2}')
    with pytest.raises(MismatchError, match="newer"):
        records.read(tmp_path)
