"""Chooses the few samples that stand for a class: herding (Welling 2009, Herding Dynamical Weights to Learn).

As in iCaRL (Rebuffi et al. 2017): each next sample is the one that brings the mean of those chosen nearest to
the mean of all. The order matters: any beginning of it is itself the choice of that size.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def herd(rows: Floats, count: int) -> NDArray[np.intp]:
    """Return the indices of at most `count` of (n, D) embeddings, the most telling first; O(count n D)."""
    mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
    chosen: list[int] = []
    total = np.zeros_like(mean)
    left = np.ones(len(rows), bool)
    for size in range(1, min(count, len(rows)) + 1):
        misses = np.linalg.norm(mean - (total + rows) / size, axis=1)
        best = int(np.where(left, misses, np.inf).argmin())
        chosen.append(best)
        total += rows[best]
        left[best] = False
    return np.array(chosen, np.intp)


def coreset(rows: Floats, numbers: NDArray, count: int) -> NDArray[np.intp]:
    """Return at most `count` samples a class of (n, D) embeddings with classes (n,), class by class."""
    parts = []
    for number in np.unique(numbers):
        members = np.flatnonzero(numbers == number)
        parts.append(members[herd(rows[members], count)])
    return np.concatenate(parts) if parts else np.zeros(0, np.intp)
