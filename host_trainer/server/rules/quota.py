"""Decides how many bytes a device may still send on a day; days are those of UTC."""

from typing import NamedTuple

DAY_S = 86_400


class Spent(NamedTuple):
    """What a device sent on the last day on which it sent something; days are counted from 1970."""

    day: int = 0
    bytes: int = 0


def left(spent: Spent, now: int, a_day: int) -> int:
    """Return the bytes that are still taken today."""
    return max(0, a_day - (spent.bytes if spent.day == now // DAY_S else 0))


def after(spent: Spent, now: int, count: int) -> Spent:
    """Return what is spent when `count` more bytes came."""
    day = now // DAY_S
    return Spent(day, (spent.bytes if spent.day == day else 0) + count)


def wait_s(now: int) -> int:
    """Return the seconds until the next day."""
    return DAY_S - now % DAY_S
