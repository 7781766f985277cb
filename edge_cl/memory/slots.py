"""Decides which row of the feature table is written next, so that flash wears least.

SQLite writes whole pages, twice each: into its log, then into the table. A page with one new row costs as
much as one with three, so neighbouring rows are written together. Deleting costs writing too: of the pages
that a range delete frees, every second one is still written out (measured; all of them with secure_delete).
So nothing is deleted. The rows form a ring; a dead row is overwritten when the ring comes round to it, living
rows are stepped over. The ring is kept DEAD_PER_LIVE times larger than what lives in it, so that few living
rows are met. benchmarks/flash.py measures it.
"""

import numpy as np

PAGE_ROOM_BYTES = 4_088  # of a 4,096-byte page that rows can fill
ROW_OVERHEAD_BYTES = 24  # SQLite's and ours, per row of features: at most 2^31 samples and 2^21 slots
MAX_PIECES_A_VIEW = 8  # more rows cost time and save little
DEAD_PER_LIVE = 2.0  # free slots per used one before one is used again; 2: about 6 % of those met live
SMALLEST_RING = 1024  # slots; below this (1 MB at 1 KB) the ring just grows
FREE = 0  # owner of a slot that may be overwritten; sample ids start at 1


def piece_bytes(view_bytes: int) -> int:
    """Choose how many bytes of a feature vector go into a row, so that pages are filled.

    A row may not leave its page (a second one costs x3.45), and what is left of a page is written in vain:
    1,024 bytes in one row fill 75 % of a page, in three rows 92 %.
    """
    least = -(-view_bytes // (PAGE_ROOM_BYTES - ROW_OVERHEAD_BYTES))
    counts = range(least, least + MAX_PIECES_A_VIEW)
    best = min(counts, key=lambda count: _pages(view_bytes, count))
    return -(-view_bytes // best)


def _pages(view_bytes: int, count: int) -> float:
    """Return the pages that a vector costs when it is cut into `count` rows."""
    row = -(-view_bytes // count) + ROW_OVERHEAD_BYTES
    return count / (PAGE_ROOM_BYTES // row)


class Slots:
    """The owner of every feature slot, `owner[slot]`, slots from 1."""

    def __init__(self, slots: np.ndarray, owners: np.ndarray) -> None:
        """Take the rows as found on disk: slots (n,) and the sample in each (n,), int64."""
        self.owner = np.zeros(int(slots.max(initial=0)) + 1, dtype=np.int64)
        self.owner[slots] = owners
        # The ring position is not stored: it is just after the newest sample.
        self.head = int(np.flatnonzero(self.owner == self.owner.max())[-1]) + 1 if self.used else 1

    @property
    def used(self) -> int:
        """Count the slots that hold a sample."""
        return int(np.count_nonzero(self.owner))

    @property
    def free(self) -> int:
        """Count the slots inside the ring that may be overwritten."""
        return self.owner.size - 1 - self.used

    def of(self, sample: int) -> np.ndarray:
        """Return the slots of one sample, ascending."""
        return np.flatnonzero(self.owner == sample)

    def of_any(self, samples: np.ndarray) -> np.ndarray:
        """Return the slots of these samples (n,), ascending."""
        return np.flatnonzero(np.isin(self.owner, samples) & (self.owner != FREE))

    def samples(self) -> np.ndarray:
        """Return the samples that hold slots, ascending."""
        owners = np.unique(self.owner)
        return owners[owners != FREE]

    def plan(self, count: int) -> np.ndarray:
        """Choose `count` slots to write next, in ring order; nothing changes until `take`."""
        if self.free < max(DEAD_PER_LIVE * self.used, SMALLEST_RING, count):
            return np.arange(self.owner.size, self.owner.size + count)
        free = np.flatnonzero(self.owner[1:] == FREE) + 1
        start = int(np.searchsorted(free, self.head))
        return np.roll(free, -start)[:count]

    def take(self, slots: np.ndarray, owners: np.ndarray) -> None:
        """Record what a committed write has put into `slots`."""
        if slots.size == 0:
            return
        grown = int(slots.max()) + 1 - self.owner.size
        if grown > 0:
            self.owner = np.concatenate([self.owner, np.zeros(grown, dtype=np.int64)])
        self.owner[slots] = owners
        self.head = int(slots[-1]) + 1

    def release(self, samples: np.ndarray) -> int:
        """Give up the slots of these samples (n,) and return how many there were."""
        slots = self.of_any(samples)
        self.owner[slots] = FREE
        return int(slots.size)
