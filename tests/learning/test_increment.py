"""Growth is told in few bytes, both ends know the same of it, and what is untold comes with later rounds."""

import numpy as np
import pytest
from checks.learner import SIZE, SPACE, lessons
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.learning.base import Base
from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.increment import (
    FACTOR,
    advance,
    affordable_rank,
    compress,
    fault,
    lifted,
    placed,
    places,
    raised,
    scatter_only,
    union,
    untold,
)
from edge_cl.learning.statistics import Statistics, empty_statistics, merge, within_scatter

NAMES = ("mug", "fork", "lamp")


def taught(count: int, seed: int = 0, names: tuple[str, ...] = NAMES) -> Statistics:
    """Statistics of made samples of three classes."""
    base = Base(SIZE)
    for _ in NAMES:
        base.add_class()
    if count:
        shown = lessons(count, names, seed)
        for rows, label in zip(embed(shown.features, SPACE.zero_point), shown.labels, strict=True):
            base.update(rows, NAMES.index(label))
    return base.statistics


def asked(statistics: Statistics) -> Base:
    base = Base(SIZE)
    for _ in range(len(statistics.counts)):
        base.add_class()
    base.absorb(statistics)
    base.refresh(0.2)
    return base


def nothing() -> Statistics:
    return empty_statistics(SIZE, len(NAMES))


def same(first: Statistics, second: Statistics) -> bool:
    arrays = zip(first[:3], second[:3], strict=True)
    return all(np.array_equal(a, b) for a, b in arrays) and first.residue == second.residue


def rounds(nows: list[Statistics], rank: int) -> list[Statistics]:
    """Return what the host has been told after each round."""
    told = [nothing()]
    for now in nows:
        told.append(advance(told[-1], compress(now, told[-1], rank)))
    return told[1:]


def told_once(now: Statistics, rank: int) -> Statistics:
    return rounds([now], rank)[0]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 5), rank=st.integers(0, SIZE), is_flat=st.booleans())
def test_counts_and_sums_are_told_exactly_and_everything_in_whole_numbers(count, seed, rank, is_flat):
    now = taught(count, seed)
    increment = compress(now, nothing(), rank, is_flat)
    told = advance(nothing(), increment)
    assert np.array_equal(told.counts, now.counts)
    assert np.array_equal(told.sums, now.sums)
    assert np.array_equal(told.moment, np.rint(told.moment))
    assert np.array_equal(told.moment, told.moment.T)
    assert np.abs(increment.factors.astype(int)).max(initial=0) <= FACTOR
    assert len(increment.factors) == len(increment.weights) == min(rank, SIZE)
    if count:
        assert np.trace(told.moment) == pytest.approx(np.trace(now.moment), rel=0.01)
    assert fault(told) == ""


def test_both_ends_advance_to_the_same_bits_whatever_the_order():
    increment = compress(taught(50), nothing(), 12)
    order = np.random.default_rng(0).permutation(12)
    other = increment._replace(factors=increment.factors[order], weights=increment.weights[order])
    assert same(advance(taught(9), increment), advance(taught(9), other))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 5), rank=st.integers(1, 20))
def test_what_is_untold_falls_from_round_to_round_without_new_samples(seed, rank):
    now = taught(60, seed)
    left = [untold(now, told) for told in rounds([now] * 8, rank)]
    assert all(later <= earlier * 1.01 for earlier, later in zip(left, left[1:], strict=False))
    assert left[-1] < 0.7 * left[0]


def test_many_rounds_come_to_the_exact_statistics():
    now = taught(60)
    assert untold(now, rounds([now] * 40, 16)[-1]) < 0.001


