"""A device's side of what is told, in memory: exact statistics, what was told of them, and the real messages.

Small features drawn around class centres; the wire, its codec and `learning.increment` are the real ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_cl.learning import increment
from edge_cl.learning.increment import placed, places, union
from edge_cl.learning.statistics import Statistics, empty_statistics
from edge_cl.sample import FeatureSpace
from edge_cl.wire.codec import content_id
from edge_cl.wire.messages import Features, narrowest
from edge_cl.wire.messages import Statistics as Message
from host_trainer.retraining.samples import Samples, statistics_of

SIZE = 64
SPACE = FeatureSpace("5" * 16, SIZE, "int8", 0.02, 0)
VIEWS = 2


def drawn_samples(
    labels: Sequence[str], each: int, seed: int, device: str = "", spread: float = 30.0
) -> Samples:
    """Return `each` samples of every class, around a centre that depends on the class's name only."""
    parts, names = [], []
    for label in labels:
        centre = np.random.default_rng([ord(letter) for letter in label.casefold()]).normal(0, 30, SIZE)
        rng = np.random.default_rng((seed, len(label), ord(label[0])))
        parts.append(centre + rng.normal(0, spread, (each, VIEWS, SIZE)))
        names += [label] * each
    features = np.clip(np.rint(np.concatenate(parts)), -128, 127).astype(np.int8)
    return Samples(features, tuple(names), (device,) * len(names), np.arange(1, len(names) + 1))


class Device:
    """Keeps what it told, and tells what it learned since; `tell` takes all that it was ever taught."""

    def __init__(self, name: str, rank: int = 8, space: FeatureSpace = SPACE) -> None:
        self.name, self.rank, self.space = name, rank, space
        self.labels: tuple[str, ...] = ()
        self.told = empty_statistics(space.size)
        self.last: str | None = None
        self.number = self.registry = 0

    def tell(self, samples: Samples) -> Message:
        """Return the message that tells what the samples are more than what was told."""
        labels = union(self.labels, tuple(dict.fromkeys(samples.labels)))
        self.told = placed(self.told, places(self.labels, labels), len(labels))
        self.labels = labels
        return self.message(statistics_of(samples, labels, self.space.zero_point), labels, self.told)

    def message(self, now: Statistics, labels: Sequence[str], told: Statistics) -> Message:
        """Return the message from `told` to `now`, and keep what is told then."""
        grown = increment.compress(now, told, self.rank)
        changed = (grown.counts != 0) | grown.sums.any(axis=1)
        sums = grown.sums[changed]
        message = Message(
            *(self.name, self.number, self.last, self.space.id, self.registry),
            tuple(label for label, is_new in zip(labels, changed, strict=True) if is_new),
            *(grown.counts[changed], sums.astype(narrowest(sums)), grown.residue),
            *(grown.factors, grown.weights, grown.spread, grown.unit, 0, np.zeros(0, np.int64)),
        )
        self.told = increment.advance(told, grown)
        self.number, self.last = self.number + 1, content_id(message)
        return message

    def follow(self, names: Mapping[str, str], version: int) -> None:
        """Call classes as a later version of the registry does."""
        named = [names.get(label, label) for label in self.labels]
        labels = tuple(dict.fromkeys(named))
        self.told = placed(self.told, places(named, labels), len(labels))
        self.labels, self.registry = labels, version

    def told_on(self, labels: Sequence[str]) -> Statistics:
        """Return what was told, on another order of classes."""
        return placed(self.told, places(self.labels, labels), len(labels))

    def features(self, samples: Samples) -> Features:
        """Return samples as the message that carries their features."""
        labels = tuple(dict.fromkeys(samples.labels))
        numbers = np.array([labels.index(label) for label in samples.labels], np.int32)
        return Features(
            *(self.name, self.space.id, self.registry, labels, samples.numbers, numbers, samples.features)
        )
