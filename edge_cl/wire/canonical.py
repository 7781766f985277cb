"""JSON as both ends write it: one text for one value, made of names, texts and whole numbers only.

A fraction has many spellings and two machines may round it differently, so there is none; what is a share
goes as whole per mille. A text that `write` would not have written is refused, which settles twin names,
escapes, spaces and order in one rule, and makes a hash of the text a hash of the value.
"""

import json
from typing import Any

from edge_cl.errors import ProtocolError

MAX_TEXT_BYTES = 64 << 10


def write(value: Any) -> bytes:
    """Return the one text of a value made of dicts, lists, texts, whole numbers, truth values and None."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def read(text: bytes, most: int = MAX_TEXT_BYTES) -> Any:
    """Return the value of a text that `write` wrote.

    Raises:
        ProtocolError: longer than `most` bytes, not JSON, or not exactly as `write` writes it.
    """
    if len(text) > most:
        raise ProtocolError(f"{len(text)} bytes of JSON where at most {most} are allowed")
    try:
        value = json.loads(text.decode("utf-8"), parse_float=_refuse, parse_constant=_refuse)
        is_canonical = write(value) == text
    except (ValueError, RecursionError) as error:
        # Also bytes that are no UTF-8, half characters, 5,000 digits, 60,000 brackets.
        raise ProtocolError(f"not JSON of this protocol ({type(error).__name__})") from error
    if not is_canonical:
        raise ProtocolError("JSON that is not in its one form: sorted, without spaces or twin names")
    return value


def _refuse(number: str) -> None:
    raise ValueError("a number that is not whole")
