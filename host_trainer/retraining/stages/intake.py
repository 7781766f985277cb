"""Sees what there is: the host's own pictures, those to judge by, and what devices sent."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edge_cl.errors import ConfigError, ModelError
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import read_model_file
from edge_cl.vision.extractor import cut_at_embedding
from edge_cl.wire.labels import Edits, followed
from host_trainer.datasets.folders import read_folder
from host_trainer.retraining import deployed, network, pictures, samples, told
from host_trainer.retraining.assembly import BACKBONE
from host_trainer.retraining.contents import Received
from host_trainer.retraining.intake import Known, Sound, capped, sifted, within, without
from host_trainer.retraining.job import INTAKE, Job
from host_trainer.retraining.runs import Facts, remove_others, write_part, write_tensors
from host_trainer.retraining.samples import Samples, joined, named, nothing
from host_trainer.retraining.stages.material import (
    FRESH,
    HELD_OUT_FILE,
    OWN_FILE,
    SAMPLES_FILE,
    every_picture,
    renamed,
    seen,
)
from host_trainer.retraining.suspicion import Finding, suspicion

TOLD, PICTURES = "told", "pictures"
MEMORY_BYTES = 64_000_000  # of devices' features that are kept to learn from


def take_in(job: Job, part: Path) -> Facts:
    """Leave samples of everything, what each device told, and what was set aside and why."""
    if job.incumbent is None:
        write_part(part / BACKBONE, _first_backbone(job))
    with pictures.opened(_backbone_now(job, part)) as backbone:
        space, held_out = backbone.space, None
        folder = _held_out_folder(job)
        if folder is not None:
            held_out = seen(job, backbone, every_picture(folder))
            write_tensors(part / HELD_OUT_FILE, samples.to_tensors(held_out))
        facts: Facts = {
            **_own(job, backbone, part),
            "held_out": str(folder.resolve()) if folder else "",
            "judged_by": job.relative(job.run.place(INTAKE) / HELD_OUT_FILE) if folder else "",
        }
    return {**facts, **_devices(job, space, held_out, part)}


def _first_backbone(job: Job) -> bytes:
    """Return the backbone of a first release: a network's, or a file, cut as a device would cut it."""
    options, chosen = job.options, job.options.backbone
    if options.network is not None:
        network.check_finished(options.network)
        if options.data is None:
            raise ConfigError("a network is exported on pictures: give --data DIR beside --network")
        file, reasons, _ = network.exported(options.network, options.data, job.run.scratch(INTAKE), job.world)
        if reasons:
            raise ModelError(f"{options.network} does not become a file that answers alike: {reasons[0]}")
        return file.read_bytes()
    if chosen is None:
        raise ConfigError("a first release needs a backbone: give --backbone FILE, or --network DIR")
    try:
        return cut_at_embedding(read_model_file(chosen).path.read_bytes()).data
    except ModelError as error:
        raise ModelError(f"{chosen.name}: {error}") from error


def _backbone_now(job: Job, part: Path) -> Path:
    """Return the backbone file that samples are made with at intake."""
    return part / BACKBONE if job.incumbent is None else job.fleet / job.incumbent.backbone


def _held_out_folder(job: Job) -> Path | None:
    """Return the folder of pictures that no device supplied and nobody learns from.

    Raises:
        ConfigError: it was there once, and is gone.
    """
    options = job.options
    if options.held_out is not None:
        return options.held_out
    if options.data is not None and (options.data / "test").is_dir():
        return options.data / "test"
    if job.incumbent is None or not job.incumbent.held_out:
        return None
    if not Path(job.incumbent.held_out).is_dir():
        raise ConfigError(
            f"{job.incumbent.held_out}, by which releases were judged, is gone: give --held-out DIR"
        )
    return Path(job.incumbent.held_out)


def _own(job: Job, backbone: pictures.Backbone, part: Path) -> Facts:
    """Return facts of the host's own pictures; a first release makes samples of them."""
    if job.incumbent is not None:
        return {"own": job.incumbent.own, "data": job.incumbent.data}
    data = job.options.data
    found = nothing(backbone.space, job.options.head.learner.views)
    if data is not None:
        found = seen(job, backbone, read_folder(data, least_classes=1).train)
    write_tensors(part / OWN_FILE, samples.to_tensors(found))
    own = job.relative(job.run.place(INTAKE) / OWN_FILE)
    return {"own": own, "data": str(data.resolve()) if data else ""}


