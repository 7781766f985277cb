"""Puts the bundles together under the next number, and sees what a device will make of them."""

from pathlib import Path

from edge_cl import __version__
from edge_cl.learning.learner import EdgeLearner
from edge_cl.wire.release import ANY, Facts
from host_trainer.release.publisher import next_bundle
from host_trainer.retraining import deployed, heads, pictures
from host_trainer.retraining.assembly import (
    Gates,
    Ingredients,
    Label,
    input_of,
    lean,
    manifest_id,
    opened,
    whole,
)
from host_trainer.retraining.job import EXPORT, INTAKE, Job
from host_trainer.retraining.runs import Facts as Found
from host_trainer.retraining.runs import write_part
from host_trainer.retraining.samples import Samples, joined, known_to
from host_trainer.retraining.stages.material import (
    LEAN,
    WHOLE,
    candidate,
    edits_of,
    judged_by,
    mirrors,
    of_devices,
    own,
)

LEAN_LOSS = 0.01  # of accuracy that a lean head may cost; beyond it the next whole bundle is the start again
GOLDEN_STEPS, GOLDEN_COSINE = 4, 990  # of a feature on another board; measured between kernels: docs/adr/0001
HARDWARE = (ANY,)


def assemble(job: Job, part: Path) -> Found:
    """Leave the whole bundle, and a lean one where devices can hold what it goes on from."""
    learner, edits = candidate(job), edits_of(job)
    asked = judged_by(job, edits)
    label = _label(job, heads.accuracy(learner, asked) if asked is not None else 0.0)
    ingredients = _ingredients(job, learner)
    data = whole(ingredients, label, job.options.budgets)
    write_part(part / WHOLE, data)
    facts: Found = {
        "bundle": label.facts.bundle,
        "manifest": manifest_id(data),
        "whole_bytes": len(data),
        "lean_bytes": 0,
    }
    return {**facts, **_lean(job, ingredients, label, opened(data, learner.config)[1], asked, part)}


def _label(job: Job, right: float) -> Label:
    number = next_bundle(job.world.place.read(), job.options.model)
    fall = round(1000 * job.options.policy.fall)
    gates = Gates(round(1000 * right), fall, GOLDEN_STEPS, GOLDEN_COSINE, 0, 0)
    facts, registry = Facts(number, HARDWARE, __version__), job.run.facts(INTAKE)["registry"]
    return Label(job.options.model, facts, registry, gates, f"{job.options.model}-{job.run.number}")


def _ingredients(job: Job, learner: EdgeLearner) -> Ingredients:
    exported = job.run.facts(EXPORT)
    with pictures.opened(job.fleet / exported["backbone"]) as backbone:
        taken = input_of(backbone.manifest(mirrors(job)))
    everything = joined([own(job, edits_of(job)), of_devices(job)[0]])
    return Ingredients(
        learner,
        (job.fleet / exported["backbone"]).read_bytes(),
        (job.fleet / exported["golden"]).read_bytes(),
        everything.at(known_to(everything, learner.labels)),
        taken,
    )


def _lean(
    job: Job, ingredients: Ingredients, label: Label, full: EdgeLearner, asked: Samples | None, part: Path
) -> Found:
    """Write a lean bundle, where it answers nearly as well as the whole one."""
    release = job.incumbent
    # Who runs a bundle that came in two forms may have either, and they differ by roundings: nothing can go
    # on from it. So a lean bundle is followed by one that is whole for everybody.
    is_start = release is not None and release.keyframe == release.bundle
    if release is None or not is_start or job.run.facts(EXPORT)["is_new"]:
        return {"keyframe": label.facts.bundle}
    parent = deployed.keyframe_of(job.fleet, release)
    data = lean(ingredients, label, job.options.budgets, parent)
    small = opened(data, full.config, parent[1])[1]
    sent = of_devices(job)[0]
    # Each device will ask it about its own samples, and turn it down where it has become worse on them.
    judges = [asked, sent.at(known_to(sent, full.labels))]
    loss = max(
        (_loss(full, small, each) for each in judges if each is not None and len(each.labels)), default=0.0
    )
    if loss > LEAN_LOSS:
        return {"keyframe": label.facts.bundle, "lean_loss": round(loss, 4)}
    write_part(part / LEAN, data)
    return {"keyframe": release.keyframe, "lean_bytes": len(data), "lean_manifest": manifest_id(data)}


def _loss(full: EdgeLearner, small: EdgeLearner, asked: Samples) -> float:
    return heads.accuracy(full, asked) - heads.accuracy(small, asked)
