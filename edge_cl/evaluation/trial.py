"""Teaches a learner through a plan, once, and measures it after each task; the clock is handed in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_cl.evaluation.metrics import accuracy
from edge_cl.evaluation.protocols import Plan, Samples

# Samples taught between two consolidations: what the device's agent does too.
UPDATE_SIZE = 64


class Learner(Protocol):
    """What a trial needs of a learner."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes taught so far."""

    def learn_many(
        self, features: NDArray[Any], labels: Sequence[str], samples: Sequence[int] | None = None
    ) -> Any:
        """Teach (B, V, D) features."""

    def consolidate(self, steps: int | None = None) -> Any:
        """Work on what was taught."""

    def scores_many(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return (B, C) scores in order of `labels`."""


@dataclass(frozen=True)
class TrialConfig:
    """How a learner is taught and asked.

    Attributes:
        views: of each training sample that are taught.
        predict_views: of each test sample that are averaged.
        update_size: samples between two consolidations.
        steps_per_update: SGD steps of a consolidation; None for the learner's own.
    """

    views: int = 4
    predict_views: int = 1
    update_size: int = UPDATE_SIZE
    steps_per_update: int | None = None


class Trial(NamedTuple):
    """What came of it.

    Attributes:
        matrix: (T, T) accuracy after task i on the test samples of task j; NaN where there is none.
        accuracy_per_task: after each task, over the test samples of all classes seen so far.
        final_by_views: final accuracy with the first 1, 2, ... views averaged.
        base_final: final accuracy of the part that `alone` scores, None without one.
        learn_ms: for each update, the time of teaching divided by its samples.
        consolidate_ms: of each consolidation.
        answer_ms: of all answers together; a learner that trains when asked spends it here.
        updates: the training samples (n,) of each update; sample ids count from 1 in this order.
    """

    matrix: NDArray[np.float64]
    accuracy_per_task: tuple[float, ...]
    final_by_views: dict[int, float]
    base_final: float | None
    learn_ms: tuple[float, ...]
    consolidate_ms: tuple[float, ...]
    answer_ms: float
    updates: tuple[NDArray[np.intp], ...]


Scorer = Callable[[NDArray[Any]], NDArray[np.float64]]
Watch = Callable[[int, str], None]  # samples taught so far, a few words


class Stopwatch:
    """Adds up milliseconds of calls, by the clock it was given (in seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def time(self, call: Callable[[], Any]) -> tuple[Any, float]:
        """Return what the call returned, and how long it took in milliseconds."""
        start = self._clock()
        found = call()
        return found, 1000 * (self._clock() - start)


def run_trial(
    learner: Learner,
    plan: Plan,
    train: Samples,
    test: Samples,
    config: TrialConfig,
    clock: Callable[[], float],
    alone: Scorer | None = None,
    watch: Watch = lambda taught, words: None,
) -> Trial:
    """Teach every task's samples once, in updates, and ask about all classes seen after each task.

    Args:
        learner: changed by this.
        plan: what arrives when.
        train: its labels are taught as they stand, wrong ones too.
        test: asked about.
        config: how.
        clock: seconds, rising.
        alone: scores of a part of the learner, asked at the end.
        watch: called after every update and task.
    """
    watch_ms, course = Stopwatch(clock), _Course([], [], [], [])
    matrix = np.full((len(plan.tasks), len(plan.tasks)), np.nan)
    for number, task in enumerate(plan.tasks):
        _teach(learner, train, task, config, watch_ms, course, watch)
        matrix[number], reached = _examine(learner, plan, test, config.predict_views, watch_ms, course)
        watch(course.taught, f"task {number + 1} of {len(plan.tasks)}: accuracy {reached:.3f}")
    final, base = _final_by_views(learner, test), None
    if alone is not None:
        base = accuracy(answers(learner.labels, alone(test.features[:, : config.predict_views])), test.labels)
    return Trial(
        matrix, tuple(course.reached), final, base,
        tuple(course.learn_ms), tuple(course.consolidate_ms), course.answer_ms, tuple(course.updates),
    )  # fmt: skip


def answers(labels: tuple[str, ...], scores: NDArray[np.float64]) -> list[str]:
    """Return the best label of each row of scores (B, C)."""
    return [labels[number] for number in scores.argmax(axis=1)]


@dataclass
class _Course:
    """What is noted on the way."""

    learn_ms: list[float]
    consolidate_ms: list[float]
    reached: list[float]
    updates: list[NDArray[np.intp]]
    answer_ms: float = 0.0
    taught: int = 0


def _teach(
    learner: Learner,
    train: Samples,
    task: NDArray[np.intp],
    config: TrialConfig,
    stopwatch: Stopwatch,
    course: _Course,
    watch: Watch,
) -> None:
    """Teach one task's samples in updates, each consolidated."""
    for begin in range(0, len(task), config.update_size):
        update = task[begin : begin + config.update_size]
        features = train.features[update, : config.views]
        labels = [train.labels[i] for i in update]
        ids = range(course.taught + 1, course.taught + len(update) + 1)
        _, learn_ms = stopwatch.time(lambda f=features, n=labels, s=ids: learner.learn_many(f, n, s))  # type: ignore[misc]
        _, consolidate_ms = stopwatch.time(lambda: learner.consolidate(config.steps_per_update))
        course.learn_ms.append(learn_ms / len(update))
        course.consolidate_ms.append(consolidate_ms)
        course.updates.append(update)
        course.taught += len(update)
        watch(course.taught, f"{len(learner.labels)} classes")


def _examine(
    learner: Learner, plan: Plan, test: Samples, views: int, stopwatch: Stopwatch, course: _Course
) -> tuple[NDArray[np.float64], float]:
    """Ask about the test samples of all classes taught so far: (T,) accuracy of each task, and of all."""
    known = set(learner.labels)
    asked = np.array([i for i, label in enumerate(test.labels) if label in known], dtype=np.intp)
    scores, answer_ms = stopwatch.time(lambda: learner.scores_many(test.features[asked, :views]))
    found, truth = np.array(answers(learner.labels, scores)), np.array([test.labels[i] for i in asked])
    course.answer_ms += answer_ms
    course.reached.append(float(np.mean(found == truth)))
    row = np.full(len(plan.tasks), np.nan)
    for task in np.unique(plan.groups[asked]):
        row[task] = np.mean((found == truth)[plan.groups[asked] == task])
    return row, course.reached[-1]


def _final_by_views(learner: Learner, test: Samples) -> dict[int, float]:
    found = {}
    for views in range(1, test.features.shape[1] + 1):
        scores = learner.scores_many(test.features[:, :views])
        found[views] = accuracy(answers(learner.labels, scores), test.labels)
    return found
