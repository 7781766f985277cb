"""Scores weights by what their removal would cost: magnitude, or the second derivative of the loss.

Pure functions on arrays. Source: LeCun, Denker and Solla, Optimal Brain Damage, NIPS 1989 (printed 1990).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Curvature(NamedTuple):
    """A running estimate of the diagonal of the loss' second derivative.

    Attributes:
        squares: sum over batches of the squared batch gradient, float64, the weights' shape.
        batches: how many.
        batch: samples in each.
    """

    squares: NDArray[np.float64]
    batches: int
    batch: int


def magnitude(weights: NDArray) -> NDArray:
    """Score weights by |w|."""
    return np.abs(weights)


def obd(weights: NDArray, curvature: NDArray) -> NDArray:
    """Score weights by h_kk w_k^2 / 2, the loss' rise when weight k becomes zero (OBD eq. 5).

    Holds at a minimum, with the off-diagonal and higher terms left out.
    """
    return curvature * np.square(weights) / 2


def init_curvature(shape: tuple[int, ...], batch: int) -> Curvature:
    """Return the estimate before the first batch."""
    return Curvature(np.zeros(shape), 0, batch)


def update_curvature(state: Curvature, gradient: NDArray) -> Curvature:
    """Take in the gradient of one batch's mean loss."""
    squares = state.squares + np.square(gradient, dtype=np.float64)
    return state._replace(squares=squares, batches=state.batches + 1)


def curvature_of(state: Curvature) -> NDArray[np.float64]:
    """Return the estimate: batch * mean over batches of the squared batch gradient.

    At a minimum the samples' gradients have mean zero and are independent, so the square of their mean over
    a batch of B is a B-th of the mean square (the Fisher information). Where the labels are drawn from the
    network's own prediction, that is the Gauss-Newton matrix of the cross-entropy; with the true labels it
    is the empirical Fisher, which tends to it as the network learns.

    Raises:
        ValueError: no batch was taken in.
    """
    if not state.batches:
        raise ValueError("curvature_of needs a batch")
    return state.batch * state.squares / state.batches
