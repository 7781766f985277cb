"""Herding picks samples whose mean is that of the class, and every beginning of its choice is a choice."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.learning.coreset import coreset, herd


def rows(count: int, seed: int, size: int = 8) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).normal(0, 1000, (count, size)))


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 30), wanted=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_choice_names_each_sample_once_and_begins_with_every_smaller_choice(count, wanted, seed):
    shown = rows(count, seed)
    chosen = herd(shown, wanted)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, wanted)
    assert np.array_equal(herd(shown, wanted // 2), chosen[: wanted // 2])


def test_the_first_is_the_one_nearest_to_the_mean():
    shown = rows(40, 3)
    nearest = np.linalg.norm(shown - shown.mean(axis=0), axis=1).argmin()
    assert herd(shown, 5)[0] == nearest


def test_each_next_one_brings_the_mean_nearest():
    shown = rows(25, 1)
    chosen = herd(shown, 6).tolist()
    for size in range(1, 6):
        others = [i for i in range(25) if i not in chosen[:size]]
        misses = [
            np.linalg.norm(shown[[*chosen[:size], i]].mean(axis=0) - shown.mean(axis=0)) for i in others
        ]
        assert others[int(np.argmin(misses))] == chosen[size]


def test_the_mean_is_met_better_than_by_chance():
    shown = rows(200, 5)
    mean = shown.mean(axis=0)
    rng = np.random.default_rng(0)
    drawn = [np.linalg.norm(shown[rng.permutation(200)[:20]].mean(axis=0) - mean) for _ in range(50)]
    assert np.linalg.norm(shown[herd(shown, 20)].mean(axis=0) - mean) < 0.5 * min(drawn)


def test_twins_are_both_chosen_and_nothing_is_changed():
    shown = np.ones((3, 4))
    before = shown.copy()
    assert sorted(herd(shown, 3)) == [0, 1, 2]
    assert np.array_equal(shown, before)


def test_every_class_has_its_share():
    numbers = np.array([2, 0, 2, 2, 0, 5])
    chosen = coreset(rows(6, 0), numbers, 2)
    assert numbers[chosen].tolist() == [0, 0, 2, 2, 5]
    assert len(coreset(rows(0, 0), numbers[:0], 2)) == 0
