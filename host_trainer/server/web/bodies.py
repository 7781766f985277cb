"""Reads a request's body: never more than may come, never longer than it may take."""

from collections.abc import Callable

import anyio
from starlette.requests import Request

from edge_cl.wire import routes
from edge_cl.wire.canonical import MAX_TEXT_BYTES
from edge_cl.wire.codec import FRAME, MAGIC, MAX_HEADER_BYTES
from edge_cl.wire.messages import MAX_CHUNK_BYTES
from host_trainer.server.refusal import RefusedError

MAX_MESSAGE_BYTES = FRAME.size + MAX_HEADER_BYTES + MAX_CHUNK_BYTES
MAX_ENROL_BYTES = MAX_TEXT_BYTES
TIMEOUT = 408  # of RFC 9110
CLOSE = {"connection": "close"}  # where a body is left unread, what follows it cannot be told apart


async def read_message(request: Request, seconds: float) -> bytes:
    """Return the frame of a message; its own first bytes say how long it is.

    Raises:
        RefusedError: too long, too slow, or in a wrapping.
    """
    return await _read(request, MAX_MESSAGE_BYTES, seconds, _announced)


async def read_text(request: Request, seconds: float) -> bytes:
    """Return a JSON body; errors as `read_message`."""
    return await _read(request, MAX_ENROL_BYTES, seconds, lambda data: MAX_ENROL_BYTES)


def _announced(data: bytearray) -> int:
    """Return the most bytes that a frame can have; packed, a body is shorter than announced."""
    if not MAGIC.startswith(data[: len(MAGIC)]):
        raise RefusedError("malformed", "these bytes are not a message of this protocol", headers=CLOSE)
    if len(data) < FRAME.size:
        return MAX_MESSAGE_BYTES
    header, body = FRAME.unpack_from(data)[-2:]
    return min(FRAME.size + header + body, MAX_MESSAGE_BYTES)


async def _read(request: Request, most: int, seconds: float, most_of: Callable[[bytearray], int]) -> bytes:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(
            "malformed", "the body comes in a wrapping: send it as it is", headers=CLOSE, status=415
        )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise _too_long(most)
    data = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for piece in request.stream():
                data += piece
                if len(data) > most_of(data):
                    raise _too_long(most_of(data))
    except TimeoutError as error:
        words = f"the body did not come within {seconds:g} s: send smaller chunks"
        raise RefusedError("malformed", words, headers=CLOSE, status=TIMEOUT) from error
    return bytes(data)


def _too_long(most: int) -> RefusedError:
    return RefusedError("too-large", f"the body is longer than {most} bytes", headers=CLOSE)


def no_body(request: Request) -> None:
    """Raise RefusedError when a request brings a body where none belongs."""
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        raise RefusedError("malformed", f"a body where none belongs, see {routes.REGISTRY}", headers=CLOSE)
