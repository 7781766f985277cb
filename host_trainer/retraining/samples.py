"""Decides how labelled features are held, of the host's own pictures and of the devices', and as which arrays
they are kept.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import snapshot
from edge_cl.learning.embedding import embed
from edge_cl.learning.increment import places
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics
from edge_cl.sample import FeatureSpace, label_key

OWN = ""  # the device of a sample that the host itself was taught


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples with V views of D features.

    Attributes:
        features: (N, V, D) as the backbone stored them.
        labels: name of each one's class.
        devices: who sent each; OWN for the host.
        numbers: (N,) its number at that device, from 1.
    """

    features: NDArray[Any]
    labels: tuple[str, ...]
    devices: tuple[str, ...]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def at(self, chosen: Sequence[int] | NDArray[Any]) -> "Samples":
        """Return those at some places, or where a mask (N,) is true."""
        found = np.asarray(chosen)
        indices = np.flatnonzero(found) if found.dtype == bool else found.astype(np.intp)
        return Samples(
            self.features[indices],
            tuple(self.labels[i] for i in indices),
            tuple(self.devices[i] for i in indices),
            self.numbers[indices],
        )

    def of(self, device: str) -> "Samples":
        """Return those of one device."""
        return self.at(np.array([each == device for each in self.devices], bool))


def nothing(space: FeatureSpace, views: int) -> Samples:
    """Return no samples of a space."""
    return Samples(np.zeros((0, views, space.size), space.dtype), (), (), np.zeros(0, np.int64))


def joined(parts: Iterable[Samples]) -> Samples:
    """Return all samples of some, at least one, in their order."""
    each = list(parts)
    return Samples(
        np.concatenate([part.features for part in each]),
        tuple(label for part in each for label in part.labels),
        tuple(device for part in each for device in part.devices),
        np.concatenate([part.numbers for part in each]),
    )


def with_views(features: NDArray[Any], views: int) -> NDArray[Any]:
    """Return (N, views, D): fewer views are repeated in turn, as a learner does it."""
    return features[:, np.arange(views) % features.shape[1]]


def statistics_of(samples: Samples, labels: Sequence[str], zero_point: int) -> Statistics:
    """Return the exact statistics of samples on C = `labels`: those of a base that was taught each once."""
    classes, (_, views, size) = places(samples.labels, labels), samples.features.shape
    counts = SAMPLE_WEIGHT * np.bincount(classes, minlength=len(labels)).astype(np.int64)
    sums, moment, weight = np.zeros((len(labels), size)), np.zeros((size, size)), SAMPLE_WEIGHT // views
    for number in range(len(labels)):  # class by class: embeddings take eight bytes a value
        rows = embed(samples.features[classes == number], zero_point).reshape(-1, size)
        sums[number] = weight * rows.sum(axis=0)
        moment += weight * (rows.T @ rows)
    return Statistics(counts, sums, moment, 0)


def classes(found: Samples) -> tuple[str, ...]:
    """Return the classes of samples, each once, in the order in which they come."""
    spelled: dict[str, str] = {}
    for label in found.labels:
        spelled.setdefault(label_key(label), label)
    return tuple(spelled.values())


def named(found: Samples, space: FeatureSpace) -> Named:
    """Return the exact statistics of samples."""
    labels = classes(found)
    return Named(labels, statistics_of(found, labels, space.zero_point))


def known_to(found: Samples, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return (N,) which samples are of one of these classes."""
    known = {label_key(label) for label in labels}
    return np.array([label_key(label) in known for label in found.labels], bool)


def to_tensors(samples: Samples) -> dict[str, NDArray[Any]]:
    """Return samples as arrays for a file."""
    return {
        "features": samples.features,
        "labels": snapshot.of_names(samples.labels),
        "devices": snapshot.of_names(samples.devices),
        "numbers": samples.numbers,
    }


def from_tensors(tensors: Mapping[str, NDArray[Any]]) -> Samples:
    """Return the samples of `to_tensors`."""
    devices = tuple(json.loads(bytes(tensors["devices"]).decode()))
    return Samples(tensors["features"], snapshot.names(tensors), devices, tensors["numbers"])
