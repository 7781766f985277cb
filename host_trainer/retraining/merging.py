"""Decides what the fleet knows together: the host's own statistics and what every device has told, added.

Whole numbers are added, so the order does not matter and nothing is rounded. Only a device that would
outweigh all others in what they teach as well is scaled down; it adds its own samples to a head that claims
to know nothing of it (`Merged.taken`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.increment import between, places, union
from edge_cl.learning.named import Named, plus
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics
from edge_cl.wire.labels import Edits
from host_trainer.retraining.told import Told, moved

FREE_SAMPLES = 200  # of a device, which no cap touches: a small fleet is made of single devices


class Merged(NamedTuple):
    """What the fleet knows.

    Attributes:
        known: of all classes.
        shares: {device: share of what it told that counts}, 1 unless it was capped.
        taken: {device: newest content that is contained whole}.
    """

    known: Named
    shares: Mapping[str, float]
    taken: Mapping[str, str]


def merged(own: Named, told: Sequence[Told], edits: Edits, cap: float) -> Merged:
    """Add what the devices told to what the host knows itself.

    Args:
        own: of the host's own pictures.
        told: of each device, all of one feature space.
        edits: of the label registry; classes are called as after the last of them.
        cap: largest share of the samples of classes that others teach as well, for one device.
    """
    newest = edits[-1].version if edits else 0
    current = [moved(each, edits, newest) for each in told]
    shares, known = _shares(own, current, cap), own
    for each in current:
        known = plus(known, Named(each.labels, scaled(each.statistics(), shares[each.device])))
    taken = {
        each.device: each.contents[-1] for each in current if each.contents and shares[each.device] == 1.0
    }
    return Merged(_taught(known), shares, taken)


def scaled(statistics: Statistics, share: float) -> Statistics:
    """Return statistics as if of a share of the samples, in whole numbers: means and covariance stay."""
    if share == 1.0:
        return statistics
    counts = np.rint(statistics.counts * share).astype(np.int64)
    sums = np.rint(statistics.sums * (counts / np.maximum(statistics.counts, 1))[:, None])
    scatter = np.rint((statistics.moment - between(statistics.counts, statistics.sums)) * share)
    return Statistics(counts, sums, scatter + between(counts, sums), round(statistics.residue * share))


def _labels(own: Sequence[str], told: Iterable[Told]) -> tuple[str, ...]:
    """Return all classes, the host's first."""
    labels = tuple(own)
    for each in told:
        labels = union(labels, each.labels)
    return labels


def _taught(known: Named) -> Named:
    """Return what is known without classes that have lost all their samples."""
    counts, sums = known.statistics.counts, known.statistics.sums
    held = counts > 0
    kept = known.statistics._replace(counts=counts[held], sums=sums[held])
    return Named(tuple(name for name, is_held in zip(known.labels, held, strict=True) if is_held), kept)


def _shares(own: Named, told: Sequence[Told], cap: float) -> dict[str, float]:
    """Return the share of each device that counts."""
    labels = _labels(own.labels, told)
    weights = np.zeros((len(told) + 1, len(labels)))
    for row, (names, counts) in enumerate(
        [(own.labels, own.statistics.counts), *((t.labels, t.counts) for t in told)]
    ):
        np.add.at(weights[row], places(names, labels), counts)
    return {each.device: _share(weights, row, cap) for row, each in enumerate(told, 1)}


def _share(weights: NDArray[np.float64], row: int, cap: float) -> float:
    """Return the share s of a row that keeps it at `cap` of the classes it does not have for itself.

    s w <= cap (s w + others), so s = cap / (1 - cap) * others / w.
    """
    others = np.delete(weights, row, axis=0).sum(axis=0)
    shared = others > 0
    mine, theirs = float(weights[row, shared].sum()), float(others[shared].sum())
    if mine <= FREE_SAMPLES * SAMPLE_WEIGHT or cap >= 1.0:
        return 1.0
    return min(1.0, max(cap / (1.0 - cap) * theirs, FREE_SAMPLES * SAMPLE_WEIGHT) / mine)
