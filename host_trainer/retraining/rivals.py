"""Decides whether a backbone that was trained on is worth its download: it must answer no worse than a head.

Both backbones have seen the same pictures. On each a head is made of those that are taught, and both heads
are asked about pictures that no device sent. A few hundred pictures can cost a small network more than they
teach it; then the network in use goes on, with a new head, and the pictures wait for more of their kind.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.sample import FeatureSpace, label_key
from host_trainer.retraining import heads
from host_trainer.retraining.heads import HeadConfig
from host_trainer.retraining.samples import Samples, named


class Seen(NamedTuple):
    """What one backbone sees: samples that are taught, and those that are asked about, in its space."""

    space: FeatureSpace
    taught: Samples
    asked: Samples


def why_not(before: Seen, after: Seen, config: HeadConfig) -> str:
    """Say why the backbone in use stays; empty when the new one answers as many or more pictures right.

    Args:
        before: as the backbone in use sees them.
        after: as the new one does; `asked` are the same pictures, in the same order.
        config: how heads are made.
    """
    if not len(after.asked):
        return ""
    right = [int(_right(each, config).sum()) for each in (before, after)]
    if right[1] >= right[0]:
        return ""
    return (
        f"of {len(after.asked)} pictures that no device sent a head on the new backbone answers {right[1]}"
        f" right, one on the backbone in use {right[0]}"
    )


def _right(seen: Seen, config: HeadConfig) -> NDArray[np.bool_]:
    """Return which pictures (N,) a head of what is taught answers right; those of unknown classes never."""
    if not len(seen.taught):
        return np.zeros(len(seen.asked), bool)
    known, fresh = named(seen.taught, seen.space), np.ones(len(seen.taught), bool)
    learner = heads.made(seen.space, config, known, known.statistics, seen.taught, fresh).learner
    pairs = zip(heads.answers(learner, seen.asked.features), seen.asked.labels, strict=True)
    return np.array([label_key(one) == label_key(other) for one, other in pairs], bool)
