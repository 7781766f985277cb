"""The table is whole, what it forbids is refused by name, and a round that is cut anywhere converges."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.line import CHUNK_BYTES, HASH, SPACE, Device, Fault, Host, LineCut

from edge_cl.errors import ProtocolError
from edge_cl.wire import round as rounds
from edge_cl.wire.codec import encode
from edge_cl.wire.messages import (
    Acknowledgement,
    Chunk,
    Commit,
    Content,
    Features,
    Greet,
    Offer,
    Progress,
    Receipt,
    Refusal,
    Status,
    Welcome,
)
from edge_cl.wire.round import (
    CUT,
    DONE,
    EVENTS,
    LIVE,
    LONGEST_DELAY_S,
    NEXT,
    STATES,
    WAITING,
    Round,
    advance,
    delay_s,
    event_of,
)

SIZE = 100
CONTENT = Content(HASH, "statistics", SIZE)
GREET = Greet("pi-1", 1, "0.1.0", ("any",), 1, SPACE, 0, "statistics", None, (CONTENT,))
WELCOME = Welcome(1, 0, "statistics", None, (Progress(HASH, 0),), 1 << 20)
CHUNK = Chunk(HASH, 0, SIZE, b"x" * SIZE)
RECEIPT = Receipt(HASH, SIZE, True)
COMMIT = Commit("pi-1", 1, (HASH,))
OFFER = Offer(1, 5, HASH, 1000, None)
STATUS = Status("pi-1", 1, 5, "commit", 0, "", None, 0, 0, 0)
THANKS = Acknowledgement(1, 60)
WHOLE = (
    *(GREET, WELCOME, CHUNK, RECEIPT, COMMIT, OFFER),
    *(rounds.DOWNLOAD, rounds.FETCHED, rounds.VERIFIED, STATUS, THANKS),
)
EXAMPLES = {event_of(each): each for each in WHOLE} | {
    rounds.REFUSED: Refusal("busy", "", 30),
    rounds.REFUSED_FOR_EVER: Refusal("revoked", "", 0),
    rounds.REFUSED_VERSION: Refusal("version", "", 0),
    **{name: name for name in rounds.LOCAL},
}


def after(*events) -> Round:
    state = Round()
    for event in events:
        state = advance(state, event)
    return state


def reached() -> dict[str, Round]:
    """A round in each state: the last time that a whole round is in it, and the ways out."""
    found = {state.state: state for state in (after(*WHOLE[:count]) for count in range(len(WHOLE) + 1))}
    for name in (CUT, rounds.REFUSED_FOR_EVER, rounds.REFUSED_VERSION):
        state = after(GREET, EXAMPLES[name])
        found[state.state] = state
    return found


REACHED = reached()


def test_every_state_is_reached_and_every_event_is_somewhere_legal():
    assert set(REACHED) == set(STATES) == set(NEXT)
    assert {name for moves in NEXT.values() for name in moves} == set(EVENTS) == set(EXAMPLES)
    assert {state for moves in NEXT.values() for state in moves.values()} == set(STATES)
    assert (len(STATES), len(EVENTS)) == (14, 18)


@pytest.mark.parametrize("state", STATES)
def test_what_the_table_does_not_have_is_refused_with_state_and_event(state):
    for name, event in EXAMPLES.items():
        if name in NEXT[state]:
            advance(REACHED[state], event)
            continue
        with pytest.raises(ProtocolError) as caught:
            advance(REACHED[state], event)
        assert name in str(caught.value)
        assert state in str(caught.value)


def test_a_round_goes_its_way():
    assert [after(*WHOLE[:count]).state for count in range(len(WHOLE) + 1)] == [
        *("idle", "greeting", "uploading", "sending", "uploading", "committing"),
        *("offered", "downloading", "verifying", "judged", "reporting", "done"),
    ]


@pytest.mark.parametrize("count", range(1, len(WHOLE)))
@pytest.mark.parametrize("end", [CUT, Refusal("busy", "", 30)], ids=["cut", "busy"])
def test_a_round_that_ends_after_any_event_converges_when_it_starts_again(count, end):
    cut = after(*WHOLE[:count], end)
    assert cut.state == WAITING
    assert cut.attempt >= 1
    state = cut
    held = cut.received.get(HASH, 0)
    welcome = Welcome(1, 0, "statistics", None, () if held == SIZE else (Progress(HASH, held),), 9)
    rest = [CHUNK, RECEIPT] if held < SIZE else []
    for event in (GREET, welcome, *rest, *WHOLE[4:]):
        state = advance(state, event)
    assert state.state == DONE
    assert state.attempt == 0
    assert state.received == {HASH: SIZE}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(EXAMPLES)), max_size=30))
def test_whatever_happens_a_cut_and_a_new_greeting_lead_to_the_end(names):
    state = Round()
    for name in names:
        try:
            state = advance(state, EXAMPLES[name])
        except ProtocolError:
            continue
    state = advance(state, CUT)
    for mend in (rounds.ENROLLED, rounds.UPDATED):
        if mend in NEXT[state.state]:
            state = advance(state, mend)
    number = state.number + 1
    for event in (
        Greet(**{**vars(GREET), "round": number}),
        Welcome(**{**vars(WELCOME), "round": number}),
        *(CHUNK, RECEIPT),
        Commit("pi-1", number, (HASH,)),
        Offer(number, 0, None, 0, None),
        Status(**{**vars(STATUS), "round": number}),
        Acknowledgement(number, 60),
    ):
        state = advance(state, event)
    assert state.state == DONE


MISFITS = {
    "a round that is over": ((*WHOLE, GREET, CUT), Greet(**{**vars(GREET), "round": 0})),
    "a round that is done, with other contents": (WHOLE, Greet(**{**vars(GREET), "contents": ()})),
    "a welcome of another round": ((GREET,), Welcome(**{**vars(WELCOME), "round": 2})),
    "a welcome that misses another content": (
        (GREET,),
        Welcome(1, 0, "statistics", None, (Progress("c" * 64, 0),), 9),
    ),
    "a welcome that misses what is whole": (
        (GREET,),
        Welcome(1, 0, "statistics", None, (Progress(HASH, SIZE),), 9),
    ),
    "a chunk of another content": (WHOLE[:2], Chunk("c" * 64, 0, SIZE, b"x")),
    "a chunk of another size": (WHOLE[:2], Chunk(HASH, 0, SIZE + 1, b"x")),
    "a chunk that leaves a hole": (WHOLE[:2], Chunk(HASH, 1, SIZE, b"x")),
    "a receipt for another content": (WHOLE[:3], Receipt("c" * 64, 5, False)),
    "a receipt for more than there is": (WHOLE[:3], Receipt(HASH, SIZE + 1, True)),
    "a receipt that contradicts itself": (WHOLE[:3], Receipt(HASH, SIZE - 1, True)),
    "a commit before all is there": (WHOLE[:2], COMMIT),
    "a commit of less": (WHOLE[:4], Commit("pi-1", 1, ())),
    "a commit of another round": (WHOLE[:4], Commit("pi-1", 2, (HASH,))),
    "an offer of another round": (WHOLE[:5], Offer(2, 5, HASH, 1000, None)),
    "a download of nothing": ((*WHOLE[:5], Offer(1, 0, None, 0, None)), rounds.DOWNLOAD),
    "an acknowledgement of another round": (WHOLE[:-1], Acknowledgement(2, 60)),
    "a status of another round": (WHOLE[:6], Status(**{**vars(STATUS), "round": 9})),
}


@pytest.mark.parametrize(("before", "event"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_what_came_before_is_refused_and_changes_nothing(before, event):
    state = after(*before)
    with pytest.raises(ProtocolError):
        advance(state, event)
    assert state == after(*before)


REPLAYS = {
    "a greeting": (WHOLE[:1], GREET),
    "a greeting in the middle": (WHOLE[:4], GREET),
    "a chunk": (WHOLE[:3], CHUNK),
    "a chunk after its receipt": (WHOLE[:4], CHUNK),
    "a commit": (WHOLE[:5], COMMIT),
    "a commit after its offer": (WHOLE[:6], COMMIT),
    "a status": (WHOLE[:-1], STATUS),
    "a status after its acknowledgement": (WHOLE, STATUS),
}


@pytest.mark.parametrize(("before", "event"), REPLAYS.values(), ids=REPLAYS.keys())
def test_a_request_that_comes_again_takes_nothing_away(before, event):
    once = after(*before)
    again = advance(advance(once, event), event)
    assert again == advance(once, event)
    assert again.received == once.received


def test_an_event_that_is_none_is_refused():
    for event in ("greet", "nonsense", Features):
        with pytest.raises(ProtocolError, match="no event"):
            advance(Round(), event)


def contents(count: int) -> list[Features]:
    return [
        Features(
            *("pi-1", SPACE, 0, ("mug",), np.array([number + 1])),
            *(np.zeros(1, np.int32), np.full((1, 1, 4), number, np.int8)),
        )
        for number in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 3),
    bundle=st.sampled_from([0, 1, 5]),
    faults=st.lists(st.sampled_from(list(Fault)), max_size=60),
)
def test_a_round_over_a_failing_line_counts_everything_once(count, bundle, faults):
    host, device, line = Host(bundle), Device(contents(count)), iter(faults)
    for _ in range(len(faults) + 1):
        try:
            device.talk(host, 1, line)
            break
        except LineCut:
            assert device.round.state == WAITING
    assert device.round.state == host.round.state == DONE
    assert sorted(host.counted) == sorted(device.contents)
    assert host.held == device.contents
    assert len(host.statuses) == 1


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNANSWERED, Fault.TWICE])
def test_a_fault_at_each_request_costs_one_chunk_at_most(fault):
    whole = Device(contents(2))
    list_of = Host(5)
    whole.talk(list_of, 1, iter(()))
    requests = 3 + sum(-(-len(data) // CHUNK_BYTES) for data in whole.contents.values())
    for place in range(requests):
        host, device = Host(5), Device(contents(2))
        line = itertools.chain([Fault.NONE] * place, [fault])
        sent = []
        host_answer = host.answer
        host.answer = lambda data, sent=sent, take=host_answer: (sent.append(data), take(data))[1]
        for _ in range(2):
            try:
                device.talk(host, 1, line)
                break
            except LineCut:
                continue
        chunks = [data for data in sent if b'"type":"chunk"' in data]
        assert len(chunks) <= requests - 3 + 1
        assert sorted(host.counted) == sorted(device.contents)


def test_another_device_state_lost_starts_anew_and_nothing_is_sent_twice():
    host, device = Host(0), Device(contents(2))
    device.talk(host, 1, iter(()))
    device.round = Round()  # restored from a backup: it has forgotten that it ever spoke
    with pytest.raises(ProtocolError):
        host.answer(encode(Greet(**{**vars(GREET), "round": 0})))
    device.talk(host, 2, iter(()))
    assert sorted(host.counted) == sorted(device.contents)
    assert host.round.state == DONE


@given(seed=st.integers(0, 2**40), attempt=st.integers(0, 200), wait=st.integers(0, 10_000))
def test_a_delay_is_bounded_reproducible_and_not_before_the_host_wants(seed, attempt, wait):
    found = delay_s(seed, attempt, wait)
    assert found == delay_s(seed, attempt, wait)
    assert wait <= found <= wait + min(LONGEST_DELAY_S, 4.0 * 2.0**attempt)


def test_delays_of_a_fleet_spread_over_the_whole_span_and_double():
    for attempt in (0, 3, 8):
        found = np.array([delay_s(device, attempt) for device in range(2000)]) / (4.0 * 2.0**attempt)
        assert abs(found.mean() - 0.5) < 0.03
        assert found.min() < 0.01
        assert found.max() > 0.99


def test_every_live_state_may_be_cut_refused_and_begun_again():
    for state in LIVE:
        assert {CUT, "greet", *(name for name in EVENTS if name.startswith("refused"))} <= NEXT[state].keys()
