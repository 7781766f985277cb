"""A device as the host hears it: signed requests over a real connection, one by one, and nothing behind."""

import http.client
import ssl
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from edge_cl.errors import ProtocolError
from edge_cl.wire import canonical, codec, enrolment, routes, signing
from edge_cl.wire.codec import content_id
from edge_cl.wire.enrolment import Enrol, Enrolled
from edge_cl.wire.messages import (
    JPEG,
    Chunk,
    Commit,
    Content,
    Features,
    Greet,
    Images,
    Message,
    Statistics,
    Status,
)

SPACE = "0" * 16
TIMEOUT_S = 30.0


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Message:
        """The message in it."""
        return codec.decode(self.body)

    @property
    def reason(self) -> str:
        """Why it was refused, "" when it was not; in whichever form."""
        try:
            return getattr(self.message, "reason", "") if self.status != 200 else ""
        except ProtocolError:
            return canonical.read(self.body)["reason"]


@dataclass
class Caller:
    """A device: where its host is, its name, its key, and how many requests it has signed.

    Attributes:
        context: for TLS.
        now: its clock, Unix seconds; the host's for most.
    """

    url: str
    now: int
    name: str = ""
    key: bytes = bytes(32)
    counter: int = 0
    context: ssl.SSLContext | None = None
    enrolled: Enrolled | None = field(default=None, repr=False)

    def request(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send any request."""
        place = urlsplit(self.url)
        if place.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                place.hostname or "", place.port, timeout=TIMEOUT_S, context=self.context
            )
        else:
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def authorization(
        self, method: str, target: str, body: bytes = b"", counter: int | None = None
    ) -> dict[str, str]:
        """Return the header of a signed request; without a counter, of the next one."""
        if counter is None:
            self.counter += 1
            counter = self.counter
        asked = signing.Request(self.name, counter, self.now, method, target, signing.digest(body))
        return {"Authorization": signing.header(self.key, asked)}

    def enrol(
        self,
        token: bytes,
        nonce: bytes = bytes(16),
        device: str = "",
        hardware: tuple[str, ...] = ("cpu",),
        runtime: str = "0.1.0",
    ) -> Answer:
        """Ask to be let in, and remember the answer."""
        asked = enrolment.write(Enrol(token, nonce, device, hardware, runtime))
        answer = self.request("POST", routes.ENROLMENT, asked)
        if answer.status == 200:
            self.enrolled = enrolment.read_enrolled(answer.body)
            self.name, self.key, self.counter = self.enrolled.device, self.enrolled.key, 0
        return answer

    def send(self, body: bytes) -> Answer:
        """Send any bytes as a message of a round, signed."""
        return self.request("POST", routes.ROUND, body, self.authorization("POST", routes.ROUND, body))

    def ask(self, message: Message) -> Answer:
        """Send a message of a round."""
        return self.send(codec.encode(message))

    def said(self, message: Message) -> Message:
        """Send a message, which has to be answered by one that is no refusal."""
        answer = self.ask(message)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.message

    def registry(self, since: int) -> Answer:
        """Ask for edits of the label registry."""
        target = f"{routes.REGISTRY}?{routes.SINCE}={since}"
        return self.request("GET", target, headers=self.authorization("GET", target))

    def greet(self, number: int, *contents: Message, **changes: object) -> Greet:
        """Return the greeting of a round that announces contents."""
        announced = tuple(
            Content(content_id(each), type(each).__name__.lower(), len(codec.canonical(each)))
            for each in contents
        )
        fields: dict[str, object] = {
            "device": self.name,
            "round": number,
            "runtime": "0.1.0",
            "hardware": ("cpu",),
            "bundle": 0,
            "space": SPACE,
            "registry": 0,
            "level": "images",
            "last": None,
            "contents": announced,
        }
        return Greet(**{**fields, **changes})  # type: ignore[arg-type]

    def commit(self, number: int, *contents: Message) -> Commit:
        """Return the commit of a round with contents."""
        return Commit(self.name, number, tuple(content_id(each) for each in contents))

    def status(self, number: int, **changes: object) -> Status:
        """Return a status."""
        fields: dict[str, object] = {
            "device": self.name,
            "round": number,
            "bundle": 0,
            "install": "idle",
            "tried": 0,
            "reason": "",
            "accuracy": 900,
            "samples": 100,
            "suspects": 2,
            "latency": 12_000,
        }
        return Status(**{**fields, **changes})  # type: ignore[arg-type]

    def upload(self, content: Message, size: int = 1 << 18) -> None:
        """Send a content in chunks."""
        for chunk in chunks(content, size):
            self.said(chunk)

    def sync(self, number: int, *contents: Message, **status: object) -> Message:
        """Go through a whole round, and return the offer."""
        self.said(self.greet(number, *contents))
        for each in contents:
            self.upload(each)
        offer = self.said(self.commit(number, *contents))
        self.said(self.status(number, **status))
        return offer


def chunks(content: Message, size: int = 1 << 18) -> list[Chunk]:
    """Return a content in chunks."""
    data, name = codec.canonical(content), content_id(content)
    return [Chunk(name, start, len(data), data[start : start + size]) for start in range(0, len(data), size)]


def statistics(device: str, number: int = 1, since: Message | None = None, **changes: object) -> Statistics:
    """Return statistics of a device, of two classes and three features."""
    fields: dict[str, object] = {
        "device": device,
        "number": number,
        "since": None if since is None else content_id(since),
        "space": SPACE,
        "registry": 0,
        "labels": ("mug", "fork"),
        "counts": np.array([12, 24]),
        "sums": np.array([[1, 2, 3], [4, 5, 600]], np.int16),
        "residue": 0,
        "factors": np.array([[1, -7, 7]], np.int8),
        "weights": np.array([5]),
        "spread": np.zeros(3, np.int8),
        "unit": 0,
        "error": 100,
        "withdrawn": np.zeros(0, np.int64),
    }
    return Statistics(**{**fields, **changes})  # type: ignore[arg-type]


def features(device: str, samples: tuple[int, ...] = (1, 2, 3), size: int = 64, seed: int = 0) -> Features:
    """Return features of a few samples of a device."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(-128, 128, (len(samples), 1, size)).astype(np.int8)
    numbers = np.zeros(len(samples), np.int32)
    return Features(device, SPACE, 0, ("mug",), np.array(samples, np.int64), numbers, drawn)


def images(device: str, samples: tuple[int, ...] = (1, 2, 3)) -> Images:
    """Return pictures of a few samples of a device."""
    files = [JPEG + bytes([sample]) * 10 for sample in samples]
    sizes = np.array([len(each) for each in files], np.int32)
    numbers = np.zeros(len(samples), np.int32)
    joined = np.frombuffer(b"".join(files), np.uint8)
    return Images(device, 0, ("mug",), np.array(samples, np.int64), numbers, sizes, joined)
