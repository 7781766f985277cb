"""Trains the backbone on where pictures came for it, and says in words why where it does not."""

from collections import Counter
from pathlib import Path

from edge_cl.learning.increment import union
from edge_cl.sample import label_key
from edge_cl.wire.labels import followed
from host_trainer.retraining import deployed, network, told
from host_trainer.retraining.job import INTAKE, UPDATE, Job
from host_trainer.retraining.network import Shown, Situation
from host_trainer.retraining.runs import Facts, read_tensors
from host_trainer.retraining.samples import classes
from host_trainer.retraining.stages.material import edits_of, renamed

NETWORK = "network"
ONLY_HEAD, TRAINED, FIRST = "head", "network", "first"


def update(job: Job, part: Path) -> Facts:
    """Leave the network as it was trained on, or the reason why only a head is made."""
    if job.incumbent is None:
        return _first(job, part)
    reason = network.why_only_the_head(_situation(job))
    if reason:
        job.world.say(reason)
        return {"kind": ONLY_HEAD, "reason": reason, "network": job.incumbent.network}
    shown, scratch = _shown(job), job.run.scratch(UPDATE)
    job.world.say(f"training the network on {len(shown)} pictures")
    found = network.trained_on(job.fleet / job.incumbent.network, shown, scratch, job.options, job.world)
    network.keep(scratch / network.TRAINED, part / NETWORK)
    network.laid_out(shown, part / network.PICTURES)
    return {
        "kind": TRAINED,
        "reason": f"trained on with {len(shown)} pictures, from the network in use",
        "network": job.relative(job.run.place(UPDATE) / NETWORK),
        **found,
    }


def _first(job: Job, part: Path) -> Facts:
    """Keep the network of a first release, if it has one."""
    if job.options.network is None:
        return {"kind": FIRST, "reason": "a first release takes the backbone as it is", "network": ""}
    network.keep(job.options.network, part / NETWORK)
    where = job.relative(job.run.place(UPDATE) / NETWORK)
    return {"kind": FIRST, "reason": "a first release, of the network that was given", "network": where}


def _situation(job: Job) -> Situation:
    release, edits = job.incumbent, edits_of(job)
    assert release is not None  # noqa: S101 - the caller asked
    own = renamed(deployed.own_of(job.fleet, release), edits, 0)
    labels = classes(own)
    for path in job.run.facts(INTAKE)["told"].values():
        each = told.from_tensors(read_tensors(job.fleet / path))
        counted = [name for name, count in zip(each.labels, each.counts, strict=True) if count]
        labels = union(labels, [followed(name, edits, each.registry) for name in counted])
    found = network.classes_met(job.fleet / release.network) if release.network else ()
    return Situation(
        network=bool(release.network),
        head_only=job.options.head_only,
        classes=labels,
        met=tuple(followed(label, edits) for label in found),
        pictures=Counter(each.label for each in _sent(job)),
        own_at_hand=not len(own) or Path(release.data).is_dir(),
    )


def _sent(job: Job) -> list[Shown]:
    """Return the pictures of devices that the network was not trained on, under the spelling of the fleet."""
    release = job.incumbent
    assert release is not None  # noqa: S101 - the caller asked
    intake, spelled = job.run.facts(INTAKE), dict[str, str]()
    known = {str(each[3]) for each in release.pictures} - set(release.untrained)
    found = []
    for device, number, label, digest, path in intake["pictures"]:
        if digest not in known:
            name = spelled.setdefault(label_key(label), label)
            found.append(Shown(name, f"{device}-{number}-{digest[:8]}.jpg", job.fleet / path))
    return found


def _shown(job: Job) -> list[Shown]:
    """Return what the network is trained on: what devices sent, and some of the host's own again."""
    release, edits = job.incumbent, edits_of(job)
    assert release is not None  # noqa: S101 - the caller asked
    own = network.own_shown(Path(release.data)) if release.data else []
    again = [each._replace(label=followed(each.label, edits)) for each in own]
    sent = _sent(job)
    spelled = {label_key(each.label): each.label for each in (*sent, *again)}
    return [each._replace(label=spelled[label_key(each.label)]) for each in (*again, *sent)]
