"""Decides how the growth of a base's statistics is told in few bytes, and turns it back into statistics.

Counts and sums go whole. The scatter about the class means, a (D, D) matrix, goes as a truncated
eigen-decomposition in coarse whole numbers plus a diagonal, so a part of it stays untold. What is compressed
is always the difference between what is and what was told so far, so the untold part goes up with later
increments (error feedback: Seide et al., 1-Bit Stochastic Gradient Descent, 2014), and what was told comes to
the exact statistics. Those of several devices are then added by `base.merge`, as ever.

Everything in an increment is a whole number, small enough that `advance` is exact in float64 whatever the
order of its sums: both ends know bit for bit the same about what was told.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics, empty_statistics, within_scatter
from edge_cl.sample import label_key

Floats = NDArray[np.float64]

FACTOR = 7  # largest value in a factor: 4 bits; of 30 KB more directions tell more than finer ones (measured)
QUIET_FACTOR = 3  # in a round without samples: one direction stays under 1 KB up to D = 1280
FINEST = 127  # the largest that a factor may have
SPREAD = 127  # largest value in the diagonal
FACTOR_BYTES = 0.5  # of a value, packed
ROUND_BYTES = 22 << 10  # for the scatter, when there is something new (measured: benchmarks/sync.py)
CLASS_BYTES, MOST_BYTES = 6 << 10, 96 << 10  # of it for each new class; beyond, more tells nothing more
OPEN_RANK, OPEN_EACH = 512, 4  # directions where features are sent, too: at most, and for each new sample
SPARE_DIRECTIONS = 8  # Halko, Martinsson and Tropp 2011: p of 5 to 10
ITERATIONS = 3  # of the subspace; the spectrum falls slowly
LENGTH_TOLERANCE = 0.02  # an embedding's squared length is UNIT^2 within D / 2 of rounding, or zero


class Increment(NamedTuple):
    """What statistics have grown by, in few bytes.

    Attributes:
        counts: (C,) weight added of each class, in units of 1/SAMPLE_WEIGHT sample; may be below zero.
        sums: (C, D) added, whole.
        residue: added.
        factors: (R, D) directions q of the scatter, whole numbers up to FINEST.
        weights: (R,) s of the directions; the scatter told is the sum of s q q'.
        spread: (D,) added to its diagonal, -SPREAD to SPREAD, in units of `unit`.
        unit: of `spread`.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.int64]
    residue: int
    factors: NDArray[np.int8]
    weights: NDArray[np.int64]
    spread: NDArray[np.int8]
    unit: int


def affordable_rank(budget_bytes: int, size: int) -> int:
    """Return how many directions of D = `size` values fit into a budget beside the diagonal."""
    return max(0, int((budget_bytes - size) / (FACTOR_BYTES * size)))


def fineness(size: int, samples: int, new_classes: int, is_open: bool) -> tuple[int, int]:
    """Return in how many directions of D = `size` values, and up to which factor, new samples are told of.

    Args:
        size: D.
        samples: that come or go.
        new_classes: classes of which nothing was told before.
        is_open: the features of all that is told are sent besides.
    """
    if is_open:  # a sample has no more directions than views; with the mean of its class
        return min(size, OPEN_RANK, OPEN_EACH * samples + new_classes), FINEST
    budget = min(max(ROUND_BYTES, CLASS_BYTES * new_classes), MOST_BYTES)
    return affordable_rank(budget, size), FACTOR