def _devices(job: Job, space: FeatureSpace, held_out: Samples | None, part: Path) -> Facts:
    """Sift what devices sent, name those that contradict all others, and keep the rest."""
    edits, views = job.world.contents.edits(), job.options.head.learner.views
    known = _known(job, space, views)
    sent: dict[str, dict[str, int]] = {}
    received = _counted(job.world.contents.committed(known.contents), sent)

    def keep(digest: str, data: bytes) -> None:
        write_part(_picture(part, digest), data)

    sound = sifted(received, known, space, views, edits, keep)
    findings = _findings(job, sound, held_out, space, edits)
    suspects = {device: found.reason for device, found in findings.items() if found.reason}
    suspects |= sound.impossible
    for device, reason in suspects.items():
        job.world.say(f"{device} is not believed: {reason}")
    sound = without(sound, suspects)
    kept = capped(sound.samples, job.options.cap)
    room = MEMORY_BYTES // (views * space.size * np.dtype(space.dtype).itemsize)
    kept[kept] = within(sound.samples.at(kept), room)
    write_tensors(
        part / SAMPLES_FILE, {**samples.to_tensors(sound.samples.at(kept)), FRESH: sound.fresh[kept]}
    )
    return {
        "registry": edits[-1].version if edits else 0,
        "samples": job.relative(job.run.place(INTAKE) / SAMPLES_FILE),
        "told": _kept_told(job, sound, part),
        "pictures": _kept_pictures(job, sound, suspects, edits, part),
        "received": _used(sent, sound),
        "accepted": sorted(map(list, sound.accepted)),
        "aside": sorted([*key, reason] for key, reason in sound.aside.items()),
        "waiting": sorted([*key, reason] for key, reason in sound.waiting.items()),
        "withdrawn": sorted(map(list, sound.withdrawn)),
        "findings": {device: _told_finding(each) for device, each in sorted(findings.items())},
        "suspects": dict(sorted(suspects.items())),
        "notes": list(sound.notes),
        "no_room": int((~kept).sum()),
    }


def _known(job: Job, space: FeatureSpace, views: int) -> Known:
    release = job.incumbent
    if release is None:
        return Known({}, nothing(space, views))
    return Known(
        deployed.told_of(job.fleet, release),
        deployed.samples_of(job.fleet, release) or nothing(space, views),
        frozenset(release.contents),
        frozenset(str(each[3]) for each in release.pictures),
        release.registry,
    )


def _findings(
    job: Job, sound: Sound, held_out: Samples | None, space: FeatureSpace, edits: Edits
) -> dict[str, Finding]:
    """Hold devices against each other, against the host's own pictures, and those that it judges by."""
    host = [] if held_out is None else [renamed(held_out, edits, 0)]
    if job.incumbent is not None:
        host.append(renamed(deployed.own_of(job.fleet, job.incumbent), edits, 0))
    newest = edits[-1].version if edits else 0
    current = [told.moved(each, edits, newest) for each in sound.told.values()]
    known = [named(each, space) for each in host if len(each)]
    return suspicion(known, current, joined([sound.samples, *host]), space)


def _kept_told(job: Job, sound: Sound, part: Path) -> dict[str, str]:
    """Write what devices told that told something new; return where what each told lies."""
    before = dict(job.incumbent.told) if job.incumbent else {}
    where = {device: before[device] for device in sound.told if device in before}
    for device in sound.changed:
        write_tensors(part / TOLD / f"{device}.safetensors", told.to_tensors(sound.told[device]))
        where[device] = job.relative(job.run.place(INTAKE) / TOLD / f"{device}.safetensors")
    return dict(sorted(where.items()))


def _kept_pictures(
    job: Job, sound: Sound, suspects: dict[str, str], edits: Edits, part: Path
) -> list[list[object]]:
    """Return all pictures that may be trained on: device, number, class, hash, path; the others go."""
    release = job.incumbent
    found: list[list[object]] = []
    for device, number, label, digest, path in release.pictures if release else ():
        is_there = (job.fleet / path).is_file()  # a run that was rejected may have destroyed it
        if is_there and device not in suspects and (device, number) not in sound.withdrawn:
            now = followed(label, edits, release.registry if release else 0, device, number)
            found.append([device, number, now, digest, path])
    for each in sound.pictures:
        path = job.relative(_picture(job.run.place(INTAKE), each.sha256))
        found.append([each.device, each.number, each.label, each.sha256, path])
    remove_others(part / PICTURES, {_picture(part, each.sha256) for each in sound.pictures})
    return found


def _picture(folder: Path, digest: str) -> Path:
    return folder / PICTURES / f"{digest}.jpg"


def _counted(received: Iterable[Received], sent: dict[str, dict[str, int]]) -> Iterator[Received]:
    """Hand on what each device sent, one content at a time, and count it."""
    for each in received:
        row = sent.setdefault(each.device, {"contents": 0, "bytes": 0, "samples": 0, "pictures": 0})
        row["contents"] += 1
        row["bytes"] += len(each.data)
        yield each


def _used(sent: dict[str, dict[str, int]], sound: Sound) -> dict[str, dict[str, int]]:
    """Return what each device sent, with the samples and pictures of it that are used."""
    for device, is_fresh in zip(sound.samples.devices, sound.fresh.tolist(), strict=True):
        if is_fresh and device in sent:
            sent[device]["samples"] += 1
    for picture in sound.pictures:
        sent[picture.device]["pictures"] += 1
    return dict(sorted(sent.items()))


def _told_finding(finding: Finding) -> Facts:
    agreement = None if finding.agreement is None else round(finding.agreement, 4)
    by_class = {label: round(value, 4) for label, value in sorted(finding.classes.items())}
    return {"agreement": agreement, "error": round(finding.error, 4), "classes": by_class}
