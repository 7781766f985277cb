"""Folds the log into a learner: what a device knows is its events, one after another."""

from collections.abc import Iterable
from typing import NamedTuple

from edge_cl.learning.learner import EdgeLearner
from edge_cl.memory.store import Event, EventKind
from edge_cl.sample import label_key


class Replayed(NamedTuple):
    """What a fold over events met, besides what it made of the learner."""

    samples: int
    steps: int
    updates: int
    unconsolidated: int
    relabelled: frozenset[int]


def replay(learner: EdgeLearner, events: Iterable[Event]) -> Replayed:
    """Fold events into a learner, exactly as they happened first.

    An event about a sample or class that is not there (lost, or erased) does nothing.
    """
    samples = steps = updates = unconsolidated = 0
    relabelled: set[int] = set()
    for event in events:
        if event.kind is EventKind.TEACH:
            assert event.features is not None
            learner.learn_one(event.features, event.label, event.sample)
            samples, unconsolidated = samples + 1, unconsolidated + 1
        elif event.kind is EventKind.CONSOLIDATE:
            learner.consolidate(event.amount)
            steps, updates, unconsolidated = steps + event.amount, updates + 1, 0
        elif event.kind is EventKind.RELABEL:
            learner.relabel(event.sample, event.label)
            relabelled |= {event.sample} if not event.source else set()
        elif event.kind is EventKind.FORGET_SAMPLE:
            learner.forget_sample(event.sample)
        elif event.kind is EventKind.FORGET_CLASS and spelling(learner, event.label) in learner.labels:
            learner.forget_label(event.label)
        elif event.kind is EventKind.RENAME and spelling(learner, event.label) in learner.labels:
            learner.rename_label(event.label, event.source)
        elif event.kind is EventKind.REFRESH:
            learner.settle()
    return Replayed(samples, steps, updates, unconsolidated, frozenset(relabelled))


def spelling(learner: EdgeLearner, label: str) -> str:
    """Return a label as its class is spelled here; as it is, where there is no such class."""
    key = label_key(label)
    return next((name for name in learner.labels if label_key(name) == key), label)
