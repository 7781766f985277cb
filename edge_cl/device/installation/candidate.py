"""Makes the learner that would go on under a release, of what runs here and what the release brings."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.device.agent import Agent
from edge_cl.device.installation import released
from edge_cl.device.installation.released import Release
from edge_cl.errors import ReleaseError
from edge_cl.learning import head, named
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.learning.succession import Exemplars, succeed, taught_again
from edge_cl.memory.buffer import EMPTY
from edge_cl.sample import FeatureSpace, label_key
from edge_cl.wire import bundle as bundles

Told = Callable[[str], Named | None]  # the statistics that were told up to a content, by its id


class Candidate(NamedTuple):
    """A learner that may go on, and the newest statistics told that it has inherited; None: none of them."""

    learner: EdgeLearner
    taken: str | None


def make(
    folder: Path, agent: Agent, release: Release, space: FeatureSpace, taken: str | None, told: Told
) -> Candidate:
    """Make the learner that goes on under a release where the agent's stands, and let it rehearse once.

    Args:
        folder: the state folder.
        agent: what runs; features of another space were kept before (`reembedding`).
        release: staged.
        space: of the release's backbone on this board.
        taken: the newest statistics of this device that the release's head has.
        told: what was told up to some statistics.

    Raises:
        ReleaseError: something that was taught here would be lost.
        EdgeError: the head cannot be used.
    """
    bundle = released.read_bundle(folder, release)
    tensors = bundles.head(bundle)
    parent = released.head_statistics(folder, head.parent_of(tensors))
    config, manifest = agent.learner.config, release.manifest
    new = head.to_learner(space, config, manifest.labels, tensors, parent)
    if space.id == agent.space.id:
        own = Named(agent.learner.labels, agent.learner.own_statistics())
        has, kept = _taken(space.size, taken, told), memory(agent.learner)
    else:
        kept, taken = agent.store.other_features(taught_here(agent.learner)), None
        _check_can_be_taught_again(agent.learner, manifest, kept)
        own = taught_again(agent.learner, kept, space.size, space.zero_point)
        has = named.nothing(space.size)
    found = bundles.exemplars(bundle)
    lent = Exemplars(np.zeros((0, 1, space.size), space.dtype), np.zeros(0, np.int32))
    lent = lent if found is None else Exemplars(found.features, found.numbers)
    learner = succeed(agent.learner, new, own, has, kept, lent)
    learner.consolidate()
    return Candidate(learner, taken)


def taught_here(learner: EdgeLearner) -> list[int]:
    """Return the samples in memory that were taught here."""
    return sorted(int(sample) for sample in learner.buffer.slots.sample if sample > EMPTY)


def memory(learner: EdgeLearner) -> dict[int, NDArray]:
    """Return {sample: (V, D) features} of the samples in memory that were taught here."""
    slots = learner.buffer.slots.sample
    return {int(slots[slot]): learner.buffer.features[slot] for slot in np.flatnonzero(slots > EMPTY)}


def retaught(old: EdgeLearner, learner: EdgeLearner, kept: Iterable[int]) -> dict[str, dict[str, int]]:
    """Return of each class that was taught here what stands for its samples in another feature space.

    `pictures`: samples whose kept picture was seen again. `without`: those in memory that had none.
    `exemplars`: samples of the release that stand in.
    """
    seen, slots = set(kept), old.buffer.slots
    pictures, without = Counter[str](), Counter[str]()
    for slot in np.flatnonzero(slots.sample > EMPTY):
        label = old.labels[slots.number[slot]]
        (pictures if int(slots.sample[slot]) in seen else without)[label] += 1
    mine = learner.buffer.slots
    lent = Counter(learner.labels[number] for number in mine.number[mine.sample < EMPTY])
    return {
        label: {"pictures": pictures[label], "without": without[label], "exemplars": lent[label]}
        for label in old.labels
        if pictures[label] or without[label]
    }


def _taken(size: int, taken: str | None, told: Told) -> Named:
    """Return what the release's head has of what was taught here."""
    if taken is None:
        return named.nothing(size)
    found = told(taken)
    if found is None or found.statistics.sums.shape[1] != size:
        raise ReleaseError(
            "the release has what this device does not know to have told (was it restored from a backup?):"
            " sync again"
        )
    return found


def _check_can_be_taught_again(
    old: EdgeLearner, manifest: bundles.Manifest, kept: dict[int, NDArray]
) -> None:
    """Refuse a backbone under which a class that was taught here would be unknown."""
    known = {label_key(label) for label in manifest.labels}
    slots, counts = old.buffer.slots, old.own_statistics().counts
    for number, label in enumerate(old.labels):
        mine = slots.sample[(slots.sample > EMPTY) & (slots.number == number)]
        is_taught = counts[number] >= SAMPLE_WEIGHT or len(mine) > 0
        if is_taught and label_key(label) not in known and not any(int(sample) in kept for sample in mine):
            raise ReleaseError(
                f"bundle {manifest.bundle} has a new backbone and does not know {label!r}, and no picture of"
                " it was kept here: set keep_jpeg = true in config.toml, then show it again with"
                f" `edge-cl learn --label {label} FILES`"
            )
