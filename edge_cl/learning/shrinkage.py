"""Shrinkages that a base may use, and what held-out answers would be at each."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import strips
from edge_cl.learning.embedding import UNIT
from edge_cl.learning.held_out import NO_SCORE, HeldOut, InnerProducts, hold_out

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.9)  # candidates; the best differs by data
FIRST_SHRINKAGE = 0.3  # until there are enough samples to choose


class Candidate:
    """A base at some shrinkage, as far as held-out answers need it, in single precision.

    Candidates are only compared, so of a solution this is the cheap part: the root that makes the embeddings
    white, in half the memory.

    Args:
        scatter: (D, D) within-class scatter, in real units; left as it is.
        means: (C, D) of the classes, in real units.
        counts: (C,) weight of each class.
        weight: of all statistics.
        shrinkage: e.
        ridge: what is added to the diagonal of (1 - e) times the scatter.
    """

    def __init__(
        self, scatter: Singles, means: Floats, counts: NDArray, weight: int, shrinkage: float, ridge: float
    ) -> None:
        self.counts, self.weight, self.shrinkage = counts, weight, shrinkage
        root = scatter * np.float32(1.0 - shrinkage)
        root[np.diag_indices(len(root))] += np.float32(ridge)
        strips.to_inverse_root(root)
        self.root = root
        self.means = strips.whitened(means.astype(np.float32), root).astype(np.float64)

    def hold_out(self, rows: Floats, classes: NDArray) -> HeldOut:
        """Answer for taught samples as if each had never been taught.

        Args:
            rows: (n, V, D) embeddings.
            classes: (n,) the class each was taught as.
        """
        white = self._white(rows)
        products = InnerProducts(
            (white @ white.transpose(0, 2, 1)).astype(np.float64),
            white @ self.means.T,
            self.means @ self.means.T,
        )
        return hold_out(products, classes, self.counts, self.weight, self.shrinkage)

    def scores(self, rows: Floats) -> Floats:
        """Return the (..., C) log posteriors, up to a constant, of (..., D) embeddings."""
        lengths = np.einsum("cd,cd->c", self.means, self.means)
        found = self.weight * (self._white(rows) @ self.means.T - 0.5 * lengths)
        found[..., self.counts == 0] = NO_SCORE
        return found

    def _white(self, rows: Floats) -> Singles:
        flat = (rows.reshape(-1, rows.shape[-1]) / UNIT).astype(np.float32)
        return strips.whitened(flat, self.root).reshape(rows.shape)


def step_downhill(start: int, count: int, loss_at: Callable[[int], float]) -> int:
    """Return the first neighbour of `start` in range(count) at which `loss_at` is lower, else `start`."""
    loss = loss_at(start)
    neighbours = (index for index in (start - 1, start + 1) if 0 <= index < count)
    return next((index for index in neighbours if loss_at(index) < loss), start)
