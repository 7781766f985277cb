"""When the releases of the tests come, and how much later it is."""

from datetime import datetime, timedelta, timezone

START = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)


def later(minutes: float) -> datetime:
    """Return a time after the releases came."""
    return START + timedelta(minutes=minutes)
