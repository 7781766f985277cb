"""Decides which classes make up which task, and which samples are held back, from names and a seed alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError


def class_tasks(classes: Sequence[str], tasks: int, seed: int = 0) -> tuple[tuple[str, ...], ...]:
    """Split class names into tasks for class-incremental learning: sorted, shuffled by the seed, cut evenly.

    The first tasks get one class more where the number does not divide. The same names give the same tasks in
    any order of arrival.

    Raises:
        ConfigError: fewer than one task, more tasks than classes, or a name that stands there twice.
    """
    names = sorted(set(classes))
    if len(names) != len(classes):
        raise ConfigError("a class stands there twice: class names must differ")
    if not 1 <= tasks <= len(names):
        raise ConfigError(f"{len(names)} classes cannot make {tasks} tasks: give 1 to {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    return tuple(tuple(names[i] for i in part) for part in np.array_split(order, tasks))


def held_back(labels: NDArray[np.integer], share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Choose samples to keep out of training: (N,) labels to (N,) bool, the same share of every class.

    At least one sample of a class is held back and one is left; a class of one sample is not divided.

    Raises:
        ConfigError: a share outside of (0, 1).
    """
    if not 0 < share < 1:
        raise ConfigError(f"{share:g} is no share to hold back: give more than 0 and less than 1")
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members) - 1, max(1, round(share * len(members))))
        drawn = np.random.default_rng((seed, int(label) + 1)).permutation(members)
        chosen[drawn[:count]] = True
    return chosen


def spread(count: int, wanted: int) -> NDArray[np.intp]:
    """Return `wanted` places spread evenly over `count` pictures, all of them where there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.intp))
