"""Scores become honest probabilities, and strange pictures rank as strange."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_cl.evaluation.metrics import calibration_error
from edge_cl.learning import calibration
from edge_cl.learning.calibration import Calibration

CLASSES = 5
finite = st.floats(-1e3, 1e3)


def sampled(temperature, noise, count=4000, seed=0):
    """Return scores (n, 1, C), labels from softmax(scores / T), a share of them evenly, and who is wrong."""
    rng = np.random.default_rng(seed)
    scores = temperature * 3.0 * rng.normal(size=(count, 1, CLASSES))
    chances = np.exp(calibration.log_softmax(scores[:, 0] / temperature))
    labels = (rng.random((count, 1)) < chances.cumsum(axis=1)).argmax(axis=1)
    taught = np.where(rng.random(count) < noise, rng.integers(CLASSES, size=count), labels)
    return scores, taught, taught != labels


@given(arrays.arrays(float, (4, CLASSES), elements=finite), finite)
def test_log_softmax_sums_to_one_and_ignores_a_common_shift(logits, shift):
    found = calibration.log_softmax(logits)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0)
    np.testing.assert_allclose(calibration.log_softmax(logits + shift), found, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 16.0])
def test_a_known_temperature_is_recovered(temperature):
    scores, labels, _ = sampled(temperature, 0.0)
    found = calibration.fit(scores, labels)
    steps = np.diff(np.log(calibration.TEMPERATURES)).max()
    assert abs(np.log(found.temperature / temperature)) <= 1.5 * steps
    assert found.noise <= 0.02


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_a_known_share_of_wrong_labels_is_recovered(noise):
    scores, labels, _ = sampled(4.0, noise)
    assert abs(calibration.fit(scores, labels).noise - noise) <= 0.05


def test_wrong_labels_do_not_soften_the_probabilities():
    clean, noisy = (calibration.fit(*sampled(4.0, noise)[:2]) for noise in (0.0, 0.2))
    assert abs(np.log(noisy.temperature / clean.temperature)) < 0.35


@pytest.mark.parametrize("temperature", [2.0, 8.0, 32.0])
def test_the_expected_calibration_error_falls(temperature):
    scores, labels, _ = sampled(temperature, 0.0)
    fitted = calibration.fit(*sampled(temperature, 0.0, seed=1)[:2])
    before, after = (
        calibration_error(np.exp(calibration.log_softmax(scores[:, 0] / t)), labels, bins=10)
        for t in (1.0, fitted.temperature)
    )
    assert after < 0.03
    assert after < before


def written_out_loss(scores, labels, temperature, noise):
    """Return the mean of -log((1 - q) softmax(scores / T)[label] + q / C), views averaged first."""
    total = 0.0
    for views, label in zip(scores, labels, strict=True):
        chances = [np.exp(v / temperature)[label] / np.exp(v / temperature).sum() for v in views]
        total -= np.log((1 - noise) * np.mean(chances) + noise / len(views[0]))
    return total / len(labels)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_the_fit_is_the_likeliest_of_its_candidates(seed, views):
    rng = np.random.default_rng(seed)
    scores, labels = 8 * rng.normal(size=(12, views, CLASSES)), rng.integers(CLASSES, size=12)
    found = calibration.fit(scores, labels)
    assert written_out_loss(scores, labels, found.temperature, found.noise) == pytest.approx(found.loss)
    for temperature in calibration.TEMPERATURES[::5]:
        for noise in calibration.NOISE_RATES[::2]:
            assert written_out_loss(scores, labels, temperature, noise) >= found.loss - 1e-9


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 1.0, 8.0, 300.0]), st.floats(0, 1))
def test_looking_in_single_precision_first_misses_nothing(seed, width, wrong):
    """Wide scores that are all right make losses that differ in the last digits: a plateau."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=30)
    scores = width * rng.normal(size=(30, 2, CLASSES))
    right = rng.random(30) >= wrong
    scores[right, :, labels[right]] += 5 * width
    with pytest.MonkeyPatch.context() as patch:
        found = calibration.fit(scores, labels)
        patch.setattr(calibration, "_promising", lambda scores, classes: calibration.TEMPERATURES)
        assert found == calibration.fit(scores, labels)


