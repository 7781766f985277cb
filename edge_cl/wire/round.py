"""The sync round as one table: in which state which event is legal, and what it leads to; for both ends.

    idle -> greeting -> uploading <-> sending
                        uploading  -> committing -> offered -> reporting -> done
                        offered -> downloading -> verifying -> judged -> reporting

Device and host each keep a `Round` and advance it by what they send and get. A lost connection leads to
`waiting` from everywhere, and a greeting starts the round again from everywhere: what the host holds already
it says in its welcome, so nothing is sent twice, and what is sent twice changes nothing. The form is that of
h11's `_state.py`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from edge_cl.errors import ProtocolError
from edge_cl.wire.messages import (
    Acknowledgement,
    Chunk,
    Commit,
    Content,
    Greet,
    Message,
    Offer,
    Receipt,
    Refusal,
    Status,
    Welcome,
)

IDLE, GREETING, UPLOADING, SENDING, COMMITTING = "idle", "greeting", "uploading", "sending", "committing"
OFFERED, DOWNLOADING, VERIFYING, JUDGED = "offered", "downloading", "verifying", "judged"
REPORTING, DONE, WAITING, REVOKED, OUTDATED = "reporting", "done", "waiting", "revoked", "outdated"
LIVE = (GREETING, UPLOADING, SENDING, COMMITTING, OFFERED, DOWNLOADING, VERIFYING, JUDGED, REPORTING)
STATES = (IDLE, *LIVE, DONE, WAITING, REVOKED, OUTDATED)

# Events that are no message: what one end does or finds by itself.
CUT, DOWNLOAD, FETCHED, VERIFIED, REJECTED = "cut", "download", "fetched", "verified", "rejected"
ENROLLED, UPDATED = "enrolled", "updated"
MESSAGES = {
    Greet: "greet",
    Welcome: "welcome",
    Chunk: "chunk",
    Receipt: "receipt",
    Commit: "commit",
    Offer: "offer",
    Status: "status",
    Acknowledgement: "acknowledgement",
}
# A refusal is as many events as there are ways to go on after it.
REFUSED, REFUSED_FOR_EVER, REFUSED_VERSION = "refused", "refused for ever", "refused version"
REFUSALS = {"revoked": REFUSED_FOR_EVER, "unknown-device": REFUSED_FOR_EVER, "version": REFUSED_VERSION}
LOCAL = (CUT, DOWNLOAD, FETCHED, VERIFIED, REJECTED, ENROLLED, UPDATED)
EVENTS = (*MESSAGES.values(), REFUSED, REFUSED_FOR_EVER, REFUSED_VERSION, *LOCAL)

_FROM_LIVE = {
    "greet": GREETING,  # the device has begun anew; the cut went unnoticed here
    CUT: WAITING,
    REFUSED: WAITING,
    REFUSED_FOR_EVER: REVOKED,
    REFUSED_VERSION: OUTDATED,
}
_FORWARD: dict[str, dict[str, str]] = {
    IDLE: {"greet": GREETING, CUT: IDLE},
    GREETING: {"welcome": UPLOADING},
    UPLOADING: {"chunk": SENDING, "commit": COMMITTING},
    SENDING: {"receipt": UPLOADING, "chunk": SENDING},
    COMMITTING: {"offer": OFFERED, "commit": COMMITTING},
    OFFERED: {DOWNLOAD: DOWNLOADING, "status": REPORTING, "commit": COMMITTING},
    DOWNLOADING: {FETCHED: VERIFYING},
    VERIFYING: {VERIFIED: JUDGED, REJECTED: JUDGED},
    JUDGED: {"status": REPORTING},
    REPORTING: {"acknowledgement": DONE, "status": REPORTING},
    DONE: {"greet": GREETING, "status": REPORTING, CUT: DONE},
    WAITING: {"greet": GREETING, CUT: WAITING},
    REVOKED: {ENROLLED: IDLE, CUT: REVOKED},
    OUTDATED: {UPDATED: IDLE, CUT: OUTDATED},
}
NEXT: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {state: {**(_FROM_LIVE if state in LIVE else {}), **moves} for state, moves in _FORWARD.items()}
)

FIRST_DELAY_S = 4.0
LONGEST_DELAY_S = 6 * 3600.0  # a fleet that comes back after a night without power should not wait for a day


class Round(NamedTuple):
    """Where a round stands.

    Attributes:
        state: one of STATES.
        number: of the running or last round; rises with every greeting that is not a repetition.
        contents: announced in it, by hash.
        received: bytes of each that the host holds; known to the device from its welcome on.
        bundle: the number offered; 0: none.
        attempt: rounds cut or refused since something last came through.
        wait: seconds that the host asked to be left alone.
    """

    state: str = IDLE
    number: int = 0
    contents: Mapping[str, Content] = MappingProxyType({})
    received: Mapping[str, int] = MappingProxyType({})
    bundle: int = 0
    attempt: int = 0
    wait: int = 0

    def missing(self) -> dict[str, int]:
        """Return the contents not held whole by the host, with what it holds of them."""
        held = {name: self.received.get(name, 0) for name in self.contents}
        return {name: count for name, count in held.items() if count < self.contents[name].size}


def event_of(event: Message | str) -> str:
    """Return the name of a message or of a local event; ProtocolError for what no round knows."""
    if isinstance(event, Refusal):
        return REFUSALS.get(event.reason, REFUSED)
    name = event if isinstance(event, str) else MESSAGES.get(type(event))
    if name is None or (isinstance(event, str) and event not in LOCAL):
        raise ProtocolError(
            f"{event if isinstance(event, str) else type(event).__name__} is no event of a round"
        )
    return name


def advance(state: Round, event: Message | str) -> Round:
    """Return the round after an event.

    Raises:
        ProtocolError: the event is not legal in this state, or does not fit what came before.
    """
    name = event_of(event)
    moves = NEXT[state.state]
    if name not in moves:
        raise ProtocolError(f"{name} is out of place in a round that is {state.state}")
    change = _CHANGES.get(name)
    changed = change(state, event) if change else state
    return changed._replace(state=moves[name])


def delay_s(seed: int, attempt: int, wait: int = 0) -> float:
    """Return the seconds to wait before another try: exponential with full jitter.

    Uniform between nothing and twice as much with every attempt, up to a longest (Brooker, Exponential
    Backoff And Jitter, AWS 2015), so that a fleet that was cut off together does not come back together. What
    the host asked for comes on top. The same seed and attempt give the same delay.
    """
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt, 32))
    return wait + float(np.random.default_rng((seed, attempt)).uniform(0.0, longest))


def _greet(state: Round, greet: Greet) -> Round:
    if greet.round < state.number:
        raise ProtocolError(f"round {greet.round} is over, {state.number} was the last: greet anew")
    contents = {content.id: content for content in greet.contents}
    is_same = greet.round == state.number and contents == dict(state.contents)
    if greet.round == state.number and state.state == DONE and not is_same:
        raise ProtocolError(f"round {greet.round} is over: greet with a higher number")
    return state._replace(
        number=greet.round,
        contents=MappingProxyType(contents),
        received=state.received if is_same else MappingProxyType({}),
        bundle=0,
        wait=0,
    )


def _welcome(state: Round, welcome: Welcome) -> Round:
    _need_round(state, welcome.round)
    missing = {each.id: each.received for each in welcome.missing}
    unknown = missing.keys() - state.contents.keys()
    if unknown or any(count >= state.contents[name].size for name, count in missing.items()):
        raise ProtocolError("the welcome misses what was not announced, or is whole")
    sizes = {name: content.size for name, content in state.contents.items()}
    return state._replace(received=MappingProxyType({**sizes, **missing}))


def _chunk(state: Round, chunk: Chunk) -> Round:
    content = state.contents.get(chunk.content)
    if content is None or chunk.size != content.size:
        raise ProtocolError("a chunk of a content that was not announced so")
    if chunk.offset > state.received.get(chunk.content, 0):
        raise ProtocolError(f"a chunk from {chunk.offset} leaves a hole: go on where the receipt says")
    return state


def _receipt(state: Round, receipt: Receipt) -> Round:
    content = state.contents.get(receipt.content)
    if content is None or receipt.received > content.size:
        raise ProtocolError("a receipt for what was not sent")
    if receipt.is_whole != (receipt.received == content.size):
        raise ProtocolError("a receipt that contradicts itself")
    has_grown = receipt.received > state.received.get(receipt.content, 0)
    received = MappingProxyType({**state.received, receipt.content: receipt.received})
    return state._replace(received=received, attempt=0 if has_grown else state.attempt)


def _commit(state: Round, commit: Commit) -> Round:
    _need_round(state, commit.round)
    if set(commit.contents) != state.contents.keys():
        raise ProtocolError("a commit of other contents than were announced")
    if state.missing():
        raise ProtocolError(f"a commit while {len(state.missing())} contents are not there whole")
    return state


def _offer(state: Round, offer: Offer) -> Round:
    _need_round(state, offer.round)
    return state._replace(bundle=offer.bundle)


def _status(state: Round, status: Status) -> Round:
    _need_round(state, status.round)
    return state


def _acknowledgement(state: Round, acknowledgement: Acknowledgement) -> Round:
    _need_round(state, acknowledgement.round)
    return state._replace(attempt=0, wait=acknowledgement.wait)


def _download(state: Round, _: object) -> Round:
    if not state.bundle:
        raise ProtocolError("a download where nothing was offered")
    return state


def _cut(state: Round, _: object) -> Round:
    return state._replace(attempt=state.attempt + 1) if state.state in LIVE else state


def _refused(state: Round, refusal: Refusal) -> Round:
    return state._replace(attempt=state.attempt + 1, wait=refusal.wait)


def _start_anew(state: Round, _: object) -> Round:
    return state._replace(attempt=0, wait=0)


def _need_round(state: Round, number: int) -> None:
    if number != state.number:
        raise ProtocolError(f"a message of round {number} in round {state.number}")


_CHANGES: Mapping[str, Callable[..., Round]] = {
    "greet": _greet,
    "welcome": _welcome,
    "chunk": _chunk,
    "receipt": _receipt,
    "commit": _commit,
    "offer": _offer,
    "status": _status,
    "acknowledgement": _acknowledgement,
    DOWNLOAD: _download,
    CUT: _cut,
    REFUSED: _refused,
    ENROLLED: _start_anew,
    UPDATED: _start_anew,
}
