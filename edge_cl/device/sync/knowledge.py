"""Reads what a learner could tell: its statistics by name, its samples at hand, and how it fares."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.device.agent import Agent
from edge_cl.device.sync.parcels import Held
from edge_cl.learning.embedding import embed
from edge_cl.learning.named import Named
from edge_cl.memory.store import MAX_REMEMBERED
from edge_cl.sample import FeatureSpace

PER_MILLE = 1000


class Knowledge(NamedTuple):
    """What a learner could tell at one moment.

    Attributes:
        space: of its features.
        own: all that was taught here, whatever the bundle in use has of it already.
        held: samples at hand that were taught here and count.
        labels: of every sample that is remembered, {number: label}.
        live: returns {label: (n, V, D) embeddings} of those of `held` that are in memory.
        features: returns {number: (V, D) features} of some of `held`.
        picture: returns the kept picture of a sample, None when none is.
        samples: taught so far.
        suspects: set aside.
        accuracy: before learning, per mille; None before there is one.
    """

    space: FeatureSpace
    own: Named
    held: tuple[Held, ...]
    labels: Mapping[int, str]
    live: Callable[[], dict[str, NDArray[np.float64]]]
    features: Callable[[Iterable[int]], dict[int, NDArray]]
    picture: Callable[[int], bytes | None]
    samples: int
    suspects: int
    accuracy: int | None


def knowledge(agent: Agent) -> Knowledge:
    """Read an agent; it must stay open while the answer is used."""
    learner = agent.learner
    # Nobody changes a learner that is only read: a (D, D) matrix less where nothing was inherited.
    found = learner.base.statistics if learner.inherited is None else learner.own_statistics()
    own = Named(learner.labels, found)
    samples, accuracy = progress(agent)
    return Knowledge(
        agent.space,
        own,
        _held(agent),
        {shown.sample: shown.label for shown in agent.samples()},
        lambda: _live(agent),
        agent.store.features,
        agent.store.jpeg,
        samples,
        len(learner.suspects()),
        None if accuracy < 0 else accuracy,
    )


def progress(agent: Agent) -> tuple[int, int]:
    """Return the samples taught so far, and the accuracy before learning, per mille, -1 for unknown."""
    found = agent.learner.progress
    right, seen = float(found.right.sum()), float(found.seen.sum())
    return int(found.taught.sum()), round(PER_MILLE * right / seen) if seen else -1


def forgotten_ones_aside(sent: Iterable[int], labels: Mapping[int, str]) -> dict[int, str]:
    """Return the labels, with those of samples that the log only has no room for any more.

    The log keeps MAX_REMEMBERED samples that have left the memory; older ones are not forgotten, only gone.
    """
    if len(labels) <= MAX_REMEMBERED:
        return dict(labels)
    oldest = min(labels)
    return {**{sample: "" for sample in sent if sample < oldest}, **labels}


def _held(agent: Agent) -> tuple[Held, ...]:
    """Return the samples at hand that count: in memory and not set aside, or with a picture."""
    slots = agent.learner.buffer.slots
    filled = agent.learner.buffer.filled
    live = {int(slots.sample[slot]) for slot in filled if not slots.suspect[slot]}
    aside = {int(slots.sample[slot]) for slot in filled if slots.suspect[slot]}
    sizes, views = agent.store.picture_sizes(), {info.sample: info.views for info in agent.store.samples()}
    found = []
    for shown in agent.samples():
        is_live = shown.sample in live
        if shown.sample not in aside and (is_live or shown.sample in sizes):
            count = views.get(shown.sample, 0) if is_live else 0
            found.append(Held(shown.sample, shown.label, count, sizes.get(shown.sample, 0)))
    return tuple(found)


def _live(agent: Agent) -> dict[str, NDArray[np.float64]]:
    buffer, labels = agent.learner.buffer, agent.learner.labels
    chosen = [
        slot for slot in buffer.filled if buffer.slots.sample[slot] > 0 and not buffer.slots.suspect[slot]
    ]
    found: dict[str, list[int]] = {}
    for slot in chosen:
        found.setdefault(labels[buffer.slots.number[slot]], []).append(slot)
    return {label: embed(buffer.features[slots], agent.space.zero_point) for label, slots in found.items()}
