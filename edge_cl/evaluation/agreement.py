"""Measures how far one machine's features are from another's, of the same pictures."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Agreement(NamedTuple):
    """How a machine's answers compare with the golden ones.

    Attributes:
        equal: fraction of values that are the same.
        steps: largest difference in stored units; in real units for float features.
        cosine_min: of the worst picture, in real units.
    """

    equal: float
    steps: float
    cosine_min: float


def agreement(expected: NDArray, found: NDArray, scale: float, zero_point: int) -> Agreement:
    """Compare features as stored, (N, D) each, N at least 1."""
    first, second = expected.astype(np.float64), found.astype(np.float64)
    return Agreement(
        float((expected == found).mean()),
        float(np.abs(first - second).max()),
        float(cosines((first - zero_point) * scale, (second - zero_point) * scale).min()),
    )


def cosines(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Return the cosine of each row with its twin: (N, D), (N, D) to (N,); 1 where both are zero."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(axis=1)
    both_empty = ~first.any(axis=1) & ~second.any(axis=1)
    return np.where(both_empty, 1.0, products / np.where(lengths > 0, lengths, 1.0))
