"""Old samples come with chance lambda, new ones with the rest, evenly among themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.learning.mixing import draw_batch

OLD, NEW = np.arange(0, 20), np.arange(100, 105)


def drawn(lam, size=20_000, seed=0, old=OLD, new=NEW):
    return draw_batch(old, new, size, lam, np.random.default_rng(seed))


@pytest.mark.parametrize("lam", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_share_of_old_samples_is_lambda(lam):
    _, is_new = drawn(lam)
    spread = np.sqrt(lam * (1 - lam) / len(is_new))
    assert abs((~is_new).mean() - lam) <= 4 * spread


@pytest.mark.parametrize("lam", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_what_is_called_new_comes_from_the_new_samples(lam):
    chosen, is_new = drawn(lam)
    assert np.isin(chosen[is_new], NEW).all()
    assert np.isin(chosen[~is_new], OLD).all()


def test_within_a_side_every_sample_has_the_same_chance():
    chosen, is_new = drawn(0.5)
    for side, names, bound in ((chosen[is_new], NEW, 23.5), (chosen[~is_new], OLD, 50.8)):  # p = 1e-4
        times = np.array([(side == name).sum() for name in names])
        expected = len(side) / len(names)
        assert ((times - expected) ** 2 / expected).sum() < bound


@given(st.floats(0, 1), st.integers(1, 64), st.integers(0, 2**32))
def test_an_empty_side_leaves_every_place_to_the_other(lam, size, seed):
    nobody = np.zeros(0, np.intp)
    chosen, is_new = drawn(lam, size, seed, old=nobody)
    assert is_new.all()
    assert np.isin(chosen, NEW).all()
    chosen, is_new = drawn(lam, size, seed, new=nobody)
    assert not is_new.any()
    assert np.isin(chosen, OLD).all()


def test_two_empty_sides_are_refused():
    nobody = np.zeros(0, np.intp)
    with pytest.raises(ValueError, match="nothing"):
        draw_batch(nobody, nobody, 4, 0.5, np.random.default_rng(0))


def test_the_same_generator_draws_the_same_batch():
    first, second = drawn(0.5, 32), drawn(0.5, 32)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert len(first[0]) == 32