def test_a_class_that_had_a_single_sample_costs_much_but_finitely():
    scores = np.array([[[-np.inf, 1.0, 0.0]], [[3.0, 1.0, 0.0]]])
    assert np.isfinite(calibration.fit(scores, np.array([0, 0])).loss)


def test_the_doubt_in_a_label_is_the_posterior_of_bayes():
    own = np.array([0.9, 0.5, 0.01, 0.0])
    found = calibration.wrong_label(Calibration(1.0, 0.2, 0.0), own, 4)
    # P(noise) P(label | noise) P(class is another | x) over P(label | x); noise may hit the class by chance
    np.testing.assert_allclose(found, 0.05 * (1 - own) / (0.8 * own + 0.05))
    assert (np.diff(found) > 0).all()
    assert found[-1] == 1.0


def test_nobody_is_doubted_who_is_certain_however_many_labels_are_noise():
    assert calibration.wrong_label(Calibration(1.0, 0.4, 0.0), np.ones(1), 2) == 0.0


def test_nobody_is_doubted_where_no_label_is_wrong():
    assert not calibration.wrong_label(Calibration(1.0, 0.0, 0.0), np.array([1.0, 0.1, 0.0]), 4).any()


def test_doubts_are_calibrated_themselves():
    scores, labels, wrong = sampled(4.0, 0.2)
    model = calibration.fit(scores, labels)
    own = np.exp(calibration.log_softmax(scores[:, 0] / model.temperature))[np.arange(len(labels)), labels]
    doubts = calibration.wrong_label(model, own, CLASSES)
    assert abs(doubts.mean() - wrong.mean()) < 0.03
    assert wrong[doubts > 0.5].mean() > 0.5
    assert wrong[doubts < 0.1].mean() < 0.1


def usual(seed=0, count=500):
    rng = np.random.default_rng(seed)
    return rng.chisquare(20, count), np.log(rng.beta(8, 1, count))


@given(st.integers(0, 99), finite, st.floats(-50, 0))
def test_familiarity_ranks_within_zero_and_one_and_falls_with_distance(seed, distance, log_probability):
    reference = calibration.fit_familiarity(*usual(seed))
    distances = distance + np.arange(20) * 5.0
    ranks = calibration.rank_familiarity(reference, distances, np.full(20, log_probability))
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert (np.diff(ranks) <= 0).all()
    doubtful = calibration.rank_familiarity(reference, distances, np.full(20, log_probability - 1.0))
    assert (doubtful <= ranks).all()


def test_usual_pictures_rank_evenly_and_far_away_ones_at_the_bottom():
    reference = calibration.fit_familiarity(*usual(0, 4000))
    ranks = calibration.rank_familiarity(reference, *usual(1, 4000))
    assert abs(ranks.mean() - 0.5) < 0.03
    assert abs((ranks < 0.05).mean() - 0.05) < 0.02
    far = calibration.rank_familiarity(reference, np.array([200.0]), np.array([-3.0]))
    assert far[0] == 0.0


def test_nothing_is_unfamiliar_before_anything_was_seen():
    reference = calibration.unfitted_familiarity()
    assert calibration.rank_familiarity(reference, np.array([1e9]), np.array([-99.0])).tolist() == [1.0]


def test_familiarity_survives_pictures_that_all_look_alike():
    reference = calibration.fit_familiarity(np.full(40, 3.0), np.full(40, -0.1))
    ranks = calibration.rank_familiarity(reference, np.array([3.0, 30.0]), np.array([-0.1, -0.1]))
    assert np.isfinite(ranks).all()
    assert ranks[1] == 0.0
