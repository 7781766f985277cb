"""Keeps how each picture of a task fares in training, and which are still shown: the state behind DDR."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.removal import drop_easiest, kept_count

NEVER_RIGHT = 50  # added by the authors' code to a sample that was not once predicted correctly


class Attendance(NamedTuple):
    """The pictures of a task, one value each.

    Attributes:
        kept: (N,) still shown.
        mistakes: (N,) misclassifications in this stage.
        forgotten: (N,) times that right was followed by wrong in this stage (Toneva et al. 2019).
        right: (N,) right when shown last in this stage.
        ever: (N,) right at least once in this stage.
    """

    kept: NDArray[np.bool_]
    mistakes: NDArray[np.int32]
    forgotten: NDArray[np.int32]
    right: NDArray[np.bool_]
    ever: NDArray[np.bool_]


def everybody(count: int) -> Attendance:
    """Return the attendance before a task's first stage."""
    zeros, none = np.zeros(count, np.int32), np.zeros(count, bool)
    return Attendance(np.ones(count, bool), zeros, zeros.copy(), none, none.copy())


def noted(attendance: Attendance, samples: NDArray[np.intp], right: NDArray[np.bool_]) -> Attendance:
    """Return the attendance after these samples (B,), all different, were answered rightly or not (B,)."""
    mistakes, forgotten = attendance.mistakes.copy(), attendance.forgotten.copy()
    mistakes[samples] += ~right
    forgotten[samples] += attendance.right[samples] & ~right
    now, ever = attendance.right.copy(), attendance.ever.copy()
    now[samples], ever[samples] = right, ever[samples] | right
    return attendance._replace(mistakes=mistakes, forgotten=forgotten, right=now, ever=ever)


def dismissed(
    attendance: Attendance, share: float, cutoff: int, stage: int, by_events: bool, rng: np.random.Generator
) -> Attendance:
    """Return the attendance after `stage` stages: the easiest have left, and counting starts anew.

    Args:
        attendance: after a stage.
        share: rho / N, what leaves in all.
        cutoff: stages after which nobody leaves.
        stage: stages completed.
        by_events: judge by forgetting events, as the authors' code does, not by misclassifications.
        rng: decides among equals.
    """
    score = attendance.mistakes
    if by_events:
        score = attendance.forgotten + NEVER_RIGHT * ~attendance.ever
    fresh = everybody(len(score))
    if stage > cutoff:
        return fresh._replace(kept=attendance.kept)
    count = kept_count(len(score), share, cutoff, stage)
    return fresh._replace(kept=drop_easiest(attendance.kept, score, count, rng))
