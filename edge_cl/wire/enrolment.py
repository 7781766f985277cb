"""How a device joins a fleet: a one-time code that a person carries over, one question and one answer.

The code holds a token, which lets one device in, and the SHA-256 fingerprint of the host's certificate, so
that the device knows the host before it tells the token. A host without TLS, on this machine only, has none.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from edge_cl.errors import ProtocolError
from edge_cl.wire import bech32, canonical
from edge_cl.wire.fields import Bytes, Count, Name, Record, Text, Version, from_plain, many, to_plain
from edge_cl.wire.messages import Level
from edge_cl.wire.signing import KEY_BYTES

PREFIX = "ecl"
TOKEN_BYTES = 10  # 80 random bits, for an hour or so, behind a limit of tries
FINGERPRINT_BYTES = 32
NONCE_BYTES = 16
MAX_ROOT_BYTES = 24 << 10  # a root of four keys has 3 kB

Hardware = Annotated[tuple[str, ...], many(Name, 8, is_set=True)]


class Code(NamedTuple):
    """What a person carries from the host to the device: the token, and the certificate's SHA-256 or b""."""

    token: bytes
    fingerprint: bytes = b""


@dataclass(frozen=True)
class Enrol(Record):
    """The device asks to be let in.

    Attributes:
        token: of the code.
        nonce: drawn once by the device and kept until it is let in: who asks again with the same one, because
            the answer was lost, gets the same answer.
        device: the name it would like; "" leaves it to the host. A name that the code was made for wins.
        hardware: classes of bundles that it can run, the preferred first.
        runtime: version of the program.
    """

    token: Annotated[bytes, Bytes(TOKEN_BYTES, TOKEN_BYTES)]
    nonce: Annotated[bytes, Bytes(NONCE_BYTES, NONCE_BYTES)]
    device: Annotated[str, Text(r"([a-z0-9][a-z0-9._-]{0,63})?")]
    hardware: Hardware
    runtime: Version


@dataclass(frozen=True)
class Enrolled(Record):
    """The host lets the device in.

    Attributes:
        device: its name in this fleet.
        key: signs its requests; told once, and kept by both ends.
        model: of the bundles that it gets.
        channel: that they come from.
        level: the most that the host wants of it.
        root: the document of TUF's role root that the device trusts from now on, as bytes.
        time: the host's, Unix seconds, for a board without a clock.
    """

    device: Name
    key: Annotated[bytes, Bytes(KEY_BYTES, KEY_BYTES)]
    model: Name
    channel: Name
    level: Level
    root: Annotated[bytes, Bytes(1, MAX_ROOT_BYTES)]
    time: Count


def write_code(code: Code) -> str:
    """Return the code as people copy it: capitals and digits in groups, checked (`bech32`)."""
    if len(code.token) != TOKEN_BYTES or len(code.fingerprint) not in (0, FINGERPRINT_BYTES):
        raise ValueError(f"a token of {len(code.token)} and a fingerprint of {len(code.fingerprint)} bytes")
    return bech32.write(PREFIX, code.token + code.fingerprint)


def read_code(text: str) -> Code:
    """Return what a code says; spaces, hyphens and capitals do not matter.

    Raises:
        ProtocolError: it is mistyped or not whole; the words say where, as far as can be told.
    """
    data = bech32.read(PREFIX, text)
    if len(data) not in (TOKEN_BYTES, TOKEN_BYTES + FINGERPRINT_BYTES):
        raise ProtocolError("the code is not whole: copy it from the host again")
    return Code(data[:TOKEN_BYTES], data[TOKEN_BYTES:])


def write(record: Enrol | Enrolled) -> bytes:
    """Return the body of a question or an answer."""
    return canonical.write(to_plain(record))


def read_enrol(body: bytes) -> Enrol:
    """Return the question of a body; ProtocolError for what `write` would not have written."""
    return from_plain(Enrol, canonical.read(body))


def read_enrolled(body: bytes) -> Enrolled:
    """Return the answer of a body; ProtocolError for what `write` would not have written."""
    return from_plain(Enrolled, canonical.read(body))
