"""Flash wear: bytes written to the storage per payload byte, for the replacements of a rehearsal buffer.

Claim: at most 4.0 over 2,000 replacements of 1 KB features in commits of 32, on a full buffer, victims drawn
at random (the worst realistic policy). Every 256 comes a checkpoint: dead rows may then be overwritten.

Method: `process` is the kernel's count for this process (`write_bytes` in /proc/self/io: pages made dirty,
once per write-back) on the real file system of --folder. `device` (--device, as root) is the count of the
block device (/sys/block/loopN/stat) under a fresh ext4 on a loop device: the file system's journal is in it.
Both run from opening a full store to after closing it, the last move of the log into the table included.
`first_without_cleaning` never frees a row; `first` is the next 2,000, overwriting what died; `steady` goes on
for as many replacements as the ring has slots. `file_per_live` is the file's size per byte of living feature.

    python benchmarks/flash.py [--folder DIR] [--device] [--json]
"""

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_cl.memory.disk import process_written_bytes
from edge_cl.memory.opening import open_store
from edge_cl.memory.slots import DEAD_PER_LIVE
from edge_cl.memory.store import COMMIT_ROWS, Event, EventKind, Store
from edge_cl.sample import FeatureSpace

SIZE = 1024  # D, int8: 1 KB a feature
REPLACEMENTS = 2_000
CHECKPOINT_EVERY = 256  # replacements between checkpoints; the buffer says then what lives
IMAGE_BYTES = 256 << 20  # of the loop device


def space() -> FeatureSpace:
    return FeatureSpace("flash-benchmark", SIZE, "int8", 0.02, -128)


def replace(store: Store, slots: np.ndarray, count: int, seed: int, *, clean: bool = True) -> None:
    """Teach `count` samples, each in the place of a random one of `slots` (K,), in commits of 32."""
    rng = np.random.default_rng((seed, count))
    for done in range(0, count, COMMIT_ROWS):
        events = [_teach(store, i, rng) for i in range(min(COMMIT_ROWS, count - done))]
        store.append(events)
        slots[rng.choice(slots.size, len(events), replace=False)] = [event.sample for event in events]
        if clean and done % CHECKPOINT_EVERY == 0:
            store.clean(slots.tolist(), store.next_seq - 1)


def _teach(store: Store, offset: int, rng: np.random.Generator) -> Event:
    seq, sample = store.next_seq + offset, store.next_sample + offset
    features = rng.integers(-128, 128, (1, SIZE), dtype=np.int8)
    return Event(
        seq,
        EventKind.TEACH,
        sample,
        f"class {seq % 10}",
        0,
        features,
        rng.bytes(16),
        "2026-01-01",
        f"IMG_{seq:05}.jpg",
    )


def fill(folder: Path, slots: int, seed: int) -> np.ndarray:
    """Make a store with a full buffer and return the samples in its slots."""
    with open_store(folder, space()) as store:
        store.append([])
        living = np.arange(1, slots + 1)
        rng = np.random.default_rng(seed)
        for start in range(0, slots, COMMIT_ROWS):
            store.append([_teach(store, i, rng) for i in range(min(COMMIT_ROWS, slots - start))])
    return living


def measure(folder: Path, slots: int, counter: Path | None, seed: int) -> dict[str, float]:
    """Return bytes written per payload byte: over 2,000 replacements, and in the steady state after them."""
    living = fill(folder, slots, seed)
    figures = {"slots": float(slots)}
    steady = int((1 + DEAD_PER_LIVE) * slots) + 2_048
    for name, count, clean in (
        ("first_without_cleaning", REPLACEMENTS, False),
        ("first", REPLACEMENTS, True),
        ("steady", steady, True),
    ):
        before = _written(counter)
        with open_store(folder, space()) as store:
            store.clean(living.tolist(), store.next_seq - 1)
            replace(store, living, count, seed, clean=clean)
        figures[name] = round((_written(counter) - before) / (count * SIZE), 3)
    figures["file_per_live"] = round((folder / "learner.db").stat().st_size / (slots * SIZE), 2)
    return figures


def _written(counter: Path | None) -> int:
    os.sync()
    if counter is not None:
        return int(counter.read_text().split()[6]) * 512  # field 7: sectors written
    found = process_written_bytes()
    if found is None:
        raise SystemExit("this kernel does not count written bytes per process (/proc/self/io)")
    return found


@contextlib.contextmanager
def fresh_device(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a fresh ext4 on a loop device; yield its folder and its counter."""
    image, place = folder / "image", folder / "mount"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # No lazy initialisation: the kernel would go on writing inode tables while we count.
    options = "lazy_itable_init=0,lazy_journal_init=0"
    _run("mkfs.ext4", "-q", "-F", "-E", options, str(image))
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        _run("mount", device, str(place))
        try:
            yield place, Path("/sys/block") / Path(device).name / "stat"
        finally:
            _run("umount", str(place))
    finally:
        _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="on a real file system, not tmpfs"
    )
    parser.add_argument("--slots", type=int, nargs="+", default=[1_000, 4_000])
    parser.add_argument("--device", action="store_true", help="count on a loop device (root)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = []
    for slots in args.slots:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found.append({"count": "process", **measure(Path(folder) / "state", slots, None, args.seed)})
        if args.device:
            with (
                tempfile.TemporaryDirectory(dir=args.folder) as folder,
                fresh_device(Path(folder)) as (place, stat),
            ):
                found.append({"count": "device", **measure(place / "state", slots, stat, args.seed)})
    print(json.dumps(found) if args.json else "\n".join(str(row) for row in found))


if __name__ == "__main__":
    main()
