"""Writes numbers and names as people read them in a page."""

import re
from collections.abc import Callable
from html import escape

Format = Callable[[float], str]

NONE = "–"
GAP = "\u00a0"  # no line ends between a number and its unit
LARGE = ("", "k", "M", "G", "T", "P", "E", "Z")  # of the SI, by powers of a thousand
# Control characters, halves of surrogate pairs, and marks that turn the direction of what follows.
UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def text(value: object) -> str:
    """Return what any name looks like inside HTML, in an attribute too: marks are only characters."""
    return escape(UNSAFE.sub("\ufffd", str(value)), quote=True)


def shortened(name: str, length: int) -> str:
    """Return a name of at most `length` characters; its middle goes, for the ends tell names apart."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[: length - 1 - half]}…{name[len(name) - half :]}"


def plain(value: float) -> str:
    """Return a number in three figures."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Return a share in per cent, with one decimal."""
    return NONE if share is None else f"{100 * share:.1f}{GAP}%"


def whole_percent(share: float) -> str:
    """Return a round share in per cent, as an axis has it."""
    return f"{100 * share:.3g}{GAP}%"


def points(share: float | None) -> str:
    """Return a difference of shares in percentage points."""
    return NONE if share is None else f"{100 * share:.1f}{GAP}points"


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.3g}{GAP}s" if seconds < 10 else f"{seconds:.0f}{GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{GAP}min {rest}{GAP}s" if rest else f"{minutes}{GAP}min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{GAP}h {minutes}{GAP}min" if minutes else f"{hours}{GAP}h"


def large(value: float, unit: str = "") -> str:
    """Return a number in three figures with a prefix of the SI: 2.55 PFLOP."""
    power = 0
    while abs(value) >= 999.5 and power < len(LARGE) - 1:
        value, power = value / 1000, power + 1
    figures = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{figures}{GAP}{LARGE[power]}{unit}".strip()


def flop(value: float) -> str:
    """Return a number of floating point operations."""
    return large(value, "FLOP")


def size(count: float) -> str:
    """Return a number of bytes."""
    return large(count, "B")
