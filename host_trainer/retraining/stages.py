"""Carries out the stages of a run, each from what earlier ones left: the shell around the rules beside it.

intake -> update -> export -> head -> bundle -> gate -> publication. Features are those of the file that
devices run, so a new backbone is exported before a head is made on it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_cl import __version__
from edge_cl.errors import ConfigError, ModelError, ReleaseError
from edge_cl.learning import named
from edge_cl.learning.head import of_learner, to_learner
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named
from edge_cl.sample import FeatureSpace, label_key
from edge_cl.vision.backbone import Backbone, read_model_file
from edge_cl.vision.extractor import cut_at_embedding
from edge_cl.wire import bundle
from edge_cl.wire.labels import Edits, followed
from edge_cl.wire.release import CHANNELS, Facts, path_of
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.datasets.splits import spread
from host_trainer.export import golden
from host_trainer.export.cost import measure
from host_trainer.release.publisher import next_bundle
from host_trainer.release.publisher import publish as listed
from host_trainer.retraining import deployed, heads, pictures, samples, told
from host_trainer.retraining.assembly import (
    BACKBONE,
    Gates,
    Ingredients,
    Label,
    input_of,
    lean,
    manifest_id,
    opened,
    whole,
)
from host_trainer.retraining.contents import Received
from host_trainer.retraining.deployed import PUBLICATION, Deployed
from host_trainer.retraining.gate import HELD_OUT, Cost, Evidence, judge
from host_trainer.retraining.heads import rehearsed
from host_trainer.retraining.intake import Known, Sound, sifted, within, without
from host_trainer.retraining.job import BUNDLE, EXPORT, GATE, HEAD, INTAKE, UPDATE, Job
from host_trainer.retraining.merging import merged
from host_trainer.retraining.runs import Facts as Found
from host_trainer.retraining.runs import read_tensors, write_part, write_tensors
from host_trainer.retraining.samples import Samples, joined, nothing, statistics_of
from host_trainer.retraining.suspicion import Finding, suspicion

OWN_FILE, SAMPLES_FILE, HELD_OUT_FILE = "own.safetensors", "samples.safetensors", "held-out.safetensors"
HEAD_FILE, TOLD, FRESH = "head.safetensors", "told", "fresh"
GOLDEN_FILE, WHOLE, LEAN = "golden.safetensors", "whole.bundle", "lean.bundle"
MEMORY_BYTES = 64_000_000  # of devices' features that are kept to learn from
LEAN_LOSS = 0.01  # of accuracy that a lean head may cost; beyond it the next whole bundle is the start again
GOLDEN_STEPS, GOLDEN_COSINE = 4, 990  # of a feature on another board; measured between kernels: docs/adr/0001
HARDWARE = ("any",)


# -- intake ------------------------------------------------------------------------------------------------


def take_in(job: Job, part: Path) -> Found:
    """See what there is: the host's own pictures, those to judge by, and what devices sent."""
    if job.incumbent is None:
        write_part(part / BACKBONE, _first_backbone(job))
    with pictures.opened(_backbone_now(job, part)) as backbone:
        held_out, where = _judged_by(job, backbone)
        if held_out is not None:
            write_tensors(part / HELD_OUT_FILE, samples.to_tensors(held_out))
        own_facts = _own(job, backbone, part)
        space = backbone.space
    facts = {**own_facts, "held_out": where, "held_out_samples": len(held_out) if held_out else 0}
    return {**facts, **_devices(job, space, held_out, part)}


def _first_backbone(job: Job) -> bytes:
    """Return the backbone of a first release, cut at its embedding as a device would cut it."""
    chosen = job.options.backbone
    if chosen is None:
        raise ConfigError("a first release needs a backbone: give --backbone FILE")
    try:
        return cut_at_embedding(read_model_file(chosen).path.read_bytes()).data
    except ModelError as error:
        raise ModelError(f"{chosen.name}: {error}") from error


def _backbone_now(job: Job, part: Path) -> Path:
    """Return the backbone file that samples are made with at intake."""
    return part / BACKBONE if job.incumbent is None else job.fleet / job.incumbent.backbone


