"""Decides what a run is worth, from the accuracies it reached.

The matrix R (T, T) holds in R[i, j] the accuracy after task i on the test samples of task j; NaN where there
are none, or where their classes are not taught yet.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def accuracy(answers: Sequence[str], truth: Sequence[str]) -> float:
    """Return the share of right answers; NaN of nothing."""
    if len(answers) != len(truth):
        raise ValueError(f"{len(answers)} answers for {len(truth)} questions")
    right = sum(answer == true for answer, true in zip(answers, truth, strict=True))
    return right / len(truth) if truth else float("nan")


def average_accuracy(accuracy_per_task: Sequence[float]) -> float:
    """Return the mean over tasks of the accuracy on all classes seen by then.

    Average incremental accuracy: Rebuffi et al., iCaRL, 2017.
    """
    return float(np.mean(accuracy_per_task))


def forgetting(matrix: Matrix) -> float:
    """Return how far tasks fell from their best: mean over j < T of max over j <= l < T of R[l, j] - R[T, j].

    Chaudhry et al., Riemannian Walk for Incremental Learning, 2018, section 3.2. 0 where there is one task.
    With new classes part of it is no forgetting: more classes are harder to tell apart; compare with `joint`.
    """
    last = len(matrix) - 1
    return _mean([np.nanmax(matrix[j:last, j]) - matrix[last, j] for j in _tested(matrix)])


def backward_transfer(matrix: Matrix) -> float:
    """Return what later tasks did to earlier ones: mean over j < T of R[T, j] - R[j, j].

    Lopez-Paz and Ranzato, Gradient Episodic Memory, 2017, equation 3. 0 where there is one task.
    """
    return _mean([matrix[-1, j] - matrix[j, j] for j in _tested(matrix)])


def _tested(matrix: Matrix) -> list[int]:
    """Return the earlier tasks that have test samples."""
    return [j for j in range(len(matrix) - 1) if not np.isnan(matrix[j, j]) and not np.isnan(matrix[-1, j])]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
