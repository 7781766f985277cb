"""Keeps the before-you-learn score: honest, since every sample is answered before it is learned."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MEMORY = 0.95  # a class's answers lose half their weight in 14 samples: the score follows what is true now


class Progress(NamedTuple):
    """Running tallies; arrays are never changed in place.

    Attributes:
        taught: (C,) samples taught, the first of each class included.
        seen: (C,) discounted number of answers.
        right: (C,) discounted number of right answers.
        confused: (C, C) answers of each class (row) that named another (column), undiscounted.
    """

    taught: NDArray[np.int64]
    seen: NDArray[np.float64]
    right: NDArray[np.float64]
    confused: NDArray[np.int64]

    @classmethod
    def empty(cls) -> "Progress":
        """Return the progress of nobody."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros((0, 0), np.int64))

    def with_class(self) -> "Progress":
        """Return it with one more class."""
        return Progress(
            np.append(self.taught, np.int64(0)),
            np.append(self.seen, 0.0),
            np.append(self.right, 0.0),
            np.pad(self.confused, ((0, 1), (0, 1))),
        )

    def without_class(self, number: int) -> "Progress":
        """Return it without class `number`."""
        rows = np.delete(self.confused, number, axis=0)
        return Progress(
            np.delete(self.taught, number),
            np.delete(self.seen, number),
            np.delete(self.right, number),
            np.delete(rows, number, axis=1),
        )

    def joined(self, source: int, target: int) -> "Progress":
        """Return it with class `source` as a part of `target`: taking one for the other was no mistake."""
        taught, seen, right, confused = (array.copy() for array in self)
        for array in (taught, seen, right, confused):
            array[target] += array[source]
        confused[:, target] += confused[:, source]
        confused[target, target] = 0
        return Progress(taught, seen, right, confused).without_class(source)

    def taught_one(self, number: int, predicted: int | None) -> "Progress":
        """Return it after a sample of class `number` that was answered `predicted` (None: class is new)."""
        taught, seen, right, confused = (array.copy() for array in self)
        taught[number] += 1
        if predicted is not None:
            seen[number] = seen[number] * MEMORY + 1.0
            right[number] = right[number] * MEMORY + float(predicted == number)
            confused[number, predicted] += predicted != number
        return Progress(taught, seen, right, confused)
