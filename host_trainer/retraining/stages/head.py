"""Merges what the fleet knows, trains a head on it, and keeps it near to what answered before."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.head import of_learner
from edge_cl.learning.named import Named
from edge_cl.learning.named import nothing as nothing_known
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.sample import FeatureSpace, label_key
from edge_cl.wire.labels import Edits, followed
from host_trainer.retraining import deployed, heads, samples, told
from host_trainer.retraining.heads import Teacher
from host_trainer.retraining.job import EXPORT, INTAKE, Job
from host_trainer.retraining.merging import merged
from host_trainer.retraining.runs import Facts, read_tensors, write_tensors
from host_trainer.retraining.samples import OWN, Samples, joined, known_to, named
from host_trainer.retraining.stages.material import (
    HEAD_FILE,
    edits_of,
    incumbent,
    of_devices,
    own,
    renamed,
    space_of,
)
from host_trainer.retraining.told import Told


def make_head(job: Job, part: Path) -> Facts:
    """Leave the exact head, with its answers to samples that it did not train on."""
    edits, space = edits_of(job), space_of(job)
    mine, (theirs, is_fresh) = own(job, edits), of_devices(job)
    tolds = _told(job, edits, space)
    adopted = _adopted(job, tolds)
    host = joined([mine, theirs.at(np.array([device in adopted for device in theirs.devices], bool))])
    host_knows = named(host, space) if len(host) else nothing_known(space.size)
    found = merged(host_knows, tolds, edits, job.options.cap)
    known = _in_order(found.known, _old_labels(job, edits))
    everything = joined([mine, theirs])
    usable = known_to(everything, known.labels)  # of other classes nobody has told yet
    usable &= _counted(everything, {OWN, *adopted, *(each.device for each in tolds)})
    taught = everything.at(usable)
    fresh = np.concatenate([np.full(len(mine), job.incumbent is None), is_fresh])[usable]
    learned_from = heads.rehearsed(
        host_knows, tolds, found.shares, taught.at(~_counted(taught, adopted)), known.labels, space.zero_point
    )
    before = incumbent(job, edits)
    teacher = None if before is None else Teacher(before, _as_seen_before(job, taught, edits))
    is_same = before is not None and before.space.id == space.id
    head = heads.made(
        space, job.options.head, known, learned_from, taught, fresh, before if is_same else None, teacher
    )
    write_tensors(part / HEAD_FILE, of_learner(head.learner))
    samples_of = (known.statistics.counts // SAMPLE_WEIGHT).tolist()
    return {
        "labels": list(known.labels),
        "shrinkage": head.learner.base.shrinkage,
        "gate": head.learner.gate,
        "temperature": head.learner.calibration.temperature,
        "samples": dict(zip(known.labels, samples_of, strict=True)),
        "shares": {device: round(share, 6) for device, share in sorted(found.shares.items())},
        "taken": dict(sorted(found.taken.items())),
        "adopted": sorted(adopted),
        "held_back": {name: list(values) for name, values in head.held_back._asdict().items()},
        "suspects": [
            [device, number, each.label, each.suggestion, round(each.doubt, 4)]
            for device, number, each in head.suspects
        ],
    }


def _told(job: Job, edits: Edits, space: FeatureSpace) -> list[Told]:
    """Return what devices told in the candidate's space, named as classes are now."""
    newest = edits[-1].version if edits else 0
    paths: Mapping[str, str] = job.run.facts(INTAKE)["told"]
    found = (told.from_tensors(read_tensors(job.fleet / path)) for path in paths.values())
    return [told.moved(each, edits, newest) for each in found if each.space == space.id]


def _adopted(job: Job, tolds: list[Told]) -> frozenset[str]:
    """Return the devices whose samples the host looked at itself, with a backbone that they have not yet.

    They stand for what these devices will tell, until they tell it.
    """
    told_already = {each.device for each in tolds}
    if job.run.facts(EXPORT)["is_new"] and job.incumbent is not None:
        theirs = {str(row[0]) for row in job.run.facts(INTAKE)["pictures"]}
    else:
        theirs = set(job.incumbent.adopted) if job.incumbent else set()
    return frozenset(theirs - told_already)


def _counted(found: Samples, devices: Collection[str]) -> NDArray[np.bool_]:
    """Return (N,) which samples are of these devices: the statistics know those of no others."""
    return np.array([device in devices for device in found.devices], bool)


def _as_seen_before(job: Job, taught: Samples, edits: Edits) -> Samples:
    """Return those samples that the incumbent's backbone has looked at, as it saw them."""
    release = job.incumbent
    if release is None or not job.run.facts(EXPORT)["is_new"]:
        return taught
    intake = job.run.facts(INTAKE)
    parts = [
        renamed(deployed.own_of(job.fleet, release), edits, 0),
        samples.from_tensors(read_tensors(job.fleet / intake["samples"])),
    ]
    return joined(parts)


def _old_labels(job: Job, edits: Edits) -> tuple[str, ...]:
    if job.incumbent is None:
        return ()
    manifest = deployed.manifest_of(job.fleet, job.incumbent)
    return tuple(dict.fromkeys(followed(each, edits, job.incumbent.registry) for each in manifest.labels))


def _in_order(known: Named, first: tuple[str, ...]) -> Named:
    """Return what is known with the incumbent's classes first, in its order."""
    place = {label_key(label): number for number, label in enumerate(first)}
    keys = [place.get(label_key(label), len(first) + number) for number, label in enumerate(known.labels)]
    order = np.argsort(keys, kind="stable")
    found = known.statistics
    return Named(
        tuple(known.labels[i] for i in order),
        found._replace(counts=found.counts[order], sums=found.sums[order]),
    )