def test_more_directions_tell_more():
    now = taught(60)
    left = [untold(now, told_once(now, rank)) for rank in (0, 2, 8, 32, 64)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.2  # of the roundest of all clouds; photographs are told better


def test_samples_that_are_taken_out_are_taken_out_of_what_was_told():
    before, after = taught(60), taught(24)
    told = rounds([before, after, after, after], 32)[-1]
    assert np.array_equal(told.counts, after.counts)
    assert np.array_equal(told.sums, after.sums)
    assert fault(told) == ""
    assert untold(after, told) < 0.15


def test_what_was_told_answers_as_the_exact_statistics_do():
    now = [taught(20), taught(40), taught(60)]
    told = asked(lifted(rounds(now, 8)[-1]))
    exact = asked(now[-1])
    rows = embed(lessons(90, seed=7).features, SPACE.zero_point)[:, 0]
    assert (told.scores(rows).argmax(1) == exact.scores(rows).argmax(1)).mean() > 0.97


def test_the_growth_of_two_devices_merges_in_any_order():
    first, second = told_once(taught(30, 1), 8), told_once(taught(40, 2), 8)
    assert same(merge(first, second), merge(second, first))


def test_the_labels_of_two_devices_are_united_whatever_their_spelling():
    labels = union(("Mug", "fork"), ("FORK", "lamp", "mug"))
    assert labels == ("Mug", "fork", "lamp")
    assert places(("FORK", "lamp", "mug"), labels).tolist() == [1, 2, 0]


def test_a_class_that_one_end_does_not_know_yet_is_told_from_nothing():
    now, labels = taught(60), union(NAMES[:2], NAMES)
    known = taught(30, 0, NAMES[:2])
    told = placed(known._replace(counts=known.counts[:2], sums=known.sums[:2]), places(NAMES[:2], labels), 3)
    assert np.array_equal(advance(told, compress(now, told, 8)).sums, now.sums)


def test_classes_find_their_places_and_two_of_a_place_are_added():
    now = taught(60)
    moved = placed(now, np.array([3, 0, 3]), 5)
    assert np.array_equal(moved.counts[[0, 3]], [now.counts[1], now.counts[0] + now.counts[2]])
    assert np.array_equal(moved.sums[3], now.sums[0] + now.sums[2])
    assert not moved.counts[[1, 2, 4]].any()
    assert np.array_equal(moved.moment, now.moment)
    assert within_scatter(moved).trace() > within_scatter(now).trace()


def test_a_scatter_with_a_negative_direction_is_lifted_just_enough():
    now = taught(60)
    assert lifted(now) is now
    moment = now.moment - 3 * within_scatter(now).trace() / SIZE * UNIT * UNIT * np.eye(SIZE)
    risen = lifted(now._replace(moment=np.rint(moment)))
    lowest = np.linalg.eigvalsh(within_scatter(risen))[0]
    assert 0 <= lowest < 1e-3 * within_scatter(now).trace()
    asked(risen)


@pytest.mark.parametrize("factor", [7, 31, 127])
def test_an_increment_is_raised_until_what_it_tells_can_be_solved(factor):
    told, now = told_once(taught(60), 4), taught(24)
    raw = compress(now, told, 2, factor=factor)
    assert np.linalg.eigvalsh(within_scatter(advance(told, raw)))[0] < 0
    risen = raised(told, raw)
    assert np.linalg.eigvalsh(within_scatter(advance(told, risen)))[0] >= 0
    assert np.array_equal(risen.factors, raw.factors)
    assert raised(told, risen) is risen
    assert np.abs(raw.factors.astype(int)).max() == factor


def test_a_scatter_alone_grows_with_the_weight_and_has_no_samples():
    now = taught(60)
    half = scatter_only(now, 5, int(now.counts.sum()) // 2)
    assert half.counts.tolist() == [0] * 5
    np.testing.assert_allclose(within_scatter(half), within_scatter(now) / 2, atol=1e-6)


FAULTS = {
    "features scaled by two": lambda now: now._replace(sums=now.sums * 2, moment=now.moment * 4),
    "sums alone scaled": lambda now: now._replace(sums=now.sums * 3),
    "moment alone scaled": lambda now: now._replace(moment=now.moment * 1.1),
    "a class below nothing": lambda now: now._replace(counts=now.counts - [1000, 0, 0]),
    "a negative moment": lambda now: now._replace(moment=-now.moment),
    "counts that are missing": lambda now: now._replace(counts=now.counts // 2),
}


@pytest.mark.parametrize("spoil", FAULTS.values(), ids=FAULTS.keys())
def test_statistics_that_no_samples_can_have_made_are_found(spoil):
    assert fault(taught(60)) == ""
    assert fault(nothing()) == ""
    assert fault(spoil(taught(60)))


def test_the_rank_follows_from_the_bytes():
    assert affordable_rank(0, 1024) == 0
    assert affordable_rank(22 << 10, 1024) == 42
    assert affordable_rank(1 << 30, 64) > 64
    assert len(compress(taught(60), nothing(), 1000).factors) == SIZE
