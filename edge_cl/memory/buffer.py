"""Decides which taught samples are kept for rehearsal under a byte budget; pure, arrays and ints only.

A class-balanced reservoir: while there is room everything is kept; then a sample of a class that is not
among the largest replaces one of a largest class, and a sample of a largest class is accepted with chance
kept / offered of that class (Vitter's reservoir within the class; mammoth's "balancoir" across classes). Of
two candidates drawn as the victim the one with the lower difficulty leaves more often, so that harder samples
- as data removal finds them - stay longer.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SLOT_OVERHEAD_BYTES = 64  # ids, counters and flags of a slot
EMPTY = -1
FAVOUR = 0.25  # how often a harder sample is spared: more would make the memory, and all that is estimated
# from it, harder than the world
PRIOR_SHOWN = 4.0  # presentations after which a sample's own mistakes outweigh the usual rate


class Leaving(NamedTuple):
    """A sample as it leaves: its id, class number, (V, D) features and flags, those of `Slots`."""

    sample: int
    number: int
    features: NDArray
    suspect: bool
    confirmed: bool


class Offer(NamedTuple):
    """What became of an offered sample: the slot it took, and who left for it; itself where it took none."""

    slot: int | None
    leaving: Leaving | None


class Slots(NamedTuple):
    """The buffer's bookkeeping, one value a slot.

    Attributes:
        sample: (K,) id, EMPTY where free; below EMPTY it is an exemplar, which came with a release.
        number: (K,) class number.
        mistakes: (K,) misclassifications in training so far.
        shown: (K,) presentations in training so far.
        fresh: (K,) taught since the last consolidation.
        suspect: (K,) set aside by the label audit.
        confirmed: (K,) a person vouches for the label.
    """

    sample: NDArray[np.int64]
    number: NDArray[np.int32]
    mistakes: NDArray[np.int32]
    shown: NDArray[np.int32]
    fresh: NDArray[np.bool_]
    suspect: NDArray[np.bool_]
    confirmed: NDArray[np.bool_]


def capacity(budget_bytes: int, sample_bytes: int) -> int:
    """Return K, the slots that fit into a byte budget; at least 1."""
    return max(1, budget_bytes // (sample_bytes + SLOT_OVERHEAD_BYTES))


def exemplar_ids(count: int) -> NDArray[np.int64]:
    """Return the (count,) ids of a release's exemplars; samples taught here have those from 1."""
    return EMPTY - 1 - np.arange(count, dtype=np.int64)


def is_exemplar(sample: NDArray) -> NDArray[np.bool_]:
    """Return which ids are those of exemplars."""
    return sample < EMPTY


def empty_slots(count: int) -> Slots:
    """Return `count` free slots."""
    return Slots(
        np.full(count, EMPTY, np.int64),
        np.zeros(count, np.int32),
        np.zeros(count, np.int32),
        np.zeros(count, np.int32),
        np.zeros(count, bool),
        np.zeros(count, bool),
        np.zeros(count, bool),
    )


class Buffer:
    """K slots of (V, D) features in the stored dtype; changes in place.

    Args:
        slots: K.
        views: V.
        size: D.
        dtype: of the stored features.
    """

    def __init__(self, slots: int, views: int, size: int, dtype: str) -> None:
        self.slots = empty_slots(slots)
        self.features = np.zeros((slots, views, size), dtype)
        self.offered = np.zeros(0, np.int64)  # (C,) samples offered of each class

    @property
    def filled(self) -> NDArray[np.intp]:
        """Indices of slots that hold a sample, rising."""
        return np.flatnonzero(self.slots.sample != EMPTY)

    def kept(self) -> NDArray[np.int64]:
        """Return (C,) samples kept of each class."""
        return np.bincount(self.slots.number[self.filled], minlength=len(self.offered))

    def find(self, sample: int) -> int | None:
        """Return the slot of a sample, None when it is not kept."""
        found = np.flatnonzero((self.slots.sample == sample) & (self.slots.sample != EMPTY))
        return int(found[0]) if len(found) else None

    def offer(self, sample: int, number: int, features: NDArray, rng: np.random.Generator) -> Offer:
        """Offer one (V, D) sample of class `number`; keep it or not."""
        self.offered[number] += 1
        free = np.flatnonzero(self.slots.sample == EMPTY)
        slot = int(free[0]) if len(free) else self._victim(number, rng)
        if slot is None:
            return Offer(None, Leaving(sample, number, features, False, False))
        leaving = None if len(free) else self._leaving(slot)
        self._put(slot, sample, number, features)
        return Offer(slot, leaving)

    def _leaving(self, slot: int) -> Leaving:
        slots = self.slots
        flags = bool(slots.suspect[slot]), bool(slots.confirmed[slot])
        return Leaving(int(slots.sample[slot]), int(slots.number[slot]), self.features[slot].copy(), *flags)

    def _victim(self, number: int, rng: np.random.Generator) -> int | None:
        kept = self.kept()
        largest = np.flatnonzero(kept == kept.max())
        if number not in largest:
            return self._easier_of_two(int(rng.choice(largest)), rng)
        if rng.random() * self.offered[number] >= kept[number]:
            return None
        return self._easier_of_two(number, rng)

    def _easier_of_two(self, number: int, rng: np.random.Generator) -> int:
        members = np.flatnonzero((self.slots.sample != EMPTY) & (self.slots.number == number))
        pair = members[rng.integers(len(members), size=2)]
        difficulty = self.difficulty()[pair]
        favoured = rng.random() < FAVOUR and difficulty[1] < difficulty[0]
        return int(pair[1] if favoured else pair[0])

    def difficulty(self) -> NDArray[np.float64]:
        """Return (K,) misclassification rates in training; a suspect counts as usual."""
        slots = self.slots
        usual = slots.mistakes.sum() / max(int(slots.shown.sum()), 1)
        rate = (slots.mistakes + PRIOR_SHOWN * usual) / (slots.shown + PRIOR_SHOWN)
        return np.where(slots.suspect, usual, rate)

    def _put(self, slot: int, sample: int, number: int, features: NDArray) -> None:
        self.features[slot] = features
        values = (sample, number, 0, 0, True, False, False)
        for name, value in zip(Slots._fields, values, strict=True):
            getattr(self.slots, name)[slot] = value

    def lend(self, sample: int, number: int, features: NDArray) -> bool:
        """Put an exemplar (V, D) of class `number` into a free slot, vouched for; False when none is free."""
        free = np.flatnonzero(self.slots.sample == EMPTY)
        if not len(free):
            return False
        self._put(int(free[0]), sample, number, features)
        self.slots.fresh[free[0]], self.slots.confirmed[free[0]] = False, True
        return True

    def remove(self, slot: int) -> None:
        """Free a slot and blank its features."""
        self._put(slot, EMPTY, 0, np.zeros_like(self.features[slot]))
        self.slots.fresh[slot] = False

    def add_class(self) -> None:
        """Make room for one more class."""
        self.offered = np.append(self.offered, np.int64(0))

    def join_classes(self, source: int, target: int) -> None:
        """Make class `source` a part of class `target`; later ones move down by one."""
        self.slots.number[self.slots.number == source] = target
        self.offered[target] += self.offered[source]
        self.drop_class(source)

    def drop_class(self, number: int) -> None:
        """Forget a class whose slots are free already; later classes move down by one."""
        self.offered = np.delete(self.offered, number)
        self.slots.number[self.slots.number > number] -= 1
