"""Decides how a learner goes on under a head that came with a release, losing nothing that was taught here.

    base = head + own - taken,  own = all that was ever taught here, taken = what the head has of it already

So what is inherited is head - taken, and own stays exactly known whatever becomes of what was told.

The samples taught here stay in memory, the release's exemplars fill up the classes that have fewer of their
own; classes are one by `label_key`, and are called as they are called here. In another feature space `own` is
made anew of the samples that could be seen again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ReleaseError
from edge_cl.learning import increment
from edge_cl.learning.docket import Record
from edge_cl.learning.embedding import embed
from edge_cl.learning.inherited import inherited, less
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named, on
from edge_cl.learning.progress import Progress
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics, empty_statistics, merge
from edge_cl.memory.buffer import EMPTY, Slots, exemplar_ids
from edge_cl.sample import label_key

Kept = Mapping[int, NDArray]  # sample -> (V, D) features in the head's space


class Exemplars(NamedTuple):
    """Features (N, V, D) that came with a head, the most telling of each class first, and classes (N,)."""

    features: NDArray
    numbers: NDArray


def succeed(
    old: EdgeLearner, head: EdgeLearner, own: Named, taken: Named, kept: Kept, exemplars: Exemplars
) -> EdgeLearner:
    """Return the learner that goes on where `old` stands, with the head's knowledge besides; `head` is it.

    Args:
        old: whose samples, classes and tallies go on; not changed.
        head: of `learning.head.to_learner`, in the space that is to be used from now on.
        own: all that was taught here.
        taken: what the head has of it, as it was told.
        kept: features of the samples taught here that are still at hand; others leave the memory.
        exemplars: of the head, by its classes.

    Raises:
        ReleaseError: something that was taught here would be lost.
    """
    head.labels = tuple(_called(label, old.labels) for label in head.labels)
    for label in increment.union(head.labels, (*old.labels, *own.labels, *taken.labels))[len(head.labels) :]:
        head.add_class(label)
    places = increment.places(old.labels, head.labels)
    _take_up_statistics(head, on(own, head.labels), on(taken, head.labels))
    _take_up_samples(old, head, places, kept)
    _fill_up(head, exemplars)
    _take_up_tallies(old, head, places)
    _check_nothing_is_lost(old, head)
    for number in reversed(range(len(head.labels))):
        head.drop_if_empty(number)
    return head


def taught_again(old: EdgeLearner, kept: Kept, size: int, zero_point: int) -> Named:
    """Return the statistics of the samples at hand, as they would be had they been taught in this space."""
    counts, sums, moment, _ = empty_statistics(size, len(old.labels))
    slots = old.buffer.slots
    for slot in old.buffer.filled:
        features = kept.get(int(slots.sample[slot]))
        if features is None or slots.suspect[slot] or slots.sample[slot] < EMPTY:
            continue
        rows = embed(padded(features, old.config.views), zero_point)
        weight = SAMPLE_WEIGHT // len(rows)
        counts[slots.number[slot]] += SAMPLE_WEIGHT
        sums[slots.number[slot]] += weight * rows.sum(axis=0)
        moment += weight * (rows.T @ rows)
    return Named(old.labels, Statistics(counts, sums, moment, 0))


def padded(features: NDArray, views: int) -> NDArray:
    """Return (V, D) features of fewer views repeated in turn, as a learner keeps them."""
    return features[np.arange(views) % len(features)]


def _called(label: str, known: Sequence[str]) -> str:
    return next((name for name in known if label_key(name) == label_key(label)), label)


def _take_up_statistics(head: EdgeLearner, own: Statistics, taken: Statistics) -> None:
    """Add what was taught here; directions that rounding left below nothing count as inherited."""
    whole = less(merge(head.base.statistics, own), taken)
    short = np.flatnonzero(whole.counts < 0)
    if len(short):
        raise ReleaseError(
            f"the release does not hold what it took of {head.labels[short[0]]!r} from here: sync again"
        )
    whole = increment.lifted(whole)
    shrinkage = head.base.shrinkage
    head.base.restore(*whole, shrinkage, head.base.ridge, head.base.refreshed_weight)
    head.base.refresh(shrinkage)
    head.inherited = inherited(less(whole, own))


def _take_up_samples(old: EdgeLearner, head: EdgeLearner, places: NDArray[np.intp], kept: Kept) -> None:
    """Move the samples taught here into the head's memory, each as it stands in the old one."""
    slots = old.buffer.slots
    mine = _chosen(old, np.array([s in kept for s in slots.sample.tolist()]), len(head.buffer.slots.sample))
    for target, slot in enumerate(mine):
        head.buffer.features[target] = padded(kept[int(slots.sample[slot])], head.config.views)
        for field in Slots._fields:
            getattr(head.buffer.slots, field)[target] = getattr(slots, field)[slot]
        number = int(places[slots.number[slot]])
        head.buffer.slots.number[target] = number
        head.buffer.slots.fresh[target] |= not head.training.trained[number]
        head.docket.doubt[target] = old.docket.doubt[slot]
        head.docket.suggestion[target] = places[old.docket.suggestion[slot]]
    np.add.at(head.buffer.offered, places, old.buffer.offered)
    head.training.mistakes_before[:] = head.buffer.slots.mistakes


