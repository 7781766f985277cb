"""The report says how well each class is known and what would help."""

import numpy as np
import pytest

from edge_cl.learning import report as module
from edge_cl.learning.progress import Progress
from edge_cl.learning.report import make_report

LABELS = ("mug", "fork", "lamp")


def of(taught, answers=(), suspects=(0, 0, 0)):
    """Return a report: samples taught a class, and (class, held-out answer) pairs."""
    progress = Progress.empty()
    for number, count in enumerate(taught):
        progress = progress.with_class()
        for _ in range(count):
            progress = progress.taught_one(number, None)
    numbers, said = (np.array([pair[side] for pair in answers], int) for side in (0, 1))
    return make_report(LABELS, progress, np.array(taught), np.array(suspects), numbers, said)


def test_nothing_is_claimed_of_a_learner_that_knows_nothing():
    empty = np.zeros(0, int)
    assert make_report((), Progress.empty(), empty, empty, empty, empty) == ([], [], None, None)


def test_leave_one_out_accuracy_counts_held_out_answers_by_class_and_over_all():
    report = of((4, 2, 1), [(0, 0), (0, 0), (0, 1), (0, 0), (1, 1), (1, 1), (2, 0)])
    assert [c.leave_one_out for c in report.classes] == [0.75, 1.0, None]  # one answer says nothing
    assert report.accuracy_leave_one_out == pytest.approx(5 / 7)


def test_the_before_you_learn_accuracy_is_that_of_the_progress():
    progress = Progress.empty().with_class().with_class().with_class()
    progress = progress.taught_one(0, 0).taught_one(0, 1).taught_one(1, 1)
    empty = np.zeros(0, int)
    report = make_report(LABELS, progress, np.zeros(3, int), np.zeros(3, int), empty, empty)
    assert report.classes[0].before_learning == pytest.approx(progress.right[0] / progress.seen[0])
    assert report.classes[2].before_learning is None
    assert report.accuracy_before_learning == pytest.approx(progress.right.sum() / progress.seen.sum())


def test_confusions_are_named_worst_first_and_bounded():
    answers = [(0, 1)] * 3 + [(2, 0)] * 5 + [(1, 1)] * 9 + [(1, 2)]
    report = of((3, 10, 5), answers)
    assert report.confusions == [("lamp", "mug", 5), ("mug", "fork", 3), ("fork", "lamp", 1)]
    everything = [(a, b) for a in range(3) for b in range(3) if a != b]
    assert len(of((9, 9, 9), everything).confusions) == module.SHOWN_CONFUSIONS


def test_a_class_is_enough_only_with_samples_and_accuracy():
    many, few = module.ENOUGH_SAMPLES, module.ENOUGH_SAMPLES - 1
    report = of((many, few, many), [(0, 0)] * 10 + [(1, 1)] * 10 + [(2, 2)] * 5 + [(2, 0)] * 5)
    assert [c.enough for c in report.classes] == [True, False, False]
    assert report.classes[0].advice == "enough"


def test_the_advice_names_what_would_help():
    few = module.FEW - 1
    report = of((few, 30, 8), [(1, 1)] * 5 + [(1, 2)] * 5, suspects=(0, 0, 0))
    assert report.classes[0].advice == "show at least 1 more"
    assert report.classes[1].advice == "show more, next to lamp"
    assert report.classes[2].advice == f"show about {max(module.ENOUGH_SAMPLES - 8, 5)} more"


def test_many_suspects_come_before_any_other_advice():
    report = of((8, 8, 8), suspects=(0, 5, 0))
    assert report.classes[1].advice == "look at its 5 suspects first"
    assert report.classes[1].suspects == 5
