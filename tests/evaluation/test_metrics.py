"""The metrics against numbers worked out by hand."""

import numpy as np
import pytest

from edge_cl.evaluation.metrics import accuracy, average_accuracy, backward_transfer, forgetting

GONE = float("nan")
MATRIX = np.array([[0.9, GONE, GONE], [0.95, 0.8, GONE], [0.7, 0.85, 0.6]])


def test_accuracy_is_the_share_of_right_answers():
    assert accuracy(["mug", "fork", "fork", "mug"], ["mug", "mug", "fork", "mug"]) == 0.75


def test_accuracy_refuses_answers_that_do_not_match_the_questions():
    with pytest.raises(ValueError, match="1 answers for 2 questions"):
        accuracy(["mug"], ["mug", "fork"])


def test_average_accuracy_is_the_mean_over_tasks():
    assert average_accuracy([0.9, 0.8, 0.7]) == pytest.approx(0.8)


def test_forgetting_counts_from_the_best_that_each_earlier_task_ever_was():
    assert forgetting(MATRIX) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.85)) / 2)


def test_backward_transfer_counts_from_when_each_earlier_task_was_learned():
    assert backward_transfer(MATRIX) == pytest.approx(((0.7 - 0.9) + (0.85 - 0.8)) / 2)


def test_one_task_forgets_nothing():
    one = np.array([[0.9]])
    assert forgetting(one) == backward_transfer(one) == 0.0


def test_tasks_without_test_samples_do_not_count():
    matrix = np.array([[0.9, GONE, GONE], [0.8, GONE, GONE], [0.7, GONE, GONE]])
    assert forgetting(matrix) == pytest.approx(0.2)
    assert backward_transfer(matrix) == pytest.approx(-0.2)
