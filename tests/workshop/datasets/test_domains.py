"""Domains change pictures in a way that is fixed by task and seed, and lose nothing that they need not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_trainer.datasets.domains import permuted, rotated, turn_of

SEEDS = st.integers(0, 2**31)


def pictures(seed: int, count: int = 3, height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@given(st.integers(0, 100), SEEDS)
def test_a_turn_is_at_most_half_a_circle_and_always_the_same(task: int, seed: int) -> None:
    assert 0 <= turn_of(task, seed) < 180
    assert turn_of(task, seed) == turn_of(task, seed)
    assert turn_of(task, seed) != turn_of(task + 1, seed)


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_are_exact_and_against_the_clock(quarters: int) -> None:
    values = pictures(0)
    assert np.array_equal(rotated(values, 90 * quarters), np.rot90(values, quarters, axes=(1, 2)))


def test_corners_that_nothing_turns_into_are_black() -> None:
    white = np.full((2, 28, 28, 3), 255, np.uint8)
    turned = rotated(white, 45.0)
    assert not turned[:, 0, 0].any()
    assert (turned[:, 14, 14] == 255).all()


@given(st.integers(0, 50), SEEDS, st.integers(1, 4), st.integers(2, 9), st.integers(2, 9))
def test_a_permutation_moves_whole_pixels_of_all_pictures_alike(
    task: int, seed: int, count: int, height: int, width: int
) -> None:
    values = pictures(seed, count, height, width)
    moved = permuted(values, task, seed)
    assert moved.shape == values.shape
    before, after = (array.reshape(count, -1, 3) for array in (values, moved))
    place = permuted(np.arange(height * width).reshape(1, height, width, 1), task, seed).ravel()
    assert sorted(place) == list(range(height * width))
    assert np.array_equal(after, before[:, place])


def test_pictures_are_changed_the_same_in_any_company() -> None:
    values = pictures(5)
    assert np.array_equal(permuted(values, 2, 7)[1:2], permuted(values[1:2], 2, 7))
    assert np.array_equal(rotated(values, 33.0)[1:2], rotated(values[1:2], 33.0))
