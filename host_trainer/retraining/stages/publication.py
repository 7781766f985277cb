"""Lists the bundles in the first channel, signed, and leaves what a later run must know."""

from pathlib import Path

from edge_cl.errors import ReleaseError
from edge_cl.wire import bundle
from edge_cl.wire.release import CHANNELS, path_of, role_of
from host_trainer.release.publisher import publish as listed
from host_trainer.retraining.deployed import Deployed
from host_trainer.retraining.job import BUNDLE, EXPORT, HEAD, INTAKE, Job
from host_trainer.retraining.runs import Facts
from host_trainer.retraining.stages.material import LEAN, WHOLE, mirrors


def publish(job: Job, part: Path) -> Facts:
    """Publish; the whole bundle comes last, for it is what counts.

    Raises:
        ReleaseError: another release was published in the meantime.
    """
    made, model = job.run.facts(BUNDLE), job.options.model
    number = made["bundle"]
    job.world.contents.announce(model, number, job.run.facts(HEAD)["taken"])
    if made["lean_bytes"]:
        list_file(job, f"{model}-{number}-from-{made['keyframe']}.bundle", job.run.place(BUNDLE) / LEAN)
    list_file(job, f"{model}-{number}.bundle", job.run.place(BUNDLE) / WHOLE)
    return _release(job).to_dict()


def list_file(job: Job, name: str, file: Path) -> None:
    """List a file, unless an interrupted run did so already.

    Raises:
        ReleaseError: another file of that name is listed.
    """
    place, model = job.world.place, job.options.model
    channel = place.read().channels[role_of(model, CHANNELS[0])].signed.targets
    target = channel.get(path_of(model, CHANNELS[0], name))
    if target is not None:
        if place.target_file(target).read_bytes() != file.read_bytes():
            raise ReleaseError(f"{name} was published by somebody else in the meantime: retrain again")
        return
    facts = bundle.read_manifest(file.read_bytes())[0].facts
    listed(place, job.world.ring, file, model, CHANNELS[0], facts, job.world.now, name)


def _release(job: Job) -> Deployed:
    intake, exported, head, made = (job.run.facts(stage) for stage in (INTAKE, EXPORT, HEAD, BUNDLE))
    release, whole = job.incumbent, job.relative(job.run.place(BUNDLE) / WHOLE)
    is_keyframe = release is None or made["keyframe"] == made["bundle"]
    before = set(release.contents) if release else set()
    is_trained = exported["is_new"] and release is not None
    return Deployed(
        model=job.options.model,
        bundle=made["bundle"],
        run=job.run.number,
        whole=whole,
        keyframe=made["keyframe"],
        keyframe_file=whole if is_keyframe or release is None else release.keyframe_file,
        backbone=exported["backbone"],
        golden=exported["golden"],
        latency_ms=exported["latency_ms"],
        own=exported["own"],
        samples=exported["samples"],
        told={} if is_trained else intake["told"],
        taken=head["taken"],
        contents=sorted({*before, *(content for _, content in intake["accepted"])}),
        pictures=intake["pictures"],
        untrained=[] if is_trained else _untrained(job),
        adopted=head["adopted"],
        registry=intake["registry"],
        held_out=intake["held_out"],
        network=exported["network"],
        data=intake["data"],
        mirror=mirrors(job),
        views=job.options.head.learner.views,
    )


def _untrained(job: Job) -> list[str]:
    """Return the hashes of the pictures that the network was not trained on."""
    release = job.incumbent
    known = {str(each[3]) for each in release.pictures} - set(release.untrained) if release else set()
    return sorted(str(each[3]) for each in job.run.facts(INTAKE)["pictures"] if each[3] not in known)