def _chosen(old: EdgeLearner, is_kept: NDArray[np.bool_], room: int) -> NDArray[np.intp]:
    """Return the slots of the samples that go on: all, or as many of each class as larger features let in."""
    slots = old.buffer.slots
    mine = np.flatnonzero(is_kept & (slots.sample > EMPTY))
    if len(mine) <= room:
        return mine
    drawn = np.random.default_rng((old.config.seed, len(mine))).permutation(mine)
    rank = np.array([np.sum(slots.number[drawn[:i]] == slots.number[s]) for i, s in enumerate(drawn)])
    return np.sort(drawn[np.argsort(rank, kind="stable")[:room]])


def _fill_up(head: EdgeLearner, exemplars: Exemplars) -> None:
    """Lend exemplars to the classes with fewer samples of their own, in turn, while there is room."""
    ids, kept = exemplar_ids(len(exemplars.numbers)), head.buffer.kept()
    of_class = {
        number: np.flatnonzero(exemplars.numbers == number) for number in np.unique(exemplars.numbers)
    }
    lacking = {number: len(found) - int(kept[number]) for number, found in of_class.items()}
    for turn in range(max(lacking.values(), default=0)):
        for number, found in of_class.items():
            if turn >= lacking[number]:
                continue
            features = padded(exemplars.features[found[turn]], head.config.views)
            if not head.buffer.lend(int(ids[found[turn]]), int(number), features):
                return


def _take_up_tallies(old: EdgeLearner, head: EdgeLearner, places: NDArray[np.intp]) -> None:
    head.next_sample, head.taught_count = old.next_sample, old.taught_count
    progress = Progress(*(array.copy() for array in head.progress))
    for mine, theirs in zip(progress[:3], old.progress[:3], strict=True):
        mine[places] = theirs
    progress.confused[np.ix_(places, places)] = old.progress.confused
    head.progress = progress
    departed = old.docket.departed
    head.docket.departed = Record(
        departed.sample.copy(),
        places[departed.number].astype(np.int32),
        places[departed.suggestion].astype(np.int32),
        departed.doubt.copy(),
    )


def _check_nothing_is_lost(old: EdgeLearner, head: EdgeLearner) -> None:
    """Refuse a head that says it has taken what was taught here, and does not have it."""
    own, taught = old.own_statistics().counts, _trusted(head)
    for label, count in zip(old.labels, own, strict=True):
        number = int(increment.places((label,), head.labels)[0])
        least = max(int(taught[number]), int(count > 0))
        if head.base.counts[number] < SAMPLE_WEIGHT * least:
            raise ReleaseError(
                f"{label!r} was taught here, and the release lacks it although it says otherwise: sync again"
            )


def _trusted(learner: EdgeLearner) -> NDArray[np.intp]:
    """Return (C,) samples in memory that the base holds, exemplars aside."""
    slots = learner.buffer.slots
    heard = (slots.sample > EMPTY) & ~slots.suspect
    return np.bincount(slots.number[heard], minlength=len(learner.labels))
