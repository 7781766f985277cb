"""Decides which time counts, for boards that lose theirs with the power; `now` is handed in.

What the host's timestamp said last time it was trusted is a floor: time does not go back behind it. With it,
a board that wakes up in 1970 still knows an expired document. A board whose clock is ahead finds everything
expired and is told so; nothing that runs stops for it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from edge_cl.device.releases.marks import Mark, is_void
from edge_cl.errors import ReleaseError
from edge_cl.wire.release import ISSUED, ISSUED_FORMAT

BUILT = datetime(2026, 11, 1, tzinfo=timezone.utc)  # this program did not exist before
TIMESTAMP = "timestamp"


def floor(marks: Mapping[str, Mark], keys: Iterable[str], threshold: int) -> datetime:
    """Return the time that it is at least; `keys` and `threshold` are the timestamp's now.

    A thief of the timestamp's key could set the floor far ahead; with the key's rotation that ends.
    """
    mark = marks.get(TIMESTAMP)
    if mark is None or is_void(mark, keys, threshold):
        return BUILT
    return max(BUILT, datetime.fromtimestamp(mark.issued, timezone.utc))


def reference(now: datetime, floor_now: datetime) -> datetime:
    """Return the time by which documents are judged."""
    return max(now.astimezone(timezone.utc), floor_now)


def warning(now: datetime, floor_now: datetime) -> str:
    """Return a line for the person where the board's clock is behind; "" where it may be right."""
    if now >= floor_now:
        return ""
    return f"this board's clock says {_day(now)}, but it is at least {_day(floor_now)}: set it"


def issued(fields: Mapping[str, object], expires: datetime) -> int:
    """Return when a timestamp was signed, in seconds since 1970; 0 where it does not say so sensibly."""
    try:
        found = datetime.strptime(str(fields[ISSUED]), ISSUED_FORMAT).replace(tzinfo=timezone.utc)
    except (KeyError, ValueError):
        return 0
    return int(found.timestamp()) if BUILT <= found <= expires else 0


def expired(what: str, now: datetime) -> ReleaseError:
    """Return the error for a document that is too old to be believed."""
    return ReleaseError(
        f"{what}, it is {_day(now)} here: nothing new is installed until the host signs again; if the date is"
        " wrong, set the clock. What runs goes on"
    )


def _day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d")
