"""Touches a temporary folder: what a course of teaching would write to a device's flash."""

import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_cl.memory.opening import open_store
from edge_cl.memory.store import COMMIT_ROWS, Event, EventKind, Store
from edge_cl.sample import FeatureSpace

HASH_BYTES = 16  # of a picture's hash, as the log keeps it


class Teaching(NamedTuple):
    """One sample as it is taught: its class and its features (V, D)."""

    label: str
    features: np.ndarray


def log_bytes(space: FeatureSpace, updates: Iterable[Sequence[Teaching]], steps: int) -> int:
    """Write updates, each with its consolidation, through the real store; return the bytes sent to storage.

    The same events in the same commits as the device's agent makes; checkpoints are not part of it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="edge-cl-") as folder,
        open_store(Path(folder), space) as store,
    ):
        for update in updates:
            teachings = iter(update)
            while rows := list(islice(teachings, COMMIT_ROWS)):
                store.append([_event(store, offset, row) for offset, row in enumerate(rows)])
            store.append([Event(store.next_seq, EventKind.CONSOLIDATE, amount=steps)])
        return store.written_bytes()


def _event(store: Store, offset: int, teaching: Teaching) -> Event:
    sample = store.next_sample + offset
    return Event(
        store.next_seq + offset,
        EventKind.TEACH,
        sample,
        teaching.label,
        features=teaching.features,
        image_hash=sample.to_bytes(HASH_BYTES, "big"),  # of the length of a real one
    )
