"""Data removal follows the published schedule and leaves the easiest out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.learning.removal import drop_easiest, kept_count


def test_the_published_schedule_on_10000_samples():
    assert [kept_count(10_000, 0.3, 4, stage) for stage in range(5)] == [10_000, 9250, 8500, 7750, 7000]


@given(st.integers(1, 10_000), st.floats(0, 0.99), st.integers(1, 10), st.integers(0, 30))
def test_kept_counts_fall_until_the_cutoff_and_then_stand(total, share, cutoff, stage):
    now, then = (kept_count(total, share, cutoff, s) for s in (stage, stage + 1))
    assert 0 <= then <= now <= total
    assert kept_count(total, share, cutoff, 0) == total
    if stage >= cutoff:
        assert now == then == total - round(total * share)


@st.composite
def rounds(draw):
    """Draw who is kept, everybody's mistakes, and how many may stay."""
    mistakes = np.array(draw(st.lists(st.integers(0, 4), min_size=1, max_size=60)))
    kept = np.array(draw(st.lists(st.booleans(), min_size=len(mistakes), max_size=len(mistakes))))
    return kept, mistakes, draw(st.integers(0, int(kept.sum())))


@given(rounds(), st.integers(0, 2**32))
def test_the_hardest_of_those_still_in_the_round_stay(case, seed):
    kept, mistakes, count = case
    reduced = drop_easiest(kept, mistakes, count, np.random.default_rng(seed))
    assert reduced.sum() == count
    assert not (reduced & ~kept).any()
    dropped = kept & ~reduced
    assert mistakes[reduced].min(initial=99) >= mistakes[dropped].max(initial=-1)


def test_asking_for_more_than_are_left_keeps_them_all():
    kept = np.array([True, False, True])
    assert np.array_equal(drop_easiest(kept, np.zeros(3), 3, np.random.default_rng(0)), kept)


def test_among_equals_the_lot_is_fair():
    rng, times = np.random.default_rng(0), np.zeros(10)
    for _ in range(6000):
        times += drop_easiest(np.ones(10, bool), np.zeros(10), 4, rng)
    expected = 6000 * 0.4
    # 9 degrees of freedom; draws without replacement shrink the variance, so this bound (p = 1e-4) is wide.
    assert (((times - expected) ** 2) / expected).sum() < 33.7


def test_neither_argument_is_changed():
    kept, mistakes = np.ones(5, bool), np.arange(5)
    drop_easiest(kept, mistakes, 2, np.random.default_rng(0))
    assert kept.all()
    assert mistakes.tolist() == [0, 1, 2, 3, 4]
