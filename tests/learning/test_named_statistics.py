"""Statistics by name are added, taken apart and moved exactly, whatever the order of their classes."""

import numpy as np
import pytest

from edge_cl.learning import increment, named
from edge_cl.learning.base import Base
from edge_cl.learning.embedding import embed
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import Statistics

SIZE = 12


def taught(*labels: str, seed: int = 0) -> Named:
    """One base taught three samples of each label."""
    base, rng = Base(SIZE), np.random.default_rng(seed)
    names = tuple(dict.fromkeys(labels))
    for _ in names:
        base.add_class()
    for label in labels * 3:
        base.update(embed(rng.integers(-90, 90, (2, SIZE)).astype(np.int8), 0), names.index(label))
    return Named(names, base.statistics)


def same(first: Named, second: Named) -> bool:
    at = increment.places(first.labels, second.labels)
    one, other = first.statistics, second.statistics
    return (
        len(first.labels) == len(second.labels)
        and np.array_equal(one.counts, other.counts[at])
        and np.array_equal(one.sums, other.sums[at])
        and np.array_equal(one.moment, other.moment)
        and one.residue == other.residue
    )


def test_what_is_added_and_taken_away_again_is_what_was_there():
    first, second = taught("mug", "fork"), taught("lamp", "Mug", seed=1)
    both = named.plus(first, second)
    assert both.labels == ("mug", "fork", "lamp")
    rest = named.minus(both, second)
    assert rest.statistics.counts.tolist() == [*first.statistics.counts, 0]
    assert same(named.plus(named.nothing(SIZE), first), first)


def test_a_class_that_is_moved_is_one_taught_under_the_new_name():
    assert same(named.moved(taught("mug", "fork"), {"MUG": "cup"}), taught("cup", "fork"))
    joined = named.moved(taught("mug", "fork", "lamp"), {"mug": "lamp"})
    assert same(joined, taught("lamp", "fork", "lamp"))
    assert same(named.moved(taught("mug", "fork"), {"mug": "fork", "fork": "mug"}), taught("fork", "mug"))


def test_a_class_is_forgotten_as_the_base_forgets_it():
    known, expected = taught("mug", "fork", "lamp"), named.without(taught("mug", "fork", "lamp"), ["FORK"])
    base = Base(SIZE)
    for _ in known.labels:
        base.add_class()
    base.restore(*known.statistics, 0.3, 1.0, 0)
    base.forget_class(1)
    assert same(expected, Named(("mug", "lamp"), base.statistics))


@pytest.mark.parametrize("rank", [0, 3, SIZE])
def test_increments_of_some_classes_bring_what_is_told_to_what_is(rank):
    told, steps = named.nothing(SIZE), (taught("mug"), taught("fork", "mug"), taught("lamp", "fork", "mug"))
    for now in steps:
        labels = increment.union(told.labels, now.labels)
        more = increment.compress(named.on(now, labels), named.on(told, labels), rank)
        changed = (more.counts != 0) | more.sums.any(axis=1)
        spoken = tuple(label for label, is_new in zip(labels, changed, strict=True) if is_new)
        told = named.grown(told, spoken, more._replace(counts=more.counts[changed], sums=more.sums[changed]))
        found = Statistics(*named.on(now, told.labels))
        assert told.statistics.counts.tolist() == found.counts.tolist()
        assert np.array_equal(told.statistics.sums, found.sums)
    assert increment.untold(found, told.statistics) < (0.05 if rank == SIZE else 1)
