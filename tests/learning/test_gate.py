"""The residual is let in only where held-back samples say that it helps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.learning import gate

CLASSES = 4
OPEN = gate.CANDIDATES.max()


def answers(count=200, views=2, seed=0):
    """Return base logits (n, V, C) that know little of the classes, and the classes (n,)."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(CLASSES, size=count)
    base = rng.normal(size=(count, views, CLASSES)) + 0.5 * np.eye(CLASSES)[numbers][:, None]
    return base, numbers


def helpful(numbers, views=2, strength=2.0):
    return strength * np.repeat(np.eye(CLASSES)[numbers][:, None], views, axis=1)


def test_the_gate_is_closed_without_evidence():
    base, numbers = answers(gate.LEAST - 1)
    assert gate.opening(base, helpful(numbers), numbers) == 0.0
    nothing = np.zeros((0, 2, CLASSES))
    assert gate.opening(nothing, nothing, np.zeros(0, int)) == 0.0


def test_the_gate_opens_when_the_residual_helps():
    base, numbers = answers()
    assert gate.opening(base, helpful(numbers), numbers) == OPEN


def test_the_gate_is_all_but_always_closed_when_the_residual_is_noise():
    opened = []
    for seed in range(60):
        base, numbers = answers(400, seed=seed)
        noise = 2.0 / OPEN * np.random.default_rng((seed, 1)).normal(size=base.shape)
        opened.append(gate.opening(base, noise, numbers))
    assert np.mean(np.array(opened) == 0.0) >= 0.95
    assert max(opened) <= gate.CANDIDATES[1]


@given(st.integers(0, 2**32))
def test_the_gate_is_closed_when_the_residual_harms_or_says_nothing(seed):
    base, numbers = answers(seed=seed)
    assert gate.opening(base, -helpful(numbers), numbers) == 0.0
    assert gate.opening(base, np.zeros_like(base), numbers) == 0.0


def test_the_gate_opens_partly_for_one_that_is_right_but_far_too_sure():
    base, numbers = answers(2000)
    rng = np.random.default_rng(5)
    said = np.where(rng.random(2000) < 0.7, numbers, rng.integers(CLASSES, size=2000))
    opened = gate.opening(base, helpful(said, strength=6.0 / OPEN), numbers)
    assert 0.0 < opened < OPEN


@given(st.integers(0, 2**32), st.floats(-3, 3))
def test_the_opening_is_always_one_of_the_candidates(seed, strength):
    base, numbers = answers(40, seed=seed)
    residual = helpful(numbers, strength=strength) + np.random.default_rng((seed, 2)).normal(size=base.shape)
    assert gate.opening(base, residual, numbers) in gate.CANDIDATES


@pytest.mark.parametrize("count", [50, 200])
def test_one_wrong_label_cannot_close_the_gate(count):
    base, numbers = answers(count)
    residual = helpful(numbers)
    residual[0] = -1e6 * helpful(numbers[:1])
    assert gate.opening(base, residual, numbers) > 0.0


def test_an_even_share_of_the_samples_is_held_back():
    held = gate.is_held_back(np.arange(gate.HELD_BACK * 100))
    assert held.sum() == 100
    assert (np.diff(np.flatnonzero(held)) == gate.HELD_BACK).all()