def union(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of both, those of `first` first; of two spellings of a class that of `first`."""
    known = {label_key(label) for label in first}
    return (*first, *(label for label in second if label_key(label) not in known))


def places(labels: Sequence[str], among: Sequence[str]) -> NDArray[np.intp]:
    """Return (C,) where each label stands among others, whatever its spelling; KeyError when it does not."""
    found = {label_key(label): number for number, label in enumerate(among)}
    return np.array([found[label_key(label)] for label in labels], np.intp)


def scatter_only(statistics: Statistics, classes: int, weight: int) -> Statistics:
    """Return the scatter about the class means alone, as if of `weight`, and C = `classes` without samples.

    A scatter is a sum and grows with its samples; what changes little is the covariance.
    """
    nothing = empty_statistics(len(statistics.moment), classes)
    own = max(1, int(statistics.counts.sum()) + statistics.residue)
    return nothing._replace(moment=np.rint(_scatter(statistics) * weight / own))


def placed(statistics: Statistics, places: NDArray[np.intp], classes: int) -> Statistics:
    """Return the statistics on another list of classes: class c goes to `places[c]`.

    Two classes of one place are added; the spread between them so becomes spread within the one.
    """
    counts, sums = np.zeros(classes, np.int64), np.zeros((classes, statistics.sums.shape[1]))
    np.add.at(counts, places, statistics.counts)
    np.add.at(sums, places, statistics.sums)
    return statistics._replace(counts=counts, sums=sums)


def compress(
    now: Statistics, told: Statistics, rank: int, is_flat: bool = False, factor: int = FACTOR
) -> Increment:
    """Tell by what `now` exceeds `told` in `rank` directions and a diagonal; O((rank + C) D^2).

    Directions are found by subspace iteration from a fixed random start (Halko, Martinsson and Tropp, Finding
    Structure with Randomness, 2011, algorithm 4.4), rounded, and weighted anew by least squares.

    Args:
        now: what is.
        told: what the other end knows, of the same classes in the same order.
        rank: R at most.
        is_flat: the diagonal is one number, which packs into nothing: 1 KB less, for rounds that only add to
            what was told before. Either way the trace is told, up to rounding.
        factor: largest value in a factor, FINEST at most.
    """
    scatter = _scatter(now)
    scatter -= _scatter(told)
    factors = _rounded(_directions(scatter, min(rank, len(scatter))), factor)
    weights = _weights(scatter, factors)
    spread, unit = _spread(np.diag(scatter) - _diagonal(factors, weights), is_flat)
    counts, sums = now.counts - told.counts, (now.sums - told.sums).astype(np.int64)
    return Increment(counts, sums, now.residue - told.residue, factors, weights, spread, unit)


def advance(told: Statistics, increment: Increment) -> Statistics:
    """Return what is told after an increment, for `merge`; the same bits on every machine."""
    factors = increment.factors.astype(np.float64)
    moment = _scatter(told)
    moment += (factors.T * increment.weights) @ factors
    moment[np.diag_indices(len(moment))] += increment.spread.astype(np.float64) * increment.unit
    counts, sums = told.counts + increment.counts, told.sums + increment.sums
    moment += between(counts, sums)
    return Statistics(counts, sums, moment, told.residue + increment.residue)


def untold(now: Statistics, told: Statistics) -> float:
    """Return the share of the scatter of `now` that `told` misses, by Frobenius norms; 1: all of it."""
    scatter = within_scatter(now)
    whole = float(np.linalg.norm(scatter))
    scatter -= within_scatter(told)
    return float(np.linalg.norm(scatter)) / whole if whole else 0.0


def lifted(statistics: Statistics) -> Statistics:
    """Return statistics whose scatter has no negative direction: its diagonal is raised as far as needed.

    What is untold can leave a direction slightly below zero, which no samples could, and no base can solve.
    """
    lowest = float(np.linalg.eigvalsh(within_scatter(statistics))[0]) * UNIT * UNIT
    if lowest >= 0:
        return statistics
    moment = statistics.moment.copy()
    moment[np.diag_indices(len(moment))] += np.ceil(-lowest)
    return statistics._replace(moment=moment)


def raised(told: Statistics, increment: Increment) -> Increment:
    """Return the increment with as much more diagonal as `advance` needs to leave no negative direction."""
    after = advance(told, increment)
    lowest = float(np.linalg.eigvalsh(_scatter(after))[0])
    if lowest >= 0:
        return increment
    wanted = increment.spread.astype(np.float64) * increment.unit - lowest
    unit = max(1, int(np.ceil(np.abs(wanted).max() / SPREAD)))
    return increment._replace(spread=np.ceil(wanted / unit).astype(np.int8), unit=unit)


def fault(statistics: Statistics) -> str:
    """Say why no samples can have made these statistics; empty when some can.

    An embedding has length UNIT, so sums are bounded by counts, and the trace of the moment by the weight: a
    device that scales its features to weigh more is found here, whatever it sends.
    """
    weight = int(statistics.counts.sum()) + statistics.residue
    most = 1.0 + LENGTH_TOLERANCE
    lengths = np.linalg.norm(statistics.sums, axis=1)
    if (statistics.counts < 0).any() or weight < 0:
        return "a class has lost more samples than it had"
    if (lengths > most * UNIT * statistics.counts).any():
        return "the sum of a class is longer than its samples"
    if not 0 <= np.trace(statistics.moment) <= most * UNIT * UNIT * max(weight, SAMPLE_WEIGHT):
        return "the scatter is larger than that of all samples"
    return ""


def _scatter(statistics: Statistics) -> Floats:
    """Return the scatter about the class means as whole numbers, every sample counting SAMPLE_WEIGHT."""
    return statistics.moment - between(statistics.counts, statistics.sums)


def between(counts: NDArray, sums: Floats) -> Floats:
    """Return the part of a moment that counts and sums tell, each sample at its class mean; whole."""
    moment = np.zeros((sums.shape[1],) * 2)
    for count, total in zip(counts, sums, strict=True):
        if count > 0:
            part = np.outer(
                total, total
            )  # one such matrix at a time: on a board they are what memory is made of
            part /= count
            moment += np.rint(part, out=part)
    return moment


def _directions(scatter: Floats, rank: int) -> Floats:
    """Return the (R, D) eigenvectors of largest magnitude, about."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((len(scatter), min(rank + SPARE_DIRECTIONS, len(scatter))))
    for _ in range(1 + ITERATIONS):
        basis = np.linalg.qr(scatter @ basis)[0]
    values, vectors = np.linalg.eigh(basis.T @ scatter @ basis)
    largest = np.argsort(-np.abs(values), kind="stable")[:rank]
    return (basis @ vectors[:, largest]).T


def _rounded(directions: Floats, factor: int) -> NDArray[np.int8]:
    peaks = np.abs(directions).max(axis=1, keepdims=True, initial=1e-300)
    return np.rint(directions / peaks * factor).astype(np.int8)


def _weights(scatter: Floats, factors: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the (R,) weights s that bring the sum of s q q' nearest to the scatter."""
    rows = factors.astype(np.float64)
    products = (rows @ rows.T) ** 2
    found = np.linalg.lstsq(products, np.einsum("rd,rd->r", rows @ scatter, rows), rcond=None)[0]
    return np.rint(found).astype(np.int64)


def _diagonal(factors: NDArray[np.int8], weights: NDArray[np.int64]) -> Floats:
    """Return the (D,) diagonal of the sum of s q q'."""
    return weights.astype(np.float64) @ factors.astype(np.float64) ** 2


def _spread(rest: Floats, is_flat: bool) -> tuple[NDArray[np.int8], int]:
    """Return a diagonal as small whole numbers and their unit."""
    if is_flat:
        unit = max(1, int(np.rint(abs(rest.mean()))))
        return np.full(len(rest), np.rint(rest.mean() / unit), np.int8), unit
    unit = max(1, int(np.ceil(np.abs(rest).max(initial=0) / SPREAD)))
    return np.rint(rest / unit).astype(np.int8), unit
