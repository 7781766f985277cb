"""Gives devices an earlier release again, under a higher number: they take nothing that is older.

What a rollback leaves is a run of its own, with one stage; the next retraining goes on from there, and looks
again at all that came since.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_cl.errors import ConfigError
from edge_cl.wire import bundle
from edge_cl.wire.release import CHANNELS, role_of
from host_trainer.release.publisher import next_bundle
from host_trainer.release.publisher import publish as listed
from host_trainer.release.repository import Repository
from host_trainer.retraining import deployed
from host_trainer.retraining.assembly import manifest_id
from host_trainer.retraining.deployed import PUBLICATION, Deployed
from host_trainer.retraining.job import World
from host_trainer.retraining.runs import Facts, Run, begun, locked, runs, write_part
from host_trainer.retraining.stages.material import WHOLE

AGAIN = "5-bundle"


class Again(NamedTuple):
    """A release that was published again: the number it had, and the one it has now."""

    was: int
    now: int


def publish_again(fleet: Path, model: str, withdrawn: int, world: World) -> Again | None:
    """Publish the release before a withdrawn one again, wherever that one was listed.

    None where the withdrawn one is not the newest, or was not made here, or is the first: there is nothing
    that should take its place.

    Raises:
        ConfigError: keys are missing.
        ReleaseError: the repository is not whole.
    """
    with locked(fleet):
        repository = world.place.read()
        earlier = _before(fleet, model, withdrawn)
        if earlier is None or next_bundle(repository, model) != withdrawn + 1:
            return None
        order = {"model": model, "again": earlier.bundle, "instead_of": withdrawn}
        run, _ = begun(fleet, order)
        made = run.carry_out(AGAIN, partial(_renumbered, fleet, earlier, withdrawn + 1))
        channels = _channels(repository, model, withdrawn)
        run.carry_out(PUBLICATION, partial(_published, fleet, run, earlier, channels, world))
        run.finish({**order, "bundle": made["bundle"], "accepted": True, "channels": list(channels)})
        return Again(earlier.bundle, made["bundle"])


def _before(fleet: Path, model: str, number: int) -> Deployed | None:
    """Return the release that was in use when a bundle was made; None where that is not known here."""
    try:
        found = deployed.find(fleet, model, number)
        while was := Run(fleet, found.run).order.get("again"):  # what was given again counts as what it was
            found = deployed.find(fleet, model, was)
    except ConfigError:
        return None
    releases = [
        Deployed(**run.facts(PUBLICATION))
        for run in runs(fleet)
        if run.number < found.run and run.place(PUBLICATION).is_dir()
    ]
    return next((each for each in reversed(releases) if each.model == model), None)


def _channels(repository: Repository, model: str, number: int) -> tuple[str, ...]:
    """Return the channels that list a bundle."""
    return tuple(
        channel
        for channel in CHANNELS
        if any(
            target.custom["bundle"] == number
            for target in repository.channels[role_of(model, channel)].signed.targets.values()
        )
    )


def _renumbered(fleet: Path, earlier: Deployed, number: int, part: Path) -> Facts:
    found = bundle.unpack((fleet / earlier.whole).read_bytes())
    data = bundle.pack(replace(found.manifest, bundle=number), found.files)
    write_part(part / WHOLE, data)
    return {"bundle": number, "whole_bytes": len(data), "manifest": manifest_id(data)}


def _published(
    fleet: Path, run: Run, earlier: Deployed, channels: tuple[str, ...], world: World, part: Path
) -> Facts:
    file, number = run.place(AGAIN) / WHOLE, run.facts(AGAIN)["bundle"]
    world.contents.announce(earlier.model, number, earlier.taken)
    facts = bundle.read_manifest(file.read_bytes())[0].facts
    for channel in channels:
        targets = world.place.read().channels[role_of(earlier.model, channel)].signed.targets
        if not any(target.custom["bundle"] == number for target in targets.values()):
            name = f"{earlier.model}-{number}.bundle"
            listed(world.place, world.ring, file, earlier.model, channel, facts, world.now, name)
    whole = file.relative_to(fleet).as_posix()
    again = replace(earlier, bundle=number, run=run.number, whole=whole, keyframe=number, keyframe_file=whole)
    return again.to_dict()
