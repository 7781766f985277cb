"""Decides what of a kept picture leaves: what it shows, not where, when and by which camera it was taken."""

import io

from PIL import Image

from edge_cl.vision.frames import decode_image
from edge_cl.wire.messages import JPEG

QUALITY = 95  # of a picture that has to be written anew
ORIENTATION = 0x0112  # tag of EXIF
MARKER, SCAN, END = 0xFF, 0xDA, 0xD9
STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
KEPT = (0xE0, 0xEE)  # JFIF, and Adobe's, which says how colours are to be read
APPLICATIONS, COMMENT = range(0xE0, 0xF0), 0xFE


def bare(data: bytes, name: str) -> bytes:
    """Return a picture as a JPEG without anything but the picture; the same bytes give the same.

    A JPEG that is upright loses its notes and nothing else; anything else is written anew.

    Raises:
        ImageError: not a picture that can be read.
    """
    if data.startswith(JPEG) and _is_upright(data):
        stripped = _stripped(data)
        if stripped is not None:
            return stripped
    out, image = io.BytesIO(), decode_image(data, name)
    image.info = {}  # notes that would be written again
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _is_upright(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) == 1
    except (OSError, ValueError, SyntaxError):
        return False


def _stripped(data: bytes) -> bytes | None:
    """Return a JPEG without its notes; None where its segments cannot be told apart."""
    kept, at = bytearray(data[:2]), 2
    while at + 4 <= len(data) and data[at] == MARKER:
        kind = data[at + 1]
        if kind == MARKER:  # padding
            at += 1
            continue
        if kind == SCAN:
            end = data.rfind(bytes((MARKER, END)))  # what stands behind it is no part of the picture
            return bytes(kept + data[at : end + 2]) if end > at else None
        if kind in STANDALONE:
            return None
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in KEPT or (kind not in APPLICATIONS and kind != COMMENT):
            kept += data[at : at + size]
        at += size
    return None
