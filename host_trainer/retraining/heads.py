"""Decides how a head is made of what the fleet knows and of the samples at hand.

The base is the merged statistics, in closed form. The residual, the shrinkage and the calibration come from
samples whose features are here, each answered as if it had never been taught; for that the statistics must
hold what these samples are, even where a device has told them roughly (`rehearsed`). The residual goes on
from the incumbent's and hears its answers beside the labels, so that what was right stays as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import gate
from edge_cl.learning import residual as mlp
from edge_cl.learning.calibration import log_softmax
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.docket import Suspect
from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.increment import between, lifted, places
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named, on
from edge_cl.learning.shrinkage import SHRINKAGES
from edge_cl.learning.statistics import Statistics, empty_statistics, merge
from edge_cl.memory.buffer import SLOT_OVERHEAD_BYTES
from edge_cl.sample import FeatureSpace, label_key
from host_trainer.retraining.merging import scaled
from host_trainer.retraining.samples import OWN, Samples, statistics_of, with_views
from host_trainer.retraining.told import Told

SHRINKAGE_MOVES = 4  # steps to a neighbour; a few runs later any shrinkage has been reached
MOST_FOR_COARSE = 0.3  # measured on TrashNet and grocery packages: beyond, more shrinkage costs
LEAST_STEPS, MOST_STEPS = 64, 3000  # of the residual, about one a sample in between
BLOCK = 64  # held-out answers worked out at once


@dataclass(frozen=True)
class HeadConfig:
    """How a head is made.

    Attributes:
        learner: how it learns; the devices run the same network.
        distilled: weight of the incumbent's answer beside the label of a sample of an old class.
    """

    learner: LearnerConfig = LearnerConfig()
    distilled: float = 0.3


class Answered(NamedTuple):
    """Answers to samples as if they had never been taught.

    Attributes:
        devices: (n,) whose sample.
        numbers: (n,) its number there.
        truth: (n,) its label.
        answers: (n,) the answer.
    """

    devices: tuple[str, ...]
    numbers: tuple[int, ...]
    truth: tuple[str, ...]
    answers: tuple[str, ...]


class Teacher(NamedTuple):
    """What answered until now, and samples as its own backbone sees them, known by device and number."""

    learner: EdgeLearner
    samples: Samples


class Head(NamedTuple):
    """A head that was made.

    Attributes:
        learner: answers; its base is the merged statistics.
        held_back: answers to each device's samples that the residual never trained on.
        suspects: (device, sample's number, what the label audit says) of labels that look wrong.
    """

    learner: EdgeLearner
    held_back: Answered
    suspects: tuple[tuple[str, int, Suspect], ...]


def made(
    space: FeatureSpace,
    config: HeadConfig,
    known: Named,
    learned_from: Statistics,
    samples: Samples,
    fresh: NDArray[np.bool_],
    incumbent: EdgeLearner | None = None,
    teacher: Teacher | None = None,
) -> Head:
    """Make a head.

    Args:
        space: of the features.
        config: how.
        known: what is published: merged statistics of C classes.
        learned_from: statistics of the same classes that hold every sample (`rehearsed`).
        samples: N, of these classes.
        fresh: (N,) which have come since the incumbent was made.
        incumbent: what the residual goes on from; None for the first release, or in another space.
        teacher: whose answers count beside the labels.
    """
    views = config.learner.views
    budget = (len(samples) + 1) * (views * space.size * np.dtype(space.dtype).itemsize + SLOT_OVERHEAD_BYTES)
    learner = EdgeLearner(space, replace(config.learner, buffer_bytes=budget))
    for label in known.labels:
        learner.add_class(label)
    shrinkage = learner.base.shrinkage
    if incumbent is not None:
        shrinkage = incumbent.base.shrinkage  # published a step above: it is found again from there
        learner.training.residual, learner.training.trained = carried(incumbent, known.labels)
        learner.calibration, learner.familiarity = incumbent.calibration, incumbent.familiarity
    learner.base.restore(*lifted(learned_from), shrinkage, 1.0, 0)
    learner.base.refresh(shrinkage)
    _remember(learner, samples, fresh)
    if teacher is not None:
        learner.training.teacher = _taught_by(teacher, samples, known.labels, config.distilled)
    _train(learner, len(samples))
    held_back = _held_back(learner, samples)
    suspects = tuple(
        (
            samples.devices[each.sample // gate.HELD_BACK - 1],
            int(samples.numbers[each.sample // gate.HELD_BACK - 1]),
            each,
        )
        for each in learner.suspects()
    )
    shrinkage = for_coarse(learner.base.shrinkage)
    learner.base.restore(*lifted(known.statistics), shrinkage, 1.0, 0)
    learner.base.refresh(shrinkage)
    return Head(learner, held_back, suspects)


def rehearsed(
    own: Named,
    told: Sequence[Told],
    shares: Mapping[str, float],
    samples: Samples,
    labels: tuple[str, ...],
    zero_point: int,
) -> Statistics:
    """Return what is known on C = `labels` so that it holds every sample whole.

    Where a device's features are all of what it told, they take the place of what it told of its scatter;
    where they are some, no direction may have less than they have.
    """
    total = on(own, labels)
    loose = [empty_statistics(total.sums.shape[1], len(labels))] * 2  # as told, as seen
    for each in told:
        seen = statistics_of(samples.of(each.device), labels, zero_point)
        found = on(Named(each.labels, scaled(each.statistics(), shares[each.device])), labels)
        if np.array_equal(seen.counts, found.counts) and np.array_equal(seen.sums, found.sums):
            total = merge(total, seen)
        else:
            loose = [merge(one, other) for one, other in zip(loose, (found, seen), strict=True)]
    return merge(total, _holding(*loose))


def for_coarse(shrinkage: float) -> float:
    """Return the shrinkage for statistics that were told and are told on in few directions: a step more."""
    above = [each for each in SHRINKAGES if shrinkage < each <= MOST_FOR_COARSE]
    return above[0] if above else shrinkage


def carried(incumbent: EdgeLearner, labels: Sequence[str]) -> tuple[mlp.Residual, NDArray[np.bool_]]:
    """Return a learner's residual, and which classes it was shown, on other classes: new ones say nothing."""
    state, trained = incumbent.training.residual, incumbent.training.trained
    found = {label_key(label): number for number, label in enumerate(incumbent.labels)}
    source = [found.get(label_key(label), len(found)) for label in labels]

    def moved(weights: mlp.Weights) -> mlp.Weights:
        return weights._replace(second=np.pad(weights.second, ((0, 0), (0, 1)))[:, source])

    residual = state._replace(
        weights=moved(state.weights), velocity=moved(state.velocity), average=moved(state.average)
    )
    return residual, np.append(trained, False)[source]


def answers(learner: EdgeLearner, features: NDArray) -> tuple[str, ...]:
    """Return the class of each whole picture: of features (N, V, D) the first view counts."""
    parts = [features[at : at + BLOCK, :1] for at in range(0, len(features), BLOCK)]
    return tuple(str(each.best) for part in parts for each in learner.predict_many(part))


def accuracy(learner: EdgeLearner, asked: Samples) -> float:
    """Return the share of whole pictures whose class is answered; 0 of none."""
    found = answers(learner, asked.features)
    right = [label_key(one) == label_key(other) for one, other in zip(found, asked.labels, strict=True)]
    return float(np.mean(right)) if right else 0.0


def _holding(told: Statistics, seen: Statistics) -> Statistics:
    """Return `told` with at least the scatter of `seen` in every direction."""
    if not seen.counts.any():
        return told
    scatter = seen.moment - between(seen.counts, seen.sums)
    rest = (told.moment - between(told.counts, told.sums) - scatter) / (UNIT * UNIT)
    values, vectors = np.linalg.eigh(rest)
    rest = np.rint((vectors * np.maximum(values, 0.0)) @ vectors.T * (UNIT * UNIT))
    return told._replace(moment=scatter + (rest + rest.T) // 2 + between(told.counts, told.sums))


def _remember(learner: EdgeLearner, samples: Samples, fresh: NDArray[np.bool_]) -> None:
    """Put samples into the memory of a learner whose base knows them; their ids keep who is held back."""
    classes = places(samples.labels, learner.labels)
    features = with_views(samples.features, learner.config.views)
    rng = np.random.default_rng(0)  # never asked: there is room for all
    for row, number in enumerate(classes):
        sample = gate.HELD_BACK * (row + 1) + int(samples.numbers[row]) % gate.HELD_BACK
        slot = learner.buffer.offer(sample, int(number), features[row], rng).slot
        assert slot is not None
        learner.training.admit(slot)
        learner.buffer.slots.fresh[slot] = fresh[row]


def _taught_by(
    teacher: Teacher, samples: Samples, labels: Sequence[str], weight: float
) -> NDArray[np.float32]:
    """Return (K, C): what a teacher answers to each sample of a class it knows, times `weight`."""
    learner, its = teacher
    known = {label_key(label) for label in learner.labels}
    among = {label_key(label): number for number, label in enumerate(labels)}
    columns = np.array([among.get(label_key(label), len(labels)) for label in learner.labels], np.intp)
    seen = {key: row for row, key in enumerate(zip(its.devices, its.numbers.tolist(), strict=True))}
    keys = zip(samples.devices, samples.numbers.tolist(), strict=True)
    pairs = [
        (row, seen[key])
        for row, (key, label) in enumerate(zip(keys, samples.labels, strict=True))
        if key in seen and label_key(label) in known
    ]
    found = np.zeros((len(samples) + 1, len(labels) + 1), np.float32)
    for at in range(0, len(pairs), BLOCK):
        rows, places_before = (np.array(each) for each in zip(*pairs[at : at + BLOCK], strict=True))
        logits = learner.scores_many(its.features[places_before, :1])
        found[rows[:, None], columns] = np.exp(log_softmax(logits))
    return weight * found[:, :-1]


def _train(learner: EdgeLearner, count: int) -> None:
    for _ in range(SHRINKAGE_MOVES):
        before, learner.base.refreshed_weight = learner.base.shrinkage, 0
        fresh = learner.buffer.slots.fresh.copy()
        learner.consolidate(0)
        learner.buffer.slots.fresh[:] = fresh  # nothing was trained yet
        if learner.base.shrinkage == before:
            break
    learner.consolidate(min(max(count, LEAST_STEPS), MOST_STEPS))


def _held_back(learner: EdgeLearner, samples: Samples) -> Answered:
    devices = np.array([each != OWN for each in samples.devices], bool)
    chosen = np.flatnonzero(devices & gate.is_held_back(samples.numbers))
    found: list[str] = []
    for at in range(0, len(chosen), BLOCK):
        rows = chosen[at : at + BLOCK]
        embedded = embed(with_views(samples.features[rows], learner.config.views), learner.space.zero_point)
        classes = places([samples.labels[i] for i in rows], learner.labels)
        scores = learner.base.hold_out(embedded, classes).scores[:, 0] / learner.calibration.temperature
        scores = scores + learner.gate * learner.training.outputs(embedded[:, 0])
        found += [learner.labels[i] for i in scores.argmax(axis=1)]
    return Answered(
        tuple(samples.devices[i] for i in chosen),
        tuple(int(samples.numbers[i]) for i in chosen),
        tuple(samples.labels[i] for i in chosen),
        tuple(found),
    )
