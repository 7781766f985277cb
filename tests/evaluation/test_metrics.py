"""The metrics against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.evaluation.metrics import (
    accuracy,
    average_accuracy,
    backward_transfer,
    calibration_error,
    forgetting,
    forward_transfer,
)

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


def test_forward_transfer_counts_from_the_untrained_network():
    matrix = np.array([[0.9, 0.5, 0.1], [0.8, 0.9, 0.4], [0.7, 0.8, 0.9]])
    assert forward_transfer(matrix, [0.1, 0.2, 0.3]) == pytest.approx(((0.5 - 0.2) + (0.4 - 0.3)) / 2)


def test_forward_transfer_leaves_out_what_was_not_measured():
    matrix = np.array([[0.9, GONE, 0.1], [0.8, 0.9, 0.4], [0.7, 0.8, 0.9]])
    assert forward_transfer(matrix, [0.1, 0.2, 0.3]) == pytest.approx(0.4 - 0.3)
    assert forward_transfer(MATRIX, [0.1, 0.2, 0.3]) == forward_transfer(np.array([[0.9]]), [0.5]) == 0.0


def test_forward_transfer_wants_a_baseline_of_every_task():
    with pytest.raises(ValueError, match="2 baselines for 3 tasks"):
        forward_transfer(MATRIX, [0.1, 0.2])


def test_calibration_error_is_the_gap_between_confidence_and_accuracy_bin_by_bin():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.38, 0.62]])
    labels = np.array([0, 1, 1, 1])  # bin of 0.9: half right; bin of 0.6 and 0.62: all right
    gaps = (2 * abs(0.5 - 0.9) + 2 * abs(1 - 0.61)) / 4
    assert calibration_error(probabilities, labels, bins=5) == pytest.approx(gaps)


def test_confidence_on_the_border_of_a_bin_belongs_to_the_lower_one():
    probabilities = np.array([[0.5, 0.5], [0.8, 0.2]])
    assert calibration_error(probabilities, np.array([1, 0]), bins=2) == pytest.approx((0.5 + 0.2) / 2)


def test_what_is_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    sure = np.eye(3, dtype=np.float32)
    assert calibration_error(sure, np.array([0, 1, 2])) == 0.0
    assert calibration_error(sure, np.array([1, 2, 0])) == 1.0


def test_calibration_error_of_nothing_or_of_no_numbers_is_no_number():
    assert np.isnan(calibration_error(np.zeros((0, 3)), np.zeros(0, int)))
    assert np.isnan(calibration_error(np.array([[GONE, 0.5]]), np.array([1])))
    with pytest.raises(ValueError, match="1 answers for 2 questions"):
        calibration_error(np.array([[0.5, 0.5]]), np.array([1, 0]))


@given(st.integers(0, 2**31), st.integers(1, 50), st.integers(2, 6), st.integers(1, 20))
def test_calibration_error_is_a_fraction_that_does_not_depend_on_order(seed, count, classes, bins):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.ones(classes), count), rng.integers(0, classes, count)
    error, order = calibration_error(probabilities, labels, bins), rng.permutation(count)
    assert 0 <= error <= 1
    assert calibration_error(probabilities[order], labels[order], bins) == pytest.approx(error)


def test_tasks_without_test_samples_do_not_count():
    matrix = np.array([[0.9, GONE, GONE], [0.8, GONE, GONE], [0.7, GONE, GONE]])
    assert forgetting(matrix) == pytest.approx(0.2)
    assert backward_transfer(matrix) == pytest.approx(-0.2)
