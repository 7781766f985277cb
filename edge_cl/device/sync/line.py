"""Asks the host signed questions: one message up, one down, each counted before it is sent."""

from typing import NamedTuple

from edge_cl import __version__
from edge_cl.device.sync.outbox import Enrolment, Outbox
from edge_cl.device.transport import Answer, Question, Talk
from edge_cl.errors import ProtocolError, TransportError
from edge_cl.wire import routes, signing
from edge_cl.wire.codec import decode, encode
from edge_cl.wire.messages import REFUSALS, Message, Refusal, Renaming
from edge_cl.wire.signing import Request

RESERVED = 256  # counters given up at once: one write to the storage for so many questions
MAX_ANSWER_BYTES = 256 << 10  # a page of the registry is the longest
OK = 200
STALE = "stale"
RUNTIME = ".".join(part for part in __version__.split(".") if part.isdigit())


class Traffic(NamedTuple):
    """Bytes of messages up and down; what TLS and HTTP add is not in it."""

    up: int
    down: int


class Line:
    """The way to a host; one thread at a time.

    Args:
        talk: the connection.
        outbox: keeps the counter.
        enrolment: who asks, and the key.
        now: Unix seconds, as this board believes; as soon as the host says what time it is, that counts.
    """

    heard = 0  # the time that the host said last, Unix seconds

    def __init__(self, talk: Talk, outbox: Outbox, enrolment: Enrolment, now: int) -> None:
        self._talk, self._outbox, self._who = talk, outbox, enrolment
        self._now = max(now, outbox.standing().floor)
        self._counter = self._end = 0

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(self._talk.sent_bytes, self._talk.received_bytes)

    def ask(self, message: Message) -> Message:
        """Send a message of a round and return the host's, which may be a Refusal.

        Raises:
            TransportError: no answer, or one that is not the host's.
            ProtocolError: an answer that breaks the format.
        """
        return self._asked("POST", routes.ROUND, encode(message))

    def edits_after(self, version: int) -> Renaming:
        """Return edits of the label registry that follow a version; errors as `ask`."""
        found = self._asked("GET", f"{routes.REGISTRY}?{routes.SINCE}={version}", b"")
        if not isinstance(found, Renaming):
            raise TransportError(f"the host does not tell the names of classes ({_words(found)})")
        return found

    def _asked(self, method: str, target: str, body: bytes) -> Message:
        answer = self._sent(method, target, body)
        found = _message(answer)
        if isinstance(found, Refusal) and found.reason == STALE:
            seen = answer.headers.get(routes.COUNTER, "")
            if _is_number(seen):  # the counters here are behind: an old copy of the outbox
                self._reserve(max(self._counter, int(seen) + 1))
            found = _message(self._sent(method, target, body))  # by the host's time now, where that was it
        return found

    def _sent(self, method: str, target: str, body: bytes) -> Answer:
        if self._counter >= self._end:
            self._reserve(self._outbox.standing().counter)
        request = Request(self._who.device, self._counter, self._now, method, target, signing.digest(body))
        self._counter += 1
        headers = {"Authorization": signing.header(bytes.fromhex(self._who.key), request)}
        if body:
            headers["Content-Type"] = routes.MESSAGE
        answer = self._talk.ask(Question(method, target, body, headers), MAX_ANSWER_BYTES)
        said = answer.headers.get(routes.TIME, "")
        if _is_number(said):
            self._now = self.heard = int(said)
        return answer

    @property
    def now(self) -> int:
        """The time as the host told it, or else this board; Unix seconds."""
        return self._now

    def _reserve(self, first: int) -> None:
        self._counter, self._end = first, first + RESERVED
        self._outbox.write_standing(self._outbox.standing()._replace(counter=self._end))


def _message(answer: Answer) -> Message:
    """Return the message of an answer, whatever its status says.

    Raises:
        TransportError: there is none: a proxy, or another server, has answered.
    """
    if answer.status != OK and answer.headers.get("content-type", "").split(";")[0] != routes.MESSAGE:
        raise TransportError(
            f"the host answers with status {answer.status}, and not as a host does: look at its address"
        )
    found = decode(answer.body)
    if answer.status != OK and not isinstance(found, Refusal):
        raise ProtocolError(f"the host answers with status {answer.status} and a message")
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _words(found: Message) -> str:
    return found.words or found.reason if isinstance(found, Refusal) else type(found).__name__


assert STALE in REFUSALS
