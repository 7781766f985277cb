"""Decides which samples a replaying peer keeps: a class-balanced reservoir (Chrysakis and Moens 2020)."""

import numpy as np
from numpy.typing import NDArray


class Reservoir:
    """Indices of kept samples; full, it gives up samples of its largest class first.

    While a class is not (and never was) the largest, all its samples are kept; of a largest class every
    sample ever offered has the same chance to be here, as in a plain reservoir.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a reservoir keeps at least 1 sample, not {capacity}")
        self.capacity = capacity
        self.classes = np.zeros(0, np.intp)  # (K,) class of each kept slot
        self._offered: dict[int, int] = {}
        self._full: set[int] = set()

    def offer(self, number: int, rng: np.random.Generator) -> int | None:
        """Offer a sample of a class; return the slot it takes, None when it is not kept."""
        self._offered[number] = self._offered.get(number, 0) + 1
        if len(self.classes) < self.capacity:
            self.classes = np.append(self.classes, number)
            return len(self.classes) - 1
        slot = self._slot(number, rng)
        if slot is not None:
            self.classes[slot] = number
        return slot

    def _slot(self, number: int, rng: np.random.Generator) -> int | None:
        counts = np.bincount(self.classes)
        largest = np.flatnonzero(counts == counts.max())
        self._full.update(int(found) for found in largest)
        if number not in self._full:
            return int(rng.choice(self._of(int(rng.choice(largest)))))
        own = self._of(number)
        if rng.random() * self._offered[number] < len(own):
            return int(rng.choice(own))
        return None

    def _of(self, number: int) -> NDArray[np.intp]:
        return np.flatnonzero(self.classes == number)
