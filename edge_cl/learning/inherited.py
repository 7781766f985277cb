"""Keeps apart what a learner's base was born with, so that what was taught here stays exactly known.

A base that came with a release holds the statistics of many devices. What was taught here is the rest: whole
numbers, so the difference is exact, and only that is ever told to others.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import snapshot
from edge_cl.learning.statistics import Statistics


class Inherited(NamedTuple):
    """Statistics of a learner's classes that nobody taught here; kept small, since they are seldom read.

    Attributes:
        counts: (C,) weight, in units of 1/SAMPLE_WEIGHT sample.
        sums: (C, D) whole.
        triangle: (D (D + 1) / 2,) the moment's upper triangle, whole.
        residue: (1,) weight of forgotten classes.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    triangle: NDArray
    residue: NDArray[np.int64]

    def with_class(self) -> "Inherited":
        """Return it with one more class, of which nothing is inherited."""
        return self._replace(
            counts=np.append(self.counts, np.int64(0)), sums=np.pad(self.sums, ((0, 1), (0, 0)))
        )

    def joined(self, source: int, target: int) -> "Inherited":
        """Return it with class `source` as a part of class `target`; later ones move down by one."""
        counts, sums = self.counts.copy(), self.sums.copy()
        counts[target] += counts[source]
        sums[target] += sums[source]
        return self._replace(counts=np.delete(counts, source), sums=np.delete(sums, source, axis=0))

    def without_class(self, number: int) -> "Inherited":
        """Return it with a class forgotten as `Base.forget_class` does; later ones move down by one."""
        found = statistics(self)
        count, total = int(found.counts[number]), found.sums[number]
        if count > 0:
            found.moment[:] -= np.rint(np.outer(total, total) / count)
        return inherited(
            Statistics(
                np.delete(found.counts, number),
                np.delete(found.sums, number, axis=0),
                found.moment,
                found.residue + count,
            )
        )


def inherited(found: Statistics) -> Inherited:
    """Return statistics as they are kept."""
    triangle = snapshot.upper_triangle(found.moment)
    return Inherited(found.counts.copy(), found.sums.copy(), triangle, np.array([found.residue], np.int64))


def statistics(kept: Inherited) -> Statistics:
    """Return what was kept, as statistics of its own arrays."""
    moment = snapshot.symmetric(kept.triangle, kept.sums.shape[1])
    return Statistics(kept.counts.copy(), kept.sums.copy(), moment, int(kept.residue[0]))


def less(whole: Statistics, part: Statistics) -> Statistics:
    """Return the statistics that `part` lacks of `whole`, of the same classes; exact."""
    return Statistics(
        whole.counts - part.counts,
        whole.sums - part.sums,
        whole.moment - part.moment,
        whole.residue - part.residue,
    )
