"""A small life of a state folder, as a process of its own: made to be killed at any moment.

    teacher.py FOLDER BATCHES

Every line it prints is a promise that was kept before the line: `taught N` (every event up to N),
`checkpoint N` (the pointer leads to it), `forgot A B`. What it teaches follows from the sample's id alone.
"""

import os
import sys
from pathlib import Path

import numpy as np

from edge_cl.device.install import load_checkpoint, point_to, save_checkpoint, stage_bundle, tidy
from edge_cl.errors import StoreError
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import Event, EventKind, Store
from edge_cl.sample import FeatureSpace

SPACE = FeatureSpace("teacher", 48, "int8", 0.02, -128)
VIEWS = 2
BATCH = 4  # events a commit: a batch is there whole, or not at all
FORGOTTEN = (2, 3)


def features(sample: int) -> np.ndarray:
    """Return what sample `sample` looks like, (VIEWS, D) int8."""
    return np.random.default_rng(sample).integers(-128, 128, (VIEWS, SPACE.size), dtype=np.int8)


def lesson(store: Store) -> list[Event]:
    """Return the next batch of events."""
    return [
        Event(
            store.next_seq + i,
            EventKind.TEACH,
            store.next_sample + i,
            f"class {i}",
            features=features(store.next_sample + i),
            image_hash=bytes([store.next_sample + i]) * 16,
            session="test",
            source=f"{store.next_sample + i}.jpg",
        )
        for i in range(BATCH)
    ]


def sum_of(store: Store) -> np.ndarray:
    """Return the "model": the sum of all features, which a checkpoint and the replay after it must equal."""
    total = np.zeros(SPACE.size, dtype=np.int64)
    for event in store.events_after(0):
        if event.features is not None:
            total += event.features.sum(axis=0, dtype=np.int64)
    return total


def live(folder: Path, batches: int) -> None:
    with open_store(folder, SPACE) as store:
        tidy(folder)
        load_checkpoint(folder)
        point_to(
            folder, bundle=stage_bundle(folder, {"backbone.tflite": b"weights" * 99, "bundle.json": b"{}"})
        )
        for _ in range(batches):
            store.append(lesson(store))
            _promise(f"taught {store.next_seq - 1}")
            header = {"seq": store.next_seq - 1}
            point_to(folder, checkpoint=save_checkpoint(folder, {"sum": sum_of(store)}, header))
            _promise(f"checkpoint {header['seq']}")
            store.clean([info.sample for info in store.samples()], header["seq"])
        store.forget(FORGOTTEN)
        _promise(f"forgot {' '.join(map(str, FORGOTTEN))}")


def _promise(line: str) -> None:
    os.writev(1, [f"{line}\n".encode()])  # not `write`: the crash tests fail that one


def main() -> int:
    try:
        live(Path(sys.argv[1]), int(sys.argv[2]))
    except StoreError as error:
        _promise(f"error {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
