"""Says in plain numbers and words how well each class is known and what would help; pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.progress import Progress

FEW = 5  # samples below which nothing can be said
ENOUGH_SAMPLES = 15  # samples from which a good score can be believed
ENOUGH_ACCURACY = 0.9  # leave-one-out accuracy from which a class needs no more
SHOWN_CONFUSIONS = 5  # worst pairs that are listed


class ClassReport(NamedTuple):
    """How well one class is known; accuracies in [0, 1], None where nothing can be said.

    Attributes:
        label: its name.
        taught: samples taught.
        buffered: samples kept for rehearsal.
        suspects: samples set aside by the label audit.
        leave_one_out: accuracy of the base on kept samples, each held out.
        before_learning: running accuracy of answers given before the sample was learned.
        enough: whether more samples would hardly help.
        advice: what to do, in words.
    """

    label: str
    taught: int
    buffered: int
    suspects: int
    leave_one_out: float | None
    before_learning: float | None
    enough: bool
    advice: str


class Report(NamedTuple):
    """How well everything is known; confusions are (taught, answered, times), the worst first."""

    classes: list[ClassReport]
    confusions: list[tuple[str, str, int]]
    accuracy_leave_one_out: float | None
    accuracy_before_learning: float | None


def make_report(
    labels: Sequence[str],
    progress: Progress,
    buffered: NDArray,
    suspects: NDArray,
    numbers: NDArray,
    answers: NDArray,
) -> Report:
    """Put the report together.

    Args:
        labels: C names.
        progress: before-you-learn tallies.
        buffered: (C,) samples kept.
        suspects: (C,) samples set aside.
        numbers: (n,) classes of the kept samples that are trusted.
        answers: (n,) what the base says to each when it is held out.
    """
    size = len(labels)
    table = np.zeros((size, size), np.int64)  # rows: taught as, columns: answered
    np.add.at(table, (numbers, answers), 1)
    classes = [_class_report(i, labels, progress, buffered, suspects, table) for i in range(size)]
    seen = progress.seen.sum()
    return Report(
        classes,
        _confusions(labels, table),
        float(np.trace(table) / table.sum()) if table.sum() else None,
        float(progress.right.sum() / seen) if seen else None,
    )


def _class_report(
    i: int, labels: Sequence[str], progress: Progress, buffered: NDArray, suspects: NDArray, table: NDArray
) -> ClassReport:
    held_out = table[i].sum()
    accuracy = float(table[i, i] / held_out) if held_out >= 2 else None
    before = float(progress.right[i] / progress.seen[i]) if progress.seen[i] else None
    taught = int(progress.taught[i])
    enough = taught >= ENOUGH_SAMPLES and accuracy is not None and accuracy >= ENOUGH_ACCURACY
    advice = _advice(i, labels, taught, accuracy, enough, int(suspects[i]), table)
    return ClassReport(
        labels[i], taught, int(buffered[i]), int(suspects[i]), accuracy, before, enough, advice
    )


def _advice(
    i: int,
    labels: Sequence[str],
    taught: int,
    accuracy: float | None,
    enough: bool,
    suspects: int,
    table: NDArray,
) -> str:
    if enough:
        return "enough"
    if not taught:
        return "came with the release; show it here to make it better"
    if suspects > max(2, taught // 4):
        return f"look at its {suspects} suspects first"
    if taught < FEW:
        return f"show at least {FEW - taught} more"
    wrong = table[i].copy()
    wrong[i] = 0
    if accuracy is not None and accuracy < ENOUGH_ACCURACY and wrong.any():
        return f"show more, next to {labels[int(wrong.argmax())]}"
    return f"show about {max(ENOUGH_SAMPLES - taught, 5)} more"


def _confusions(labels: Sequence[str], table: NDArray) -> list[tuple[str, str, int]]:
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN_CONFUSIONS]
    pairs = [divmod(int(k), len(labels)) for k in order]
    return [(labels[a], labels[b], int(wrong[a, b])) for a, b in pairs if wrong[a, b]]
