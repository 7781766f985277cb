"""Runs one retraining from what was asked to a signed release, or to the reasons why there is none."""

from dataclasses import replace
from functools import partial
from typing import Any

from edge_cl.errors import ConfigError
from edge_cl.wire.release import CHANNELS, role_of
from host_trainer.release.repository import max_bundle
from host_trainer.retraining import deployed
from host_trainer.retraining.deployed import PUBLICATION, Deployed
from host_trainer.retraining.destruction import destroy
from host_trainer.retraining.job import BUNDLE, EXPORT, GATE, HEAD, INTAKE, UPDATE, Job, Options, World
from host_trainer.retraining.report import Told, render
from host_trainer.retraining.runs import begun, locked, write_report
from host_trainer.retraining.stages import STAGES

REPORT = "report.html"
TOLD = {
    "intake": INTAKE,
    "update": UPDATE,
    "export": EXPORT,
    "head": HEAD,
    "bundle": BUNDLE,
    "gate": GATE,
}


def retrain(options: Options, world: World) -> dict[str, Any]:
    """Retrain, and return plain facts about it; a run that was killed goes on where it was.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done.
        StoreError: the disk refuses, or another process retrains this fleet.
        ReleaseError: the repository is not whole, or somebody else published in the meantime.
    """
    with locked(options.fleet):
        incumbent = _incumbent(options, world)
        options = _as_before(options, incumbent)
        run, is_new = begun(options.fleet, options.order(incumbent.bundle if incumbent else 0))
        world.say(f"run {run.number}" + ("" if is_new else " goes on"))
        job = Job(run, options, incumbent, world)
        for stage, work in STAGES:
            if stage == PUBLICATION and not run.facts(GATE)["accepted"]:
                break
            run.carry_out(stage, partial(work, job))
            if stage == INTAKE:
                destroy(options.fleet, map(tuple, run.facts(INTAKE)["withdrawn"]))
                if incumbent is not None and _is_idle(job):
                    return _closed(job, [f"nothing came since bundle {incumbent.bundle}"])
        return _ended(job)


def _incumbent(options: Options, world: World) -> Deployed | None:
    """Return the newest release of the model; None for a first one.

    Raises:
        ConfigError: there is none and no first one was asked for, or the other way round.
    """
    repository, model = world.place.read(), options.model
    roles = [role_of(model, channel) for channel in CHANNELS]
    if not set(roles) <= repository.channels.keys():
        raise ConfigError(f"no model {model} here: add it with `host-trainer init DIR --model {model}`")
    number = max_bundle(repository, roles)
    if options.first:
        return None
    if not number:
        raise ConfigError(f"{model} has no release yet: make one with --first")
    return deployed.find(options.fleet, model, number)


def _as_before(options: Options, incumbent: Deployed | None) -> Options:
    """Return the options with as many views of a picture as the model's releases have."""
    if incumbent is None:
        return options
    learner = replace(options.head.learner, views=incumbent.views)
    return replace(options, head=replace(options.head, learner=learner))


def _is_idle(job: Job) -> bool:
    """Tell whether nothing is different from what the release in use was made of."""
    intake, release = job.run.facts(INTAKE), job.incumbent
    if release is None or intake["accepted"] or intake["withdrawn"] or intake["suspects"]:
        return False
    return bool(intake["registry"] == release.registry and not release.untrained)


def _closed(job: Job, reasons: list[str], bundle: int = 0) -> dict[str, Any]:
    """Tell what became of each content, and return how the run ended; `bundle` is 0 without a release."""
    intake = job.run.facts(INTAKE)
    aside = {(device, content): reason for device, content, reason in intake["aside"]}
    taken = [(device, content) for device, content in intake["accepted"]] if bundle else []
    job.world.contents.close(taken, aside)
    result: dict[str, Any] = {
        "run": job.run.number,
        "model": job.options.model,
        "accepted": bool(bundle),
        "idle": _is_idle(job),
        "reasons": reasons,
        "bundle": bundle,
        "suspects": intake["suspects"],
        "quarantined": len(aside),
        "folder": str(job.run.folder),
        "report": "",
    }
    if result["idle"]:
        job.run.finish(result)
    return result


def _ended(job: Job) -> dict[str, Any]:
    run, gate = job.run, job.run.facts(GATE)
    release = run.facts(PUBLICATION) if gate["accepted"] else {}
    result = _closed(job, gate["reasons"], release.get("bundle", 0))
    stages = {field: run.facts(stage) for field, stage in TOLD.items()}
    page = write_report(run, REPORT, render(Told(run.number, run.order, **stages, result=result)))
    result["report"] = str(page)
    run.finish(result)
    return result
