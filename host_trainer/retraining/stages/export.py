"""Makes the file that devices run, proves it alike, and looks at all pictures with it where it is new."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edge_cl.errors import ConfigError
from edge_cl.wire.labels import Edits
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.datasets.splits import spread
from host_trainer.export import golden
from host_trainer.export.cost import measure
from host_trainer.retraining import network, pictures, rivals, samples
from host_trainer.retraining.assembly import BACKBONE
from host_trainer.retraining.job import EXPORT, INTAKE, UPDATE, Job
from host_trainer.retraining.runs import Facts, read_tensors, write_part, write_tensors
from host_trainer.retraining.samples import Samples, joined
from host_trainer.retraining.stages.material import (
    FRESH,
    GOLDEN_FILE,
    HELD_OUT_FILE,
    OWN_FILE,
    SAMPLES_FILE,
    edits_of,
    every_picture,
    renamed,
    seen,
)
from host_trainer.retraining.stages.update import TRAINED


def export(job: Job, part: Path) -> Facts:
    """Leave the backbone file, its golden answers and samples in its space, or say where those in use lie."""
    updated, release = job.run.facts(UPDATE), job.incumbent
    if release is None:
        write_part(part / BACKBONE, (job.run.place(INTAKE) / BACKBONE).read_bytes())
        return {**_as_at_intake(job), **_proven(job, part), "network": updated["network"]}
    as_it_is = {
        **_as_at_intake(job),
        "backbone": release.backbone,
        "golden": release.golden,
        "latency_ms": release.latency_ms,
        "is_new": False,
        "network": release.network,
    }
    if updated["kind"] != TRAINED:
        return as_it_is
    where = job.fleet / updated["network"]
    shown = job.run.place(UPDATE) / network.PICTURES
    file, reasons, parity = network.exported(where, shown, job.run.scratch(EXPORT), job.world)
    looked: Facts = {}
    if not reasons:
        write_part(part / BACKBONE, file.read_bytes())
        looked = _looked_again(job, part)
    reason = reasons[0] if reasons else _why_not(job, part)
    if reason:
        job.world.say(f"only the head after all: {reason}")
        return {**as_it_is, "parity": parity, "fell_back": f"only the head after all: {reason}"}
    return {**looked, **_proven(job, part), "parity": parity, "network": updated["network"]}


def _as_at_intake(job: Job) -> Facts:
    intake = job.run.facts(INTAKE)
    return {name: intake[name] for name in ("own", "samples", "judged_by")}


def _proven(job: Job, part: Path) -> Facts:
    """Record what the new file answers to some pictures, and what it costs here."""
    data = job.options.data or (Path(job.incumbent.data) if job.incumbent and job.incumbent.data else None)
    held_out = job.run.facts(INTAKE)["held_out"]
    shown = data or (Path(held_out) if held_out else None)
    if shown is None:
        raise ConfigError(
            "a release needs pictures that prove it on a board: give --data DIR or --held-out DIR"
        )
    found, count = every_picture(shown), job.options.budgets.golden
    some = found.at(spread(len(found.paths), 4 * count))
    with pictures.opened(part / BACKBONE) as backbone:
        write_part(part / GOLDEN_FILE, golden.record(backbone, pictures.whole(backbone, some.paths, count)))
    place = job.run.place(EXPORT)
    return {
        "backbone": job.relative(place / BACKBONE),
        "golden": job.relative(place / GOLDEN_FILE),
        "latency_ms": measure(part / BACKBONE).latency_ms,
        "is_new": True,
    }


def _looked_again(job: Job, part: Path) -> Facts:
    """Make samples of all pictures with the new backbone; features of the old one are of no use any more."""
    intake, place = job.run.facts(INTAKE), job.run.place(EXPORT)
    with pictures.opened(part / BACKBONE) as backbone:
        own = seen(job, backbone, _own_pictures(intake["data"]))
        write_tensors(part / OWN_FILE, samples.to_tensors(own))
        sent = _of_devices(job, backbone)
        fresh = np.ones(len(sent), bool)
        write_tensors(part / SAMPLES_FILE, {**samples.to_tensors(sent), FRESH: fresh})
        if intake["held_out"]:
            held_out = seen(job, backbone, every_picture(Path(intake["held_out"])))
            write_tensors(part / HELD_OUT_FILE, samples.to_tensors(held_out))
    return {
        "own": job.relative(place / OWN_FILE),
        "samples": job.relative(place / SAMPLES_FILE),
        "judged_by": job.relative(place / HELD_OUT_FILE) if intake["held_out"] else "",
    }


def _why_not(job: Job, part: Path) -> str:
    """Say why the new backbone is not worth its download: by the pictures that no device supplied."""
    intake, edits = job.run.facts(INTAKE), edits_of(job)
    if not intake["held_out"] or job.incumbent is None:
        return ""
    before = (job.fleet / intake[name] for name in ("own", "samples", "judged_by"))
    after = (part / name for name in (OWN_FILE, SAMPLES_FILE, HELD_OUT_FILE))
    return rivals.why_not(
        _seen_by(job.fleet / job.incumbent.backbone, before, edits),
        _seen_by(part / BACKBONE, after, edits),
        job.options.head,
    )


def _seen_by(backbone: Path, files: Iterable[Path], edits: Edits) -> rivals.Seen:
    own, sent, held_out = (samples.from_tensors(read_tensors(path)) for path in files)
    taught = joined([renamed(own, edits, 0), sent])
    with pictures.opened(backbone) as opened:
        return rivals.Seen(opened.space, taught, renamed(held_out, edits, 0))


def _own_pictures(data: str) -> Pictures:
    return read_folder(Path(data), least_classes=1).train if data else Pictures((), np.zeros(0, np.int32), ())


def _of_devices(job: Job, backbone: pictures.Backbone) -> Samples:
    """Return all pictures that devices sent as samples; they were readable when they came."""
    rows = job.run.facts(INTAKE)["pictures"]
    names = tuple(dict.fromkeys(label for _, _, label, _, _ in rows))
    listed = Pictures(
        tuple(job.fleet / path for *_, path in rows),
        np.array([names.index(label) for _, _, label, _, _ in rows], np.int32),
        names,
    )
    found = seen(job, backbone, listed)
    devices = tuple(str(device) for device, *_ in rows)
    return Samples(found.features, found.labels, devices, np.array([row[1] for row in rows], np.int64))
