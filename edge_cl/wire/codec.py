"""Messages as bytes: a frame of a canonical JSON header and a body of tensors or raw bytes.

    "ECLW" | version u8 | packing u8 | 2 zero bytes | header bytes u32 | body bytes u32 | header | body

All little endian; `body bytes` is the length before packing. Packing 1 is zlib, used when it saves something.
The name of a message is the hash of its frame without packing: two zlibs may pack one content differently.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import ProtocolError
from edge_cl.wire import canonical as text
from edge_cl.wire import packing, tensors
from edge_cl.wire.fields import Array, Raw, from_plain, to_plain
from edge_cl.wire.messages import MESSAGES, Message

MAGIC = b"ECLW"
VERSION = 1
PLAIN, ZLIB = 0, 1
TYPE = "type"
FRAME = struct.Struct("<4sBBHII")
MAX_HEADER_BYTES = text.MAX_TEXT_BYTES
_NAMES = {kind: name for name, kind in MESSAGES.items()}


class Frame(NamedTuple):
    """A frame taken apart: which message, its header's fields, how its body is packed, and how long it is."""

    kind: type[Message]
    fields: dict[str, Any]
    packing: int
    body_bytes: int
    body: bytes


def canonical(message: Message) -> bytes:
    """Return the one unpacked frame of a message."""
    return _frame(message, PLAIN)


def encode(message: Message) -> bytes:
    """Return the frame of a message as it is sent, its body packed when that is shorter."""
    return _frame(message, ZLIB)


def content_id(message: Message) -> str:
    """Return the name of a message: SHA-256 of its canonical bytes, hex."""
    return hashlib.sha256(canonical(message)).hexdigest()


def decode(data: bytes, allowed: type[Message] | tuple[type[Message], ...] = Message) -> Message:
    """Read a frame, trusting nothing in it.

    Args:
        data: the whole frame.
        allowed: messages that are expected here; others are refused before their body is looked at.

    Raises:
        ProtocolError: another protocol or version, not an allowed message, or anything that `encode` would
            not have written.
    """
    frame = _split(data)
    if not issubclass(frame.kind, allowed):
        raise ProtocolError(f"a message {_NAMES[frame.kind]} is out of place here")
    body = _inflate(frame)
    return from_plain(frame.kind, frame.fields, _read_body(frame.kind, body))


def _frame(message: Message, way: int) -> bytes:
    header = text.write({**to_plain(message), TYPE: _NAMES[type(message)]})
    body = _body(message)
    sent = packing.pack(body) if way == ZLIB else body
    if len(header) > MAX_HEADER_BYTES or len(body) > message.MAX_BODY_BYTES:
        raise ValueError(f"a message of {len(header)} and {len(body)} bytes is too large")
    way = ZLIB if len(sent) < len(body) else PLAIN
    return FRAME.pack(MAGIC, VERSION, way, 0, len(header), len(body)) + header + sent


def _body(message: Message) -> bytes:
    arrays, raw = _in_body(type(message))
    if raw:
        return getattr(message, raw)
    return tensors.pack({name: getattr(message, name) for name in arrays}) if arrays else b""


def _in_body(kind: type[Message]) -> tuple[list[str], str | None]:
    """Return which fields stand in the body: arrays, or one of raw bytes."""
    raw = [name for name, each in kind.KINDS.items() if isinstance(each, Raw)]
    return [name for name, each in kind.KINDS.items() if isinstance(each, Array)], raw[0] if raw else None


def _split(data: bytes) -> Frame:
    if len(data) < FRAME.size:
        raise ProtocolError(f"{len(data)} bytes are too few for a message")
    magic, version, way, zero, header_bytes, body_bytes = FRAME.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("these bytes are not a message of this protocol")
    if version != VERSION:
        raise ProtocolError(
            f"a message of protocol version {version}, where {VERSION} is spoken: update one end"
        )
    if way not in (PLAIN, ZLIB) or zero or header_bytes > MAX_HEADER_BYTES:
        raise ProtocolError("the frame is not one that this protocol has")
    start = FRAME.size + header_bytes
    if len(data) < start:
        raise ProtocolError("the message is cut off in its header")
    kind, fields = _header(bytes(data[FRAME.size : start]))
    if body_bytes > kind.MAX_BODY_BYTES:
        raise ProtocolError(f"a body of {body_bytes} bytes where at most {kind.MAX_BODY_BYTES} are allowed")
    return Frame(kind, fields, way, body_bytes, bytes(data[start:]))


def _header(data: bytes) -> tuple[type[Message], dict[str, Any]]:
    fields = text.read(data, MAX_HEADER_BYTES)
    name = fields.pop(TYPE, None) if isinstance(fields, dict) else None
    if not isinstance(name, str) or name not in MESSAGES:
        raise ProtocolError("the header names no message of this protocol")
    return MESSAGES[name], fields


def _inflate(frame: Frame) -> bytes:
    """Return the body, never more than the bytes that were announced and allowed."""
    body = packing.unpack(frame.body, frame.body_bytes) if frame.packing == ZLIB else frame.body
    if len(body) != frame.body_bytes:
        raise ProtocolError(f"a body of {len(body)} bytes where {frame.body_bytes} were announced")
    return body


def _read_body(kind: type[Message], body: bytes) -> Mapping[str, Any]:
    arrays, raw = _in_body(kind)
    if raw:
        return {raw: body}
    if not arrays:
        return _nothing(body)
    found, metadata = tensors.unpack(body, tensors.Limits(tensors=len(arrays)))
    if metadata or tensors.pack(found) != body:
        raise ProtocolError("the tensors are not in their one form")
    return found


def _nothing(body: bytes) -> Mapping[str, np.ndarray]:
    if body:
        raise ProtocolError("a body where none belongs")
    return {}
