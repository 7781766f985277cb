"""What was seen, as whole numbers: counts, sums and second moment of embeddings.

They can be added to, taken from and merged without rounding (see `embedding`), on any machine.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT

Floats = NDArray[np.float64]

SAMPLE_WEIGHT = 12  # of one sample; divisible by 1, 2, 3 and 4 views, so that every view's weight is whole


class Statistics(NamedTuple):
    """What was seen, as whole numbers; the sum of two devices' statistics is the statistics of both.

    Attributes:
        counts: (C,) weight seen of each class, in units of 1/SAMPLE_WEIGHT sample.
        sums: (C, D) weighted sum of embeddings.
        moment: (D, D) weighted sum of outer products of embeddings, over all classes.
        residue: weight whose class was forgotten while its spread stays in `moment`.
    """

    counts: NDArray[np.int64]
    sums: Floats
    moment: Floats
    residue: int


def empty_statistics(size: int, classes: int = 0) -> Statistics:
    """Return the statistics of nothing, for D = `size` features."""
    return Statistics(np.zeros(classes, np.int64), np.zeros((classes, size)), np.zeros((size, size)), 0)


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Add two statistics of the same classes in the same order; exact, commutative, associative."""
    return Statistics(
        first.counts + second.counts,
        first.sums + second.sums,
        first.moment + second.moment,
        first.residue + second.residue,
    )


def within_scatter(statistics: Statistics) -> Floats:
    """Return the pooled within-class scatter (D, D) in real units, every sample counting SAMPLE_WEIGHT."""
    counts = np.maximum(statistics.counts, 1)[:, None]
    scatter = (statistics.sums / counts).T @ statistics.sums
    np.subtract(statistics.moment, scatter, out=scatter)
    scatter /= UNIT * UNIT
    return scatter
