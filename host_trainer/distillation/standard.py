"""Decides how a teacher's feature becomes a target: as the device's learner sees it, all values equally loud.

phi(z) = signed square root, then length 1 (`edge_cl.learning.embedding`); then each value is centred and
divided by its deviation over the pictures. Without that a few loud values would be all that is learned, and
the quiet ones are what tells classes apart.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT, embed

FLOOR = 1e-3  # of a deviation, a fortieth of the usual: values that never change stay near zero
CHUNK = 4096  # rows worked on at once


class Standard(NamedTuple):
    """Mean and deviation of embedded teacher features, (D,) float32 each."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def targets(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return (B, D) teacher features as targets of mean 0 and deviation 1."""
        return (embedded(features) - self.mean) / (self.deviation + np.float32(FLOOR))


def embedded(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return phi of (B, D) features, by the learner's own rule; zeros stay zeros."""
    return (embed(features, 0) / UNIT).astype(np.float32)


def standardise(answers: NDArray[np.floating]) -> Standard:
    """Return mean and deviation over all views of one collection, (N, V, D); two passes, in chunks.

    Each collection has its own: what sets two collections apart is easily seen and teaches nothing.
    """
    rows = answers.reshape(-1, answers.shape[-1])
    chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
    mean = sum(embedded(chunk).sum(axis=0, dtype=np.float64) for chunk in chunks) / len(rows)
    spread = sum(np.square(embedded(chunk) - mean).sum(axis=0, dtype=np.float64) for chunk in chunks) / len(
        rows
    )
    return Standard(np.asarray(mean, np.float32), np.sqrt(spread).astype(np.float32))


def standardised(answers: NDArray[np.floating]) -> NDArray[np.float16]:
    """Return a collection's answers (N, V, D) as targets by its own standard, in chunks."""
    standard, rows = standardise(answers), answers.reshape(-1, answers.shape[-1])
    made = np.empty(rows.shape, np.float16)
    for at in range(0, len(rows), CHUNK):
        made[at : at + CHUNK] = standard.targets(rows[at : at + CHUNK])
    return made.reshape(answers.shape)
