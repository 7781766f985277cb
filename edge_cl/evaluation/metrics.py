"""Decides what a run is worth, from the accuracies it reached.

The matrix R (T, T) holds in R[i, j] the accuracy after task i on the test samples of task j; NaN where there
are none, or where their classes are not taught yet.
"""

from collections.abc import Sequence
from typing import NamedTuple

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


def forward_transfer(matrix: Matrix, baseline: Sequence[float] | NDArray[np.float64]) -> float:
    """Return what earlier tasks did for later ones: mean over j > 1 of R[j - 1, j] - b[j].

    Lopez-Paz and Ranzato, Gradient Episodic Memory, 2017, equation 4; `baseline` (T,) is the accuracy of the
    untrained network on each task. NaN entries of either do not count; 0 where there is one task.
    """
    if len(baseline) != len(matrix):
        raise ValueError(f"{len(baseline)} baselines for {len(matrix)} tasks")
    gains = [matrix[j - 1, j] - baseline[j] for j in range(1, len(matrix))]
    return _mean([gain for gain in gains if not np.isnan(gain)])


def calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15
) -> float:
    """Return how far confidence is from accuracy: the mean gap over bins, weighted by their samples.

    Expected calibration error: Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3, with
    `bins` of equal width (15 there). Probabilities (N, C) in [0, 1], true classes (N,). NaN of nothing, and
    where a probability is NaN: a network that answers so is not calibrated.
    """
    if len(probabilities) != len(labels):
        raise ValueError(f"{len(probabilities)} answers for {len(labels)} questions")
    if not len(labels) or np.isnan(probabilities).any():
        return float("nan")
    found = reliability(probabilities, labels, bins)
    gaps = np.abs(found.accuracy - found.confidence) * found.answers
    return float(gaps.sum() / len(labels))


class Reliability(NamedTuple):
    """Answers by confidence, bins without answers left out: means (M,) of both, how many (M,) there are."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    answers: NDArray[np.intp]


def reliability(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15
) -> Reliability:
    """Sort the answers (N, C) to N questions into bins of equal width by their confidence; see above."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.intp)  # bin m is ((m-1)/M, m/M]
    count = np.bincount(places, minlength=bins)
    filled = count > 0
    sure, correct = (np.bincount(places, weights=values, minlength=bins) for values in (confidence, right))
    return Reliability(sure[filled] / count[filled], correct[filled] / count[filled], count[filled])


def _tested(matrix: Matrix) -> list[int]:
    """Return the earlier tasks that have test samples."""
    return [j for j in range(len(matrix) - 1) if not np.isnan(matrix[j, j]) and not np.isnan(matrix[-1, j])]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