def _judged_by(job: Job, backbone: Backbone) -> tuple[Samples | None, str]:
    """Return the samples that no device supplied and nobody learns from, and the folder they come from."""
    chosen = job.options.held_out
    if chosen is None and job.options.data is not None and (job.options.data / "test").is_dir():
        chosen = job.options.data / "test"
    if chosen is None and job.incumbent is not None and job.incumbent.held_out:
        chosen = Path(job.incumbent.held_out)
        if not chosen.is_dir():
            raise ConfigError(f"{chosen}, by which releases were judged, is gone: give --held-out DIR")
    if chosen is None:
        return None, ""
    found = _seen(job, backbone, _all(chosen))
    return found, str(chosen.resolve())


def _all(folder: Path) -> Pictures:
    found = read_folder(folder, least_classes=1)
    labels = np.concatenate([found.train.labels, found.test.labels])
    return Pictures(found.train.paths + found.test.paths, labels, found.train.classes)


def _own(job: Job, backbone: Backbone, part: Path) -> Found:
    """Return facts of the host's own pictures; a first release makes samples of them."""
    if job.incumbent is not None:
        return {"own": job.incumbent.own, "data": job.incumbent.data}
    options = job.options
    if options.data is None:
        found = nothing(backbone.space, options.head.learner.views)
    else:
        found = _seen(job, backbone, read_folder(options.data, least_classes=1).train)
    write_tensors(part / OWN_FILE, samples.to_tensors(found))
    own = job.relative(job.run.place(INTAKE) / OWN_FILE)
    return {"own": own, "data": str(options.data.resolve()) if options.data else ""}


def _seen(job: Job, backbone: Backbone, chosen: Pictures) -> Samples:
    views = job.options.head.learner.views
    with job.world.open_meter(len(chosen.paths), "pictures") as meter:
        found = pictures.seen(
            backbone, chosen, views, _mirror(job), lambda done: meter.show(done, "looking at pictures")
        )
    for line in found.refused:
        job.world.say(line)
    return found.samples


def _mirror(job: Job) -> bool:
    return job.options.mirror if job.incumbent is None else job.incumbent.mirror


