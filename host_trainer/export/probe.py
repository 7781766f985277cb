"""Decides how much a set of features is worth: the accuracy of a linear classifier fitted in closed form.

Ridge regression onto the classes, in the learner's own embedding, its penalty chosen by leave-one-out on the
training pictures alone. No iterations and no draws: equal features give the equal figure.
"""

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT, embed

PENALTIES = tuple(10.0**power for power in range(-4, 3))  # of the embedding's mean variance, times N


def probe_accuracy(
    train: NDArray, train_labels: NDArray, test: NDArray, test_labels: NDArray, zero_point: int = 0
) -> float:
    """Return the fraction of test features whose class a linear probe finds; see `probe_hits`."""
    return float(probe_hits(train, train_labels, test, test_labels, zero_point).mean())


def probe_hits(
    train: NDArray, train_labels: NDArray, test: NDArray, test_labels: NDArray, zero_point: int = 0
) -> NDArray[np.bool_]:
    """Return for each test feature, (N,), whether a linear probe finds its class.

    Args:
        train, test: (N, D) features as the file stores them.
        train_labels, test_labels: (N,) class numbers.
        zero_point: stored value that stands for zero.
    """
    fitted, asked = embed(train, zero_point) / UNIT, embed(test, zero_point) / UNIT
    weights, bias = ridge(fitted, np.eye(int(train_labels.max()) + 1)[train_labels])
    found: NDArray[np.bool_] = (asked @ weights + bias).argmax(axis=1) == test_labels
    return found


def paired_loss(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the accuracy lost between two lists of hits (N,) on the same pictures, and its standard error.

    The error is that of the difference picture by picture: what both find, or both miss, does not blur it.
    """
    apart = before.astype(np.float64) - after
    error = float(apart.std(ddof=1)) / len(apart) ** 0.5 if len(apart) > 1 else 1.0
    return float(apart.mean()), error


def ridge(inputs: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return weights (D, C) and bias (C,) of the penalty whose leave-one-out error is smallest.

    With H = X (X'X + p)^-1 X', the error without sample i is e_i / (1 - H_ii - 1/N) (Allen 1974).
    """
    middle, mean = inputs.mean(axis=0), wanted.mean(axis=0)
    centred, targets = inputs - middle, wanted - mean
    left, values, right = _factors(centred)
    inner = left.T @ targets
    scale = float(np.square(values).sum()) / max(len(values), 1)

    def shrunk(penalty: float) -> NDArray[np.float64]:
        return values**2 / (values**2 + penalty * scale + 1e-12)

    def error(penalty: float) -> float:
        kept = shrunk(penalty)
        residual = targets - left @ (kept[:, None] * inner)
        leverage = np.square(left) @ kept + 1 / len(inputs)
        return float(np.square(residual / np.maximum(1 - leverage, 1e-6)[:, None]).sum())

    best = shrunk(min(PENALTIES, key=error))
    weights = right @ ((best / np.where(values > 0, values, 1.0))[:, None] * inner)
    return weights, mean - middle @ weights


def _factors(matrix: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """Return U (N, R), s (R,), V (D, R) of the singular values that are above rounding."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = values > 1e-9 * max(float(values[0]), 1e-300)
    return left[:, kept], values[kept], right[kept].T
