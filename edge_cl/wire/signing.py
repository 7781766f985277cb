"""Signs a device's requests with its key, and decides whether a host may believe one; no clock, no network.

    edge-cl-1 LF device LF counter LF time LF METHOD LF target LF sha256 of the body, hex

HMAC-SHA256 of this text under 32 bytes that only the device and the host have. A request counts once: each
has a higher counter than the last, and a few that overtook each other are told apart by a window (as in RFC
4303, section 3.4.3). The time may be wrong on a board without a clock, so it is signed, but judged apart.
"""

import hashlib
import hmac
import re
from typing import NamedTuple

from edge_cl.errors import ProtocolError
from edge_cl.wire.fields import NAME, SHA256

SCHEME = "edge-cl-1"
KEY_BYTES = 32
WINDOW = 64  # requests that may overtake each other; a device has a handful under way
TIME_TOLERANCE_S = 900  # of a board whose clock is set
METHOD = re.compile(r"[A-Z]{3,8}")
TARGET = re.compile(r"/[!-~]{0,1023}")  # path and query as sent, printable ASCII, no spaces
DEVICE = re.compile(NAME)
BODY = re.compile(SHA256)
MAX_HEADER_CHARACTERS = 256
NUMBER = "0|[1-9][0-9]{0,15}"
HEADER = re.compile(
    rf"{SCHEME} device=(?P<device>{NAME}),counter=(?P<counter>{NUMBER}),"
    rf"time=(?P<time>{NUMBER}),signature=(?P<signature>{SHA256})",
    re.ASCII,
)


class Request(NamedTuple):
    """What is signed of a request.

    Attributes:
        device: its name.
        counter: of its requests; never twice the same.
        time: Unix seconds, as the device believes.
        method: in capitals.
        target: path and query.
        body: SHA-256, hex.
    """

    device: str
    counter: int
    time: int
    method: str
    target: str
    body: str


class Signature(NamedTuple):
    """What a request says of itself in its header `Authorization`."""

    device: str
    counter: int
    time: int
    signature: str


class Window(NamedTuple):
    """Which counters a host has seen of a device: the highest, and the WINDOW below it as bits."""

    highest: int = -1
    seen: int = 0


def digest(body: bytes) -> str:
    """Return the hash of a body as it is signed."""
    return hashlib.sha256(body).hexdigest()


def canonical(request: Request) -> bytes:
    """Return the text that is signed; ValueError for a request that nobody could send."""
    fits = (
        DEVICE.fullmatch(request.device)
        and METHOD.fullmatch(request.method)
        and TARGET.fullmatch(request.target)
        and BODY.fullmatch(request.body)
        and 0 <= request.counter < 10**16
        and 0 <= request.time < 10**16
    )
    if not fits:
        raise ValueError("a request with a device, method, target or number that cannot be")
    lines = (SCHEME, request.device, str(request.counter), str(request.time))
    return "\n".join((*lines, request.method, request.target, request.body)).encode("ascii")


def sign(key: bytes, request: Request) -> str:
    """Return the signature of a request, hex; ValueError for a key that is none."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes where {KEY_BYTES} are needed")
    return hmac.new(key, canonical(request), hashlib.sha256).hexdigest()


def header(key: bytes, request: Request) -> str:
    """Return the value of the header `Authorization`."""
    said = Signature(request.device, request.counter, request.time, sign(key, request))
    return f"{SCHEME} " + ",".join(f"{name}={value}" for name, value in said._asdict().items())


def read_header(text: str) -> Signature:
    """Return what a header says.

    Raises:
        ProtocolError: it is not of this scheme, or not in its one form.
    """
    found = HEADER.fullmatch(text) if len(text) <= MAX_HEADER_CHARACTERS else None
    if found is None:
        raise ProtocolError(f"the request is not signed in the form {SCHEME}")
    return Signature(found["device"], int(found["counter"]), int(found["time"]), found["signature"])


def is_genuine(key: bytes, said: Signature, method: str, target: str, body: str) -> bool:
    """Tell whether the holder of the key made this request; in a time that says nothing about the key."""
    try:
        expected = sign(key, Request(said.device, said.counter, said.time, method, target, body))
    except ValueError:
        return False
    return hmac.compare_digest(expected.encode("ascii"), said.signature.encode("ascii"))


def counted(window: Window, counter: int) -> Window:
    """Return the window after a genuine request.

    Raises:
        ProtocolError: the request came before, or so long ago that nobody can tell.
    """
    ahead = counter - window.highest
    if ahead > 0:
        kept = (window.seen << ahead) & ((1 << WINDOW) - 1) if ahead < WINDOW else 0
        return Window(counter, kept | 1)
    if -ahead >= WINDOW or window.seen >> -ahead & 1:
        raise ProtocolError(
            f"request {counter} came before, the last was {window.highest}: count on from there"
        )
    return window._replace(seen=window.seen | 1 << -ahead)


def is_timely(said: Signature, now: int, tolerance_s: int = TIME_TOLERANCE_S) -> bool:
    """Tell whether the device's clock agrees with the host's about when this was sent."""
    return abs(said.time - now) <= tolerance_s
