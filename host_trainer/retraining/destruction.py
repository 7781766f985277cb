"""Destroys samples that devices took back, in every run: the one reason to touch what a stage has left.

Features and pictures go. What a network's replay buffer holds of a picture, and what weights remember, stays
until it is trained anew.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from host_trainer.retraining import samples
from host_trainer.retraining.intake import SampleKey
from host_trainer.retraining.job import EXPORT, INTAKE, UPDATE
from host_trainer.retraining.network import PICTURES
from host_trainer.retraining.runs import Run, read_tensors, remove_file, rewrite_tensors, runs

SAMPLES_FILE, FRESH = "samples.safetensors", "fresh"


def destroy(fleet: Path, withdrawn: Iterable[SampleKey]) -> int:
    """Destroy samples of devices, (device, number) each, in all runs; return how many files were touched.

    Interrupted, the same call ends it.

    Raises:
        StoreError: the disk refuses.
    """
    gone = frozenset(withdrawn)
    return sum(_in_run(run, gone) for run in runs(fleet)) if gone else 0


def _in_run(run: Run, gone: frozenset[SampleKey]) -> int:
    touched = sum(_features(run.place(stage) / SAMPLES_FILE, gone) for stage in (INTAKE, EXPORT))
    for path in _pictures(run, gone):
        if path.exists():
            remove_file(path)
            touched += 1
    return touched


def _features(path: Path, gone: frozenset[SampleKey]) -> bool:
    """Take samples out of a file; whether any was in it."""
    if not path.is_file():
        return False
    arrays = read_tensors(path)
    found = samples.from_tensors(arrays)
    keys = zip(found.devices, found.numbers.tolist(), strict=True)
    kept = np.array([key not in gone for key in keys], bool)
    if kept.all():
        return False
    rewrite_tensors(path, {**samples.to_tensors(found.at(kept)), FRESH: arrays[FRESH][kept]})
    return True


def _pictures(run: Run, gone: frozenset[SampleKey]) -> list[Path]:
    """Return the files of a run that hold pictures of these samples."""
    if not run.place(INTAKE).is_dir():
        return []
    found = []
    for device, number, _, digest, path in run.facts(INTAKE).get("pictures", ()):
        if (device, number) in gone:
            found.append(run.fleet / path)
            found += run.place(UPDATE).glob(f"{PICTURES}/*/{device}-{number}-{digest[:8]}.jpg")
    return found
