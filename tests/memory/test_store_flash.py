"""Flash wear stays under the promised ratio: a full buffer, random victims (see benchmarks/flash.py)."""

import os

import numpy as np
import pytest

from edge_cl.memory.disk import process_written_bytes
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import COMMIT_ROWS, Event, EventKind
from edge_cl.sample import FeatureSpace

SPACE = FeatureSpace("flash", 1024, "int8", 0.02, -128)
BUFFER = 1_000  # samples
REPLACEMENTS = 2_000
PROMISED = 4.0  # bytes written per byte kept


def lessons(store, count):
    rng = np.random.default_rng(store.next_seq)
    return [
        Event(
            store.next_seq + i,
            EventKind.TEACH,
            store.next_sample + i,
            "a class name",
            features=rng.integers(-128, 128, (1, SPACE.size), dtype=np.int8),
            image_hash=rng.bytes(16),
            session="2026-01-01",
            source="IMG_00001.jpg",
        )
        for i in range(count)
    ]


def test_two_thousand_replacements_write_at_most_the_promised_bytes(tmp_path):
    rng = np.random.default_rng(0)
    living = np.arange(1, BUFFER + 1)
    with open_store(tmp_path, SPACE) as store:
        store.append(lessons(store, BUFFER))
    before = counted(tmp_path)
    with open_store(tmp_path, SPACE) as store:
        store.clean(living, store.next_seq - 1)
        for _ in range(REPLACEMENTS // COMMIT_ROWS):
            events = lessons(store, COMMIT_ROWS)
            store.append(events)
            living[rng.choice(BUFFER, COMMIT_ROWS, replace=False)] = [event.sample for event in events]
            store.clean(living, store.next_seq - 1)
        assert len(store.features(living)) == BUFFER
    written = counted(tmp_path) - before
    assert 2.0 < written / (REPLACEMENTS // COMMIT_ROWS * COMMIT_ROWS * SPACE.size) <= PROMISED


def counted(folder):
    """Return the kernel's count of bytes written by this process, or skip aloud where there is none."""
    probe = process_written_bytes()
    if probe is not None:
        (folder / "probe").write_bytes(bytes(100_000))
        os.sync()
    written = process_written_bytes()
    if probe is None or written is None or written - probe < 100_000:
        pytest.skip("this kernel or this file system (memory?) does not count written bytes")
    return written
