"""A device and a host that talk the real protocol over a line that fails as told."""

from collections.abc import Iterator
from enum import Enum

from edge_cl.wire import round as rounds
from edge_cl.wire.codec import canonical, content_id, decode, encode
from edge_cl.wire.messages import (
    Acknowledgement,
    Chunk,
    Commit,
    Content,
    Greet,
    Message,
    Offer,
    Progress,
    Receipt,
    Status,
    Welcome,
)
from edge_cl.wire.round import Round, advance

CHUNK_BYTES = 40
SPACE, HASH = "0" * 16, "b" * 64


class Fault(Enum):
    """What happens to a request."""

    NONE = "it goes through"
    LOST = "the host never sees it"
    UNANSWERED = "the host does it, the device never hears"
    TWICE = "it comes twice"


class LineCut(Exception):
    """The device sees no answer."""


class Host:
    """Keeps what it is sent; what was committed counts once."""

    def __init__(self, bundle: int) -> None:
        self.bundle = bundle
        self.round = Round()
        self.held: dict[str, bytes] = {}
        self.counted: list[str] = []
        self.statuses: list[Status] = []

    def answer(self, data: bytes) -> bytes:
        """Take one request and return the answer."""
        message = decode(data)
        self.round = advance(self.round, message)
        reply = getattr(self, f"_{type(message).__name__.lower()}")(message)
        self.round = advance(self.round, reply)
        return encode(reply)

    def _greet(self, greet: Greet) -> Welcome:
        held = {each.id: len(self.held.get(each.id, b"")) for each in greet.contents}
        missing = tuple(
            Progress(each.id, held[each.id]) for each in greet.contents if held[each.id] < each.size
        )
        return Welcome(greet.round, 0, greet.level, None, missing, 1 << 20)

    def _chunk(self, chunk: Chunk) -> Receipt:
        held = self.held.get(chunk.content, b"")
        self.held[chunk.content] = held[: chunk.offset] + chunk.data + held[chunk.offset + len(chunk.data) :]
        received = len(self.held[chunk.content])
        return Receipt(chunk.content, received, received == chunk.size)

    def _commit(self, commit: Commit) -> Offer:
        for name in commit.contents:
            assert content_id(decode(self.held[name])) == name
        self.counted += [name for name in commit.contents if name not in self.counted]
        return Offer(commit.round, self.bundle, HASH if self.bundle else None, 9, None)

    def _status(self, status: Status) -> Acknowledgement:
        if status not in self.statuses:
            self.statuses.append(status)
        return Acknowledgement(status.round, 60)


class Device:
    """Has contents to send, and starts again where a round was cut."""

    def __init__(self, contents: list[Message]) -> None:
        self.contents = {content_id(each): canonical(each) for each in contents}
        self.round = Round()
        self.bundle = 1

    def requests(self, number: int) -> Iterator[Message]:
        """Yield what is to be sent in a round; `self.round` is advanced by the caller."""
        announced = tuple(Content(name, "statistics", len(data)) for name, data in self.contents.items())
        yield Greet("pi-1", number, "0.1.0", ("any",), self.bundle, SPACE, 0, "statistics", None, announced)
        while missing := self.round.missing():
            name, offset = next(iter(missing.items()))
            data = self.contents[name]
            yield Chunk(name, offset, len(data), data[offset : offset + CHUNK_BYTES])
        yield Commit("pi-1", number, tuple(self.contents))
        if self.round.bundle > self.bundle:
            for event in (rounds.DOWNLOAD, rounds.FETCHED, rounds.VERIFIED):
                self.round = advance(self.round, event)
        yield Status("pi-1", number, self.bundle, "idle", 0, "", None, 0, 0, 0)

    def talk(self, host: Host, number: int, faults: Iterator[Fault]) -> None:
        """Have one round; LineCut when the line fails in it, and then the round is `waiting`."""
        for message in self.requests(number):
            self.round = advance(self.round, message)
            try:
                reply = _carry(host, encode(message), next(faults, Fault.NONE))
            except LineCut:
                self.round = advance(self.round, rounds.CUT)
                raise
            self.round = advance(self.round, decode(reply))


def _carry(host: Host, data: bytes, fault: Fault) -> bytes:
    if fault is Fault.LOST:
        raise LineCut
    reply = host.answer(data)
    if fault is Fault.TWICE:
        reply = host.answer(data)
    if fault is Fault.UNANSWERED:
        raise LineCut
    return reply
