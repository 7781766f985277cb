"""Packs bytes by zlib, and unpacks those of a peer never beyond what was announced and allowed."""

import zlib

from edge_cl.errors import ProtocolError

LEVEL = 6  # 9 saved less than 1 % of real statistics


def pack(data: bytes) -> bytes:
    """Return the bytes packed, or as they are where that is not longer."""
    packed = zlib.compress(data, LEVEL)
    return packed if len(packed) < len(data) else data


def unpack(data: bytes, size: int) -> bytes:
    """Return the `size` bytes that were packed; memory never grows beyond them.

    Raises:
        ProtocolError: the bytes are no zlib stream, or one of another size, or more than one.
    """
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise ProtocolError("packed bytes do not unpack") from error
    if not unpacker.eof or unpacker.unused_data or len(found) != size:
        raise ProtocolError(
            "packed bytes are cut off, of another length than announced, or followed by something"
        )
    return found
