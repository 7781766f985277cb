"""The reservoir: every sample offered is kept with the same chance, and what is kept is never changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.sparcl.reservoir import Memories, draw, empty, offer, places_of


def memories(first: int, count: int) -> Memories:
    """Return samples that are known by their numbers."""
    numbers = np.arange(first, first + count)
    images = np.broadcast_to(numbers[:, None, None, None] % 256, (count, 2, 2, 3)).astype(np.uint8)
    return Memories(
        images, numbers.astype(np.int32), numbers[:, None].astype(np.float32) + np.zeros((1, 4), np.float32)
    )


def test_everything_is_kept_while_there_is_room() -> None:
    kept = offer(empty(8, (2, 2), 4), memories(0, 8), np.random.default_rng(0))
    assert kept.labels.tolist() == list(range(8))
    assert kept.filled == kept.seen == 8


def test_every_offer_is_kept_equally_often() -> None:
    counts, rng = np.zeros(40), np.random.default_rng(3)
    for _ in range(3000):
        reservoir = empty(10, (2, 2), 4)
        for start in range(0, 40, 8):
            reservoir = offer(reservoir, memories(start, 8), rng)
        counts[reservoir.labels] += 1
    expected = 3000 * 10 / 40
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * 0.75)


@given(st.integers(1, 30), st.lists(st.integers(1, 20), max_size=6), st.integers(0, 99))
def test_a_kept_sample_keeps_its_picture_and_its_logits(places: int, batches: list[int], seed: int) -> None:
    reservoir, rng, seen = empty(places, (2, 2), 4), np.random.default_rng(seed), 0
    for count in batches:
        reservoir = offer(reservoir, memories(seen, count), rng)
        seen += count
    filled = reservoir.filled
    assert filled == min(places, seen)
    assert np.array_equal(reservoir.logits[:filled, 0], reservoir.labels[:filled])
    assert np.array_equal(reservoir.images[:filled, 0, 0, 0], reservoir.labels[:filled] % 256)
    assert len(set(reservoir.labels[:filled].tolist())) == filled


def test_an_offer_changes_nothing_in_the_reservoir_it_was_made_to() -> None:
    first = offer(empty(4, (2, 2), 4), memories(0, 4), np.random.default_rng(0))
    before = first.labels.copy()
    offer(first, memories(4, 40), np.random.default_rng(1))
    assert np.array_equal(first.labels, before)


def test_a_draw_shows_all_before_it_repeats() -> None:
    reservoir = offer(empty(10, (2, 2), 4), memories(0, 10), np.random.default_rng(0))
    assert len(set(draw(reservoir, 10, np.random.default_rng(0)).labels.tolist())) == 10
    drawn = np.bincount(draw(reservoir, 25, np.random.default_rng(1)).labels)
    assert drawn.min() >= 2
    assert drawn.max() <= 3


def test_the_first_offers_take_the_places_in_order() -> None:
    assert places_of(0, 3, 3, np.random.default_rng(0)).tolist() == [0, 1, 2]


def test_nothing_comes_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        draw(empty(3, (2, 2), 4), 2, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="buffer of 0 remembers nothing"):
        empty(0, (2, 2), 4)
