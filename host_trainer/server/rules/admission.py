"""Decides what a device is called, and how many wrong codes an address may try."""

import re
from collections.abc import Callable
from typing import NamedTuple

from edge_cl.errors import ConfigError
from edge_cl.wire.fields import NAME

MAX_NAME = 64
MAX_ADDRESSES = 4096  # remembered; the oldest are forgotten first


class Patience(NamedTuple):
    """How many wrong codes an address may try, and in how many seconds it gets all of these tries back."""

    tries: int = 10
    seconds: float = 600.0


def check_name(name: str) -> None:
    """Raise ConfigError for what cannot be the name of a device."""
    if not re.fullmatch(NAME, name, re.ASCII):
        raise ConfigError(f"{name!r} names no device: use up to 64 of a-z, 0-9, `.`, `_` and `-`")


def free_name(wanted: str, is_taken: Callable[[str], bool]) -> str:
    """Return `wanted`, or where that is taken, `wanted-2`, `wanted-3` and so on."""
    name, number = wanted, 1
    while is_taken(name):
        number += 1
        name = f"{wanted[: MAX_NAME - 1 - len(str(number))]}-{number}"
    return name


class Throttle:
    """Counts wrong codes by address: a bucket of tries each, that fills up again."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._buckets: dict[str, tuple[float, float]] = {}  # tries left, and when that was so

    def wait_s(self, address: str, now: float) -> float:
        """Return the seconds until an address may try again; 0.0: now."""
        left = self._left(address, now)
        return 0.0 if left >= 1.0 else (1.0 - left) * self._patience.seconds / self._patience.tries

    def failed(self, address: str, now: float) -> None:
        """Count a wrong code."""
        left = max(0.0, self._left(address, now) - 1.0)
        self._buckets.pop(address, None)
        if len(self._buckets) >= MAX_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[address] = (left, now)

    def _left(self, address: str, now: float) -> float:
        left, at = self._buckets.get(address, (float(self._patience.tries), now))
        gained = max(0.0, now - at) * self._patience.tries / self._patience.seconds
        return min(float(self._patience.tries), left + gained)
