"""Finds what earlier stages and runs left for a stage: samples, labels, the incumbent, the candidate."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.head import to_learner
from edge_cl.learning.learner import EdgeLearner
from edge_cl.sample import FeatureSpace
from edge_cl.wire.labels import Edits, followed
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.retraining import deployed, pictures, samples
from host_trainer.retraining.job import EXPORT, HEAD, INTAKE, Job
from host_trainer.retraining.runs import read_tensors
from host_trainer.retraining.samples import Samples

OWN_FILE, SAMPLES_FILE, HELD_OUT_FILE = "own.safetensors", "samples.safetensors", "held-out.safetensors"
HEAD_FILE, GOLDEN_FILE, FRESH = "head.safetensors", "golden.safetensors", "fresh"
WHOLE, LEAN = "whole.bundle", "lean.bundle"


def edits_of(job: Job) -> Edits:
    """Return the registry of classes as it was at intake."""
    newest = job.run.facts(INTAKE)["registry"]
    return tuple(edit for edit in job.world.contents.edits() if edit.version <= newest)


def mirrors(job: Job) -> bool:
    """Tell whether a mirrored picture means the same."""
    return job.options.mirror if job.incumbent is None else job.incumbent.mirror


def every_picture(folder: Path) -> Pictures:
    """Return the pictures of a folder, those of both parts where it has parts."""
    found = read_folder(folder, least_classes=1)
    labels = np.concatenate([found.train.labels, found.test.labels])
    return Pictures(found.train.paths + found.test.paths, labels, found.train.classes)


def seen(job: Job, backbone: pictures.Backbone, chosen: Pictures) -> Samples:
    """Look at pictures with a backbone, in front of a person who waits."""
    views = job.options.head.learner.views
    with job.world.open_meter(len(chosen.paths), "pictures") as meter:
        found = pictures.seen(
            backbone, chosen, views, mirrors(job), lambda done: meter.show(done, "looking at pictures")
        )
    for line in found.refused:
        job.world.say(line)
    return found.samples


def renamed(found: Samples, edits: Edits, version: int) -> Samples:
    """Return samples whose labels follow a version of the registry, named as after the last edit."""
    labels = tuple(
        followed(label, edits, version, device, int(number))
        for label, device, number in zip(found.labels, found.devices, found.numbers, strict=True)
    )
    return Samples(found.features, labels, found.devices, found.numbers)


def space_of(job: Job) -> FeatureSpace:
    """Return the space of the candidate's features."""
    with pictures.opened(job.fleet / job.run.facts(EXPORT)["backbone"]) as backbone:
        return backbone.space


def own(job: Job, edits: Edits) -> Samples:
    """Return the samples of the host's own pictures, in the candidate's space."""
    found = samples.from_tensors(read_tensors(job.fleet / job.run.facts(EXPORT)["own"]))
    return renamed(found, edits, 0)


def of_devices(job: Job) -> tuple[Samples, NDArray[np.bool_]]:
    """Return the samples of devices, in the candidate's space, and which are new."""
    found = read_tensors(job.fleet / job.run.facts(EXPORT)["samples"])
    return samples.from_tensors(found), found[FRESH].astype(bool)


def judged_by(job: Job, edits: Edits, before: bool = False) -> Samples | None:
    """Return the samples that no device supplied, in the candidate's space, or as the incumbent saw them."""
    facts = job.run.facts(INTAKE if before else EXPORT)
    if not facts["judged_by"]:
        return None
    return renamed(samples.from_tensors(read_tensors(job.fleet / facts["judged_by"])), edits, 0)


def incumbent(job: Job, edits: Edits) -> EdgeLearner | None:
    """Return what devices run now, its classes called as they are called now; None before the first."""
    if job.incumbent is None:
        return None
    learner = deployed.learner_of(job.fleet, job.incumbent, job.options.head.learner)
    learner.labels = tuple(followed(label, edits, job.incumbent.registry) for label in learner.labels)
    return learner


def candidate(job: Job) -> EdgeLearner:
    """Return the learner of the head that was made."""
    facts, tensors = job.run.facts(HEAD), read_tensors(job.run.place(HEAD) / HEAD_FILE)
    return to_learner(space_of(job), job.options.head.learner, facts["labels"], tensors)
