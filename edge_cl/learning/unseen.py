"""Lets a learner answer samples as if they had never been taught: what two learners are compared by.

The samples are those that no residual trains on (`gate.is_held_back`); from the base they are taken out
exactly, all at once. So neither learner is asked what it was told. Where those are too few to say anything,
all samples can be asked of the base alone, each held out by itself.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import gate, increment
from edge_cl.learning.base import Base
from edge_cl.learning.embedding import embed
from edge_cl.learning.inherited import less
from edge_cl.learning.learner import BLOCK_SAMPLES, EdgeLearner
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics
from edge_cl.memory.buffer import EMPTY


def trusted(learner: EdgeLearner) -> list[int]:
    """Return the samples in memory that were taught here and are not suspect."""
    slots = learner.buffer.slots
    return sorted(int(sample) for sample in slots.sample[(slots.sample > EMPTY) & ~slots.suspect])


def held_back(learner: EdgeLearner) -> list[int]:
    """Return those of them that are never shown to a residual."""
    samples = np.array(trusted(learner), np.int64)
    return [int(sample) for sample in samples[gate.is_held_back(samples)]]


def labels_of(learner: EdgeLearner, samples: Sequence[int]) -> list[str]:
    """Return what samples in memory were taught as."""
    slots = _slots(learner, samples)
    return [learner.labels[number] for number in learner.buffer.slots.number[slots]]


def answers(learner: EdgeLearner, samples: Sequence[int], among: Collection[str]) -> list[str]:
    """Return what the learner would answer samples in memory, by their first view, had none been taught.

    `among` are the classes that it may answer with; all of them are known to it.
    """
    if not len(samples):
        return []
    slots = _slots(learner, samples)
    rows = embed(learner.buffer.features[slots], learner.space.zero_point)
    base = _without(learner, rows, learner.buffer.slots.number[slots])
    logits = base.scores(rows[:, 0]) / learner.calibration.temperature
    if learner.gate:
        logits = logits + learner.gate * learner.training.outputs(rows[:, 0])
    return _named(learner, logits, among)


def answers_of_base(learner: EdgeLearner, samples: Sequence[int], among: Collection[str]) -> list[str]:
    """Return what the base would answer samples in memory, by their first view, each held out by itself."""
    slots, found = _slots(learner, samples), []
    for start in range(0, len(slots), BLOCK_SAMPLES):
        chosen = slots[start : start + BLOCK_SAMPLES]
        rows = embed(learner.buffer.features[chosen], learner.space.zero_point)
        scores = learner.base.hold_out(rows, learner.buffer.slots.number[chosen]).scores[:, 0]
        found += _named(learner, scores, among)
    return found


def _named(learner: EdgeLearner, scores: NDArray, among: Collection[str]) -> list[str]:
    numbers = increment.places(tuple(among), learner.labels)
    return [learner.labels[number] for number in numbers[scores[:, numbers].argmax(axis=1)]]


def _slots(learner: EdgeLearner, samples: Collection[int]) -> NDArray[np.intp]:
    slot_of = {int(s): i for i, s in enumerate(learner.buffer.slots.sample) if s != EMPTY}
    return np.array([slot_of[sample] for sample in samples], np.intp)


def _without(learner: EdgeLearner, rows: NDArray, numbers: NDArray) -> Base:
    """Return the learner's base without samples, (n, V, D) embeddings of classes (n,)."""
    flat, weight = rows.reshape(-1, rows.shape[-1]), SAMPLE_WEIGHT // rows.shape[1]
    counts, sums = np.zeros(len(learner.labels), np.int64), np.zeros((len(learner.labels), rows.shape[-1]))
    np.add.at(counts, numbers, SAMPLE_WEIGHT)
    np.add.at(sums, numbers, weight * rows.sum(axis=1))
    taught = Statistics(counts, sums, weight * (flat.T @ flat), 0)
    base = Base(rows.shape[-1])
    rest = increment.lifted(less(learner.base.statistics, taught))
    base.restore(*rest, learner.base.shrinkage, learner.base.ridge, learner.base.refreshed_weight)
    return base
