"""Masks keep exact counts, grow where nothing lives, and lose what matters least."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_cl.learning import masking

finite = st.floats(-100, 100)


@st.composite
def worlds(draw):
    """Draw a mask with live and free units, an importance for each, and a generator."""
    total = draw(st.integers(8, 200))
    live = draw(st.integers(3, total - 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = draw(arrays.arrays(float, total, elements=finite))
    return masking.random_mask(total, live, rng), scores, rng


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_live_count_is_the_share_to_the_nearest_unit_and_never_zero(total, density):
    count = masking.live_count(total, density)
    assert 1 <= count <= total
    assert abs(count - total * density) <= 0.5 or count == 1


@given(st.integers(1, 5000), st.floats(0, 1))
def test_at_least_one_unit_is_moved(total, share):
    count = masking.moved_count(total, share)
    assert count >= 1
    assert abs(count - total * share) <= 0.5 or count == 1


@given(st.integers(1, 500), st.data())
def test_a_random_mask_has_exactly_the_count_asked_for(total, data):
    count = data.draw(st.integers(0, total))
    mask = masking.random_mask(total, count, np.random.default_rng(0))
    assert mask.shape == (total,)
    assert mask.sum() == count


def test_every_unit_has_the_same_chance_in_a_random_mask():
    rng = np.random.default_rng(0)
    times = sum(masking.random_mask(10, 3, rng).astype(int) for _ in range(5000))
    expected = 5000 * 0.3
    assert np.abs(times - expected).max() < 5 * np.sqrt(expected * 0.7)


@given(worlds(), st.data())
def test_growing_keeps_the_living_and_adds_exactly_as_many_that_did_not_live(world, data):
    mask, _, rng = world
    count = data.draw(st.integers(0, int((~mask).sum())))
    before = mask.copy()
    grown = masking.grow(mask, count, rng)
    assert grown[mask].all()
    assert grown.sum() == mask.sum() + count
    assert np.array_equal(mask, before)


def test_growing_beyond_the_free_units_is_refused():
    with pytest.raises(ValueError):
        masking.grow(np.array([True, False]), 2, np.random.default_rng(0))


def test_every_free_unit_has_the_same_chance_to_grow():
    mask, rng = np.arange(20) < 8, np.random.default_rng(0)
    grown = sum((masking.grow(mask, 3, rng) & ~mask).astype(int) for _ in range(4000))
    assert not grown[:8].any()
    assert np.abs(grown[8:] - 1000).max() < 5 * np.sqrt(750)


@given(worlds(), st.data())
def test_shrinking_removes_exactly_the_least_important_of_the_living(world, data):
    mask, scores, _ = world
    count = data.draw(st.integers(0, int(mask.sum()) - 1))
    shrunk = masking.shrink(mask, scores, count)
    gone = mask & ~shrunk
    assert not (shrunk & ~mask).any()
    assert gone.sum() == count
    assert scores[gone].max(initial=-np.inf) <= scores[shrunk].min()


def test_of_equally_important_units_the_lower_index_is_removed():
    mask = np.array([False, True, True, True])
    assert masking.shrink(mask, np.zeros(4), 2).tolist() == [False, False, False, True]


@pytest.mark.parametrize("count", [3, 4])
def test_shrinking_to_nothing_is_refused(count):
    with pytest.raises(ValueError, match="cannot prune"):
        masking.shrink(np.array([True, True, False, True]), np.zeros(4), count)


@given(worlds(), st.data())
def test_the_gradient_mask_lies_inside_the_weight_mask_and_holds_the_most_important(world, data):
    mask, scores, _ = world
    count = data.draw(st.integers(0, int(mask.sum())))
    moving = masking.most_important(mask, scores, count)
    assert moving.sum() == count
    assert not (moving & ~mask).any()
    still = mask & ~moving
    assert scores[moving].min(initial=np.inf) >= scores[still].max(initial=-np.inf)


@given(worlds(), st.integers(1, 4))
def test_density_is_exact_after_expanding_and_after_shrinking_back(world, tasks):
    """s, s - p_inter, s: the published cycle, with intra-task swaps in between."""
    mask, scores, rng = world
    total, live = len(mask), int(mask.sum())
    inter = min(masking.moved_count(total, 0.01), total - live)
    intra = min(masking.moved_count(total, 0.005), live - 1)
    for _ in range(tasks):
        mask = masking.grow(mask, inter, rng)
        assert mask.sum() == live + inter
        mask = masking.shrink(mask, scores, inter + intra)
        mask = masking.grow(mask, intra, rng)
        assert mask.sum() == live
        mask = masking.grow(masking.shrink(mask, scores, intra), intra, rng)
        assert mask.sum() == live


def test_weight_importance_is_equation_1_in_written_out_numbers():
    weights, new, memory = np.array([[-2.0, 0.0]]), np.array([[3.0, -1.0]]), np.array([[-4.0, 0.5]])
    # |-2| + 0.5 |3| + 1 |-4| = 7.5 and |0| + 0.5 |-1| + 1 |0.5| = 1
    assert masking.weight_importance(weights, new, memory, 0.5, 1.0).tolist() == [[7.5, 1.0]]


def test_gradient_importance_is_equation_3_in_written_out_numbers():
    new, memory = np.array([3.0, -1.0]), np.array([-4.0, 0.5])
    assert masking.gradient_importance(new, memory, 0.5, 1.0).tolist() == [5.5, 1.0]


@given(arrays.arrays(float, (3, 4, 5), elements=finite), st.floats(0, 2))
def test_with_alpha_equal_to_beta_and_one_gradient_it_is_what_the_authors_released(parts, alpha):
    weights, gradient, _ = parts
    ours = masking.weight_importance(weights, gradient, np.zeros_like(gradient), alpha, alpha)
    np.testing.assert_allclose(ours, np.abs(weights) + alpha * np.abs(gradient))


def test_the_published_schedule_at_sparsity_75_keeps_its_counts():
    """On 10,000 weights: 0.75, then 0.74 when classes arrive, then 0.76 pruned and 0.75 regrown."""
    rng, scores = np.random.default_rng(0), np.random.default_rng(1).random(10_000)
    mask = masking.random_mask(10_000, masking.live_count(10_000, 0.25), rng)
    moved = masking.moved_count(10_000, 0.01)
    counts = [int(mask.sum())]
    mask = masking.grow(mask, moved, rng)
    counts.append(int(mask.sum()))
    mask = masking.shrink(mask, scores, 2 * moved)
    counts.append(int(mask.sum()))
    mask = masking.grow(mask, moved, rng)
    counts.append(int(mask.sum()))
    assert counts == [2500, 2600, 2400, 2500]