def _devices(job: Job, space: FeatureSpace, held_out: Samples | None, part: Path) -> Found:
    """Sift what devices sent, name those that contradict all others, and keep the rest."""
    edits, views = job.world.contents.edits(), job.options.head.learner.views
    known = _known(job, space, views)
    received = list(job.world.contents.committed(known.contents))
    sound = sifted(received, known, space, views, edits)
    findings = _findings(job, sound, held_out, space, edits)
    suspects = {device: found.reason for device, found in findings.items() if found.reason}
    for device, reason in suspects.items():
        job.world.say(f"{device} is not believed: {reason}")
    sound = without(sound, suspects)
    kept = within(sound.samples, MEMORY_BYTES // (views * space.size * np.dtype(space.dtype).itemsize))
    write_tensors(
        part / SAMPLES_FILE, {**samples.to_tensors(sound.samples.at(kept)), FRESH: sound.fresh[kept]}
    )
    return {
        "registry": edits[-1].version if edits else 0,
        "samples": job.relative(job.run.place(INTAKE) / SAMPLES_FILE),
        "told": _kept_told(job, sound, part),
        "received": _counted(received, sound),
        "accepted": sorted(map(list, sound.accepted)),
        "aside": sorted([*key, reason] for key, reason in sound.aside.items()),
        "waiting": sorted([*key, reason] for key, reason in sound.waiting.items()),
        "findings": {device: _told_finding(each) for device, each in sorted(findings.items())},
        "suspects": suspects,
        "notes": list(sound.notes),
        "no_room": int((~kept).sum()),
    }


def _known(job: Job, space: FeatureSpace, views: int) -> Known:
    release = job.incumbent
    if release is None:
        return Known({}, nothing(space, views))
    found = deployed.samples_of(job.fleet, release) or nothing(space, views)
    return Known(
        deployed.told_of(job.fleet, release),
        found,
        frozenset(release.contents),
        frozenset(),
        release.registry,
    )


def _findings(
    job: Job, sound: Sound, held_out: Samples | None, space: FeatureSpace, edits: Edits
) -> dict[str, Finding]:
    own = _own_samples(job, edits)
    host = [_named(each, space) for each in (own, _renamed(held_out, edits, 0)) if each is not None]
    seen = [each for each in (own, held_out) if each is not None]
    newest = edits[-1].version if edits else 0
    current = [told.moved(each, edits, newest) for each in sound.told.values()]
    return suspicion([each for each in host if each.labels], current, joined([sound.samples, *seen]), space)


def _own_samples(job: Job, edits: Edits) -> Samples | None:
    """Return the host's own samples, named as the fleet names them now; at a first intake there are none."""
    if job.incumbent is None:
        return None
    return _renamed(deployed.own_of(job.fleet, job.incumbent), edits, 0)


def _renamed(found: Samples | None, edits: Edits, version: int) -> Samples | None:
    if found is None:
        return None
    labels = tuple(
        followed(label, edits, version, device, int(number))
        for label, device, number in zip(found.labels, found.devices, found.numbers, strict=True)
    )
    return Samples(found.features, labels, found.devices, found.numbers)


def _named(found: Samples, space: FeatureSpace) -> Named:
    labels = _classes(found)
    return Named(labels, statistics_of(found, labels, space.zero_point))


def _classes(found: Samples) -> tuple[str, ...]:
    """Return the classes of samples, each once, in the order in which they come."""
    spelled: dict[str, str] = {}
    for label in found.labels:
        spelled.setdefault(label_key(label), label)
    return tuple(spelled.values())


def _kept_told(job: Job, sound: Sound, part: Path) -> dict[str, str]:
    """Write what devices told that told something new; return where what each told lies."""
    before = dict(job.incumbent.told) if job.incumbent else {}
    where = {device: before[device] for device in sound.told if device in before}
    for device in sound.changed:
        write_tensors(part / TOLD / f"{device}.safetensors", told.to_tensors(sound.told[device]))
        where[device] = job.relative(job.run.place(INTAKE) / TOLD / f"{device}.safetensors")
    return dict(sorted(where.items()))


def _counted(received: list[Received], sound: Sound) -> dict[str, dict[str, int]]:
    """Return what each device sent that was not known: contents, bytes, and samples that are used."""
    found: dict[str, dict[str, int]] = {}
    for each in received:
        row = found.setdefault(each.device, {"contents": 0, "bytes": 0, "samples": 0, "pictures": 0})
        row["contents"] += 1
        row["bytes"] += len(each.data)
    for device, is_fresh in zip(sound.samples.devices, sound.fresh.tolist(), strict=True):
        if is_fresh and device in found:
            found[device]["samples"] += 1
    for picture in sound.pictures:
        found[picture.device]["pictures"] += 1
    return dict(sorted(found.items()))


def _told_finding(finding: Finding) -> Found:
    agreement = None if finding.agreement is None else round(finding.agreement, 4)
    classes = {label: round(value, 4) for label, value in sorted(finding.classes.items())}
    return {"agreement": agreement, "error": round(finding.error, 4), "classes": classes}


# -- update and export -------------------------------------------------------------------------------------


def update(job: Job, part: Path) -> Found:
    """Decide whether the backbone is trained anew, and say why if not."""
    if job.incumbent is None:
        return {"kind": "first", "reason": "a first release takes the backbone as it is"}
    return {"kind": "head", "reason": "only the head: the release has no network of its own to go on from"}


def export(job: Job, part: Path) -> Found:
    """Leave the backbone file and its golden answers, or say where those in use lie."""
    release = job.incumbent
    if release is not None:
        return {
            "backbone": release.backbone,
            "golden": release.golden,
            "latency_ms": release.latency_ms,
            "is_new": False,
        }
    write_part(part / BACKBONE, (job.run.place(INTAKE) / BACKBONE).read_bytes())
    shown = job.options.data or job.options.held_out
    if shown is None:
        raise ConfigError(
            "a release needs pictures that prove it on a board: give --data DIR or --held-out DIR"
        )
    listed_pictures = _all(shown)
    some = listed_pictures.at(spread(len(listed_pictures.paths), 4 * job.options.budgets.golden))
    with pictures.opened(part / BACKBONE) as backbone:
        count = job.options.budgets.golden
        write_part(part / GOLDEN_FILE, golden.record(backbone, pictures.whole(backbone, some.paths, count)))
    place = job.run.place(EXPORT)
    return {
        "backbone": job.relative(place / BACKBONE),
        "golden": job.relative(place / GOLDEN_FILE),
        "latency_ms": measure(part / BACKBONE).latency_ms,
        "is_new": True,
    }


# -- head --------------------------------------------------------------------------------------------------


def make_head(job: Job, part: Path) -> Found:
    """Merge, train, and leave the exact head, with its answers to samples that it did not train on."""
    intake, edits = job.run.facts(INTAKE), job.world.contents.edits()
    edits = tuple(edit for edit in edits if edit.version <= intake["registry"])
    config, space = job.options.head, _space(job)
    own = _renamed(samples.from_tensors(read_tensors(job.fleet / intake["own"])), edits, 0)
    assert own is not None  # noqa: S101 - there is a file, if an empty one
    kept = read_tensors(job.fleet / intake["samples"])
    of_devices, is_fresh = samples.from_tensors(kept), kept[FRESH].astype(bool)
    tolds = [told.from_tensors(read_tensors(job.fleet / path)) for path in intake["told"].values()]
    host = _named(own, space) if len(own) else named.nothing(space.size)
    found = merged(host, [each for each in tolds if each.space == space.id], edits, job.options.cap)
    known = _in_order(found.known, _old_labels(job, edits))
    newest = edits[-1].version if edits else 0
    current = [told.moved(each, edits, newest) for each in tolds]
    taught = _taught(joined([own, of_devices]), known.labels)
    fresh = np.concatenate([np.full(len(own), job.incumbent is None), is_fresh])[taught]
    everything = joined([own, of_devices]).at(taught)
    learned_from = rehearsed(host, current, found.shares, everything, known.labels, space.zero_point)
    incumbent = _incumbent(job, edits)
    head = heads.made(space, config, known, learned_from, everything, fresh, incumbent)
    write_tensors(part / HEAD_FILE, of_learner(head.learner))
    return {
        "labels": list(known.labels),
        "shrinkage": head.learner.base.shrinkage,
        "gate": head.learner.gate,
        "temperature": head.learner.calibration.temperature,
        "samples": {
            label: int(count)
            for label, count in zip(known.labels, known.statistics.counts // 12, strict=True)
        },
        "shares": {device: round(share, 6) for device, share in sorted(found.shares.items())},
        "taken": dict(sorted(found.taken.items())),
        "held_back": {name: list(values) for name, values in head.held_back._asdict().items()},
        "suspects": [
            [device, number, each.label, each.suggestion, round(each.doubt, 4)]
            for device, number, each in head.suspects
        ],
    }


def _space(job: Job) -> FeatureSpace:
    with pictures.opened(job.fleet / job.run.facts(EXPORT)["backbone"]) as backbone:
        return backbone.space


def _incumbent(job: Job, edits: Edits) -> EdgeLearner | None:
    """Return what devices run now, its classes called as they are called now."""
    if job.incumbent is None:
        return None
    learner = deployed.learner_of(job.fleet, job.incumbent, job.options.head.learner)
    learner.labels = tuple(followed(label, edits, job.incumbent.registry) for label in learner.labels)
    return learner


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


def _taught(found: Samples, labels: tuple[str, ...]) -> np.ndarray:
    """Return (N,) which samples are of a class that the statistics know: others have not been told yet."""
    known = {label_key(label) for label in labels}
    return np.array([label_key(label) in known for label in found.labels], bool)


# -- bundle ------------------------------------------------------------------------------------------------


def assemble(job: Job, part: Path) -> Found:
    """Put the bundles together under the next number, and see what a device will make of them."""
    learner = _candidate(job)
    exported, intake = job.run.facts(EXPORT), job.run.facts(INTAKE)
    number = next_bundle(job.world.place.read(), job.options.model)
    with pictures.opened(job.fleet / exported["backbone"]) as backbone:
        seen = input_of(backbone.manifest(_mirror(job)))
    own = samples.from_tensors(read_tensors(job.fleet / intake["own"]))
    of_devices = samples.from_tensors(read_tensors(job.fleet / intake["samples"]))
    everything = joined([own, of_devices])
    ingredients = Ingredients(
        learner,
        (job.fleet / exported["backbone"]).read_bytes(),
        (job.fleet / exported["golden"]).read_bytes(),
        everything.at(_taught(everything, learner.labels)),
        seen,
    )
    held_out = _held_out(job)
    right = heads.accuracy(learner, held_out) if held_out is not None and len(held_out) else 0.0
    gates = Gates(
        round(1000 * right), round(1000 * job.options.policy.fall), GOLDEN_STEPS, GOLDEN_COSINE, 0, 0
    )
    label = Label(
        job.options.model,
        Facts(number, HARDWARE, __version__),
        intake["registry"],
        gates,
        f"{job.options.model}-{job.run.number}",
    )
    data = whole(ingredients, label, job.options.budgets)
    write_part(part / WHOLE, data)
    facts = {"bundle": number, "whole_bytes": len(data), "manifest": manifest_id(data), "lean_bytes": 0}
    return {**facts, **_lean(job, ingredients, label, opened(data, learner.config)[1], part)}


def _candidate(job: Job) -> EdgeLearner:
    facts, tensors = job.run.facts(HEAD), read_tensors(job.run.place(HEAD) / HEAD_FILE)
    return to_learner(_space(job), job.options.head.learner, facts["labels"], tensors)


def _lean(job: Job, ingredients: Ingredients, label: Label, full: EdgeLearner, part: Path) -> Found:
    """Write a lean bundle, where devices can hold what it goes on from and it answers nearly as well."""
    release = job.incumbent
    if release is None or job.run.facts(EXPORT)["is_new"]:
        return {"keyframe": label.facts.bundle}
    parent = deployed.keyframe_of(job.fleet, release)
    data = lean(ingredients, label, job.options.budgets, parent)
    small, held_out = opened(data, full.config, parent[1])[1], _held_out(job)
    if held_out is not None and len(held_out):
        loss = heads.accuracy(full, held_out) - heads.accuracy(small, held_out)
        if loss > LEAN_LOSS:
            return {"keyframe": label.facts.bundle, "lean_loss": round(loss, 4)}
    write_part(part / LEAN, data)
    return {"keyframe": release.keyframe, "lean_bytes": len(data), "lean_manifest": manifest_id(data)}


def _held_out(job: Job) -> Samples | None:
    """Return the samples to judge by, in the candidate's space."""
    path = job.run.place(INTAKE) / HELD_OUT_FILE
    if not path.is_file():
        return None
    edits = job.world.contents.edits()
    return _renamed(samples.from_tensors(read_tensors(path)), edits, 0)


# -- gate --------------------------------------------------------------------------------------------------


def pass_judgement(job: Job, part: Path) -> Found:
    """Hold the bundle that was made against the one in use."""
    made, exported = job.run.facts(BUNDLE), job.run.facts(EXPORT)
    edits = job.world.contents.edits()
    candidate = opened((job.run.place(BUNDLE) / WHOLE).read_bytes(), job.options.head.learner)[1]
    incumbent, release = _incumbent(job, edits), job.incumbent
    evidence = []
    held_out = _held_out(job)
    if held_out is not None and len(held_out):
        evidence.append(_answers(HELD_OUT, held_out, incumbent, candidate))
    evidence += _held_back(job, incumbent)
    before = None if release is None else Cost(0, release.latency_ms)
    after = Cost(made["whole_bytes"], exported["latency_ms"] if exported["is_new"] else 0.0)
    old = incumbent.labels if incumbent else ()
    return judge(evidence, old, candidate.labels, before, after, job.options.policy).to_dict()


def _answers(source: str, asked: Samples, incumbent: EdgeLearner | None, candidate: EdgeLearner) -> Evidence:
    """Return what both answer to samples of classes that the candidate, or the incumbent, knows."""
    known = {label_key(each) for each in (*candidate.labels, *(incumbent.labels if incumbent else ()))}
    some = asked.at(np.array([label_key(label) in known for label in asked.labels], bool))
    before = None if incumbent is None else heads.answers(incumbent, some.features)
    return Evidence(source, some.labels, before, heads.answers(candidate, some.features))


def _held_back(job: Job, incumbent: EdgeLearner | None) -> list[Evidence]:
    """Return what both answer to each device's samples that no residual trained on.

    The candidate's answers are those of a base without the sample; the incumbent never saw new ones.
    """
    found = job.run.facts(HEAD)["held_back"]
    if incumbent is None or not found["devices"]:
        return []
    kept = samples.from_tensors(read_tensors(job.fleet / job.run.facts(INTAKE)["samples"]))
    keys = zip(kept.devices, kept.numbers.tolist(), strict=True)
    features = dict(zip(keys, kept.features, strict=True))
    evidence = []
    rows = list(zip(*(found[name] for name in ("devices", "numbers", "truth", "answers")), strict=True))
    for device in sorted(set(found["devices"])):
        own = [row for row in rows if row[0] == device]
        asked = np.stack([features[device, number] for _, number, _, _ in own])
        before = heads.answers(incumbent, asked)
        evidence.append(Evidence(device, tuple(row[2] for row in own), before, tuple(row[3] for row in own)))
    return evidence


# -- publication -------------------------------------------------------------------------------------------


def publish(job: Job, part: Path) -> Found:
    """List the bundles in the first channel, signed, and leave what a later run must know.

    Raises:
        ReleaseError: another release was published in the meantime.
    """
    made, model = job.run.facts(BUNDLE), job.options.model
    number = made["bundle"]
    job.world.contents.announce(model, number, job.run.facts(HEAD)["taken"])
    files = {f"{model}-{number}.bundle": WHOLE}
    if made["lean_bytes"]:
        files[f"{model}-{number}-from-{made['keyframe']}.bundle"] = LEAN
    for name, file in sorted(
        files.items(), key=lambda each: each[1] != LEAN
    ):  # whole last: it is what counts
        _listed(job, name, job.run.place(BUNDLE) / file, number)
    return _release(job, made).to_dict()


def _listed(job: Job, name: str, file: Path, number: int) -> None:
    """List a file, unless an interrupted run did so already."""
    place, model = job.world.place, job.options.model
    target = (
        place.read().channels[f"{model}-{CHANNELS[0]}"].signed.targets.get(path_of(model, CHANNELS[0], name))
    )
    if target is not None:
        if place.target_file(target).read_bytes() != file.read_bytes():
            raise ReleaseError(f"{name} was published by somebody else in the meantime: retrain again")
        return
    facts = bundle.read_manifest(file.read_bytes())[0].facts
    listed(place, job.world.ring, file, model, CHANNELS[0], facts, job.world.now, name)


def _release(job: Job, made: Mapping[str, Any]) -> Deployed:
    intake, exported, head = (job.run.facts(stage) for stage in (INTAKE, EXPORT, HEAD))
    own_file, release = job.relative(job.run.place(BUNDLE) / WHOLE), job.incumbent
    is_keyframe = made["keyframe"] == made["bundle"] or release is None
    return Deployed(
        model=job.options.model,
        bundle=made["bundle"],
        run=job.run.number,
        whole=own_file,
        keyframe=made["keyframe"],
        keyframe_file=own_file if is_keyframe or release is None else release.keyframe_file,
        backbone=exported["backbone"],
        golden=exported["golden"],
        latency_ms=exported["latency_ms"],
        own=intake["own"],
        samples=intake["samples"],
        told=intake["told"],
        taken=head["taken"],
        contents=sorted(
            {*(release.contents if release else ()), *(content for _, content in intake["accepted"])}
        ),
        registry=intake["registry"],
        held_out=intake["held_out"],
        data=intake["data"],
        mirror=_mirror(job),
        views=job.options.head.learner.views,
    )


STAGES = (
    (INTAKE, take_in),
    (UPDATE, update),
    (EXPORT, export),
    (HEAD, make_head),
    (BUNDLE, assemble),
    (GATE, pass_judgement),
    (PUBLICATION, publish),
)
