"""Statistics with the names of their classes: how device and host add up what each of them told the other.

A device and the host keep, each for itself, what the device has told so far: the same increments, in the same
order, moved to other names at the same places. So both know it bit for bit, and neither asks the other.
Two spellings of a name are one class (`label_key`), called as it was called first.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from edge_cl.learning import increment
from edge_cl.learning.increment import Increment
from edge_cl.learning.statistics import Statistics, empty_statistics, merge
from edge_cl.sample import label_key


class Named(NamedTuple):
    """Statistics, and what their classes are called.

    Attributes:
        labels: of the classes, C, no two of one key.
        statistics: of C classes.
    """

    labels: tuple[str, ...]
    statistics: Statistics


def nothing(size: int) -> Named:
    """Return the statistics of nothing, for D = `size` features."""
    return Named((), empty_statistics(size))


def on(named: Named, labels: tuple[str, ...]) -> Statistics:
    """Return the statistics on another list of classes, which has all of theirs."""
    return increment.placed(named.statistics, increment.places(named.labels, labels), len(labels))


def plus(first: Named, second: Named) -> Named:
    """Add two statistics; exact. The classes of `first` come first."""
    labels = increment.union(first.labels, second.labels)
    return Named(labels, merge(on(first, labels), on(second, labels)))


def minus(first: Named, second: Named) -> Named:
    """Take statistics from others; exact. A class may be left with less than nothing."""
    negative = Statistics(
        -second.statistics.counts,
        -second.statistics.sums,
        -second.statistics.moment,
        -second.statistics.residue,
    )
    return plus(first, second._replace(statistics=negative))


def moved(named: Named, moves: Mapping[str, str]) -> Named:
    """Call classes by other names, {old: new}; classes of one name become one. Exact."""
    keys = {label_key(old): new for old, new in moves.items()}
    names = [keys.get(label_key(label), label) for label in named.labels]
    spelled: dict[str, str] = {}
    for name in names:
        spelled.setdefault(label_key(name), name)
    labels = tuple(spelled.values())
    return Named(labels, increment.placed(named.statistics, increment.places(names, labels), len(labels)))


def without(named: Named, labels: Iterable[str]) -> Named:
    """Forget classes as `Base.forget_class` does: their spread about their mean stays, as residue."""
    gone = {label_key(label) for label in labels}
    is_kept = np.array([label_key(label) not in gone for label in named.labels], bool)
    counts, sums, moment, residue = named.statistics
    moment = moment - increment.between(counts[~is_kept], sums[~is_kept])
    residue += int(counts[~is_kept].sum())
    kept = tuple(label for label, stays in zip(named.labels, is_kept, strict=True) if stays)
    return Named(kept, Statistics(counts[is_kept], sums[is_kept], moment, residue))


def grown(told: Named, labels: tuple[str, ...], more: Increment) -> Named:
    """Return what is told after an increment of some classes, known or new: `increment.advance` by name."""
    named = increment.union(told.labels, labels)
    places = increment.places(labels, named)
    counts, sums = np.zeros(len(named), np.int64), np.zeros((len(named), more.sums.shape[1]), np.int64)
    counts[places], sums[places] = more.counts, more.sums
    return Named(named, increment.advance(on(told, named), more._replace(counts=counts, sums=sums)))
