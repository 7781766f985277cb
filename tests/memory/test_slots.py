"""The ring hands out dead slots in order, never a living one, and rows that fill their pages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.memory.slots import (
    DEAD_PER_LIVE,
    MAX_PIECES_A_VIEW,
    PAGE_ROOM_BYTES,
    ROW_OVERHEAD_BYTES,
    Slots,
    piece_bytes,
)


def ring(owners):
    """Return a ring with these owners in slots 1, 2, ...; 0 is free."""
    owners = np.array(owners, dtype=np.int64)
    slots = np.flatnonzero(owners) + 1
    found = Slots(slots, owners[slots - 1])
    found.owner = np.concatenate([[0], owners])
    return found


def test_an_empty_ring_begins_at_slot_one():
    assert ring([]).plan(3).tolist() == [1, 2, 3]


def test_a_ring_that_is_not_yet_long_enough_grows_at_its_end(monkeypatch):
    monkeypatch.setattr("edge_cl.memory.slots.SMALLEST_RING", 1)
    assert ring([1, 2, 0, 0]).plan(2).tolist() == [5, 6]


def test_a_long_ring_goes_on_after_the_newest_sample_and_comes_round(monkeypatch):
    monkeypatch.setattr("edge_cl.memory.slots.SMALLEST_RING", 1)
    assert ring([0, 0, 7, 0, 8, 0, 0]).plan(4).tolist() == [6, 7, 1, 2]


@given(
    owners=st.lists(st.integers(0, 5), max_size=60),
    counts=st.lists(st.integers(0, 9), max_size=20),
    deaths=st.lists(st.integers(0, 30), max_size=20),
)
def test_a_living_slot_is_never_handed_out(owners, counts, deaths):
    slots, sample = ring(owners), 100
    for turn, count in enumerate(counts):
        living = set(np.flatnonzero(slots.owner))
        planned = slots.plan(count)
        assert len(set(planned)) == count and not living & set(planned)
        slots.take(planned, np.full(count, sample + turn))
        assert all(slots.owner[planned] == sample + turn)
        dead = np.array(deaths[turn : turn + 1], dtype=np.int64) + 90
        before = slots.used
        assert slots.release(dead) == before - slots.used


def test_the_ring_settles_at_its_ratio_and_writes_neighbours():
    rng, slots, living = np.random.default_rng(0), ring([]), []
    runs = []
    for sample in range(1, 30_000):
        planned = slots.plan(1)
        slots.take(planned, np.array([sample]))
        runs.append(planned[0])
        living.append(sample)
        if len(living) > 1_000:
            slots.release(np.array([living.pop(int(rng.integers(len(living))))]))
    assert slots.used == 1_000
    assert slots.owner.size == pytest.approx((1 + DEAD_PER_LIVE) * 1_000, rel=0.02)
    steps = np.diff(runs[10_000:])
    assert np.mean((steps > 0) & (steps <= 2)) > 0.95  # about 6 % of the slots met are alive


@given(st.integers(1, 40_000))
def test_a_row_never_leaves_its_page_and_rows_add_up(view_bytes):
    piece = piece_bytes(view_bytes)
    assert 0 < piece + ROW_OVERHEAD_BYTES <= PAGE_ROOM_BYTES
    assert piece <= view_bytes
    least = -(-view_bytes // (PAGE_ROOM_BYTES - ROW_OVERHEAD_BYTES))
    assert -(-view_bytes // piece) < least + MAX_PIECES_A_VIEW


@pytest.mark.parametrize(("size", "filled"), [(1024, 0.9), (1280, 0.9), (2048, 0.9), (576, 0.9), (64, 0.7)])
def test_pages_are_well_filled(size, filled):
    piece = piece_bytes(size)
    rows = PAGE_ROOM_BYTES // (piece + ROW_OVERHEAD_BYTES)
    pieces = -(-size // piece)
    assert rows / pieces * size / PAGE_ROOM_BYTES >= filled
