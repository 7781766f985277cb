"""Decides which bundle a device is offered: its channel's newest that suits it and is rolled out to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_cl.wire.release import Board, Facts, Offer, newest
from host_trainer.server.rules.rollout import Rollout, includes


class Listed(NamedTuple):
    """A bundle that a channel lists.

    Attributes:
        path, size, file: of its target: where, how many bytes, SHA-256.
        facts: what it says of itself.
        manifest: hash of its manifest.
        parent: bundle whose parts it leaves out; 0: none, it is whole.
    """

    path: str
    size: int
    file: str
    facts: Facts
    manifest: str
    parent: int = 0


class Asker(NamedTuple):
    """Who asks: the device, its model, what it can run, and the number of the bundle that it runs."""

    device: str
    model: str
    board: Board
    bundle: int


def chosen(listed: Sequence[Listed], rollouts: Mapping[int, Rollout], asker: Asker) -> Listed | None:
    """Return the bundle to offer; None when there is none, or only older ones than what runs.

    A device refuses what is older than what it had. To take a bundle back, its content is published again
    under a higher number. Of two files of one bundle who runs its parent gets the one that leaves out what
    the parent has, all others the whole one.

    Args:
        listed: in the device's channel, those withdrawn left out.
        rollouts: by bundle number; a bundle without one is for all.
        asker: the device.
    """
    offers = [
        Offer(each.path, each.size, each.file, each.facts)
        for each in listed
        if each.parent in (0, asker.bundle)
        and includes(rollouts.get(each.facts.bundle, Rollout()), asker.device, asker.model, each.facts.bundle)
    ]
    offer = newest(offers, asker.board, asker.bundle).offer
    if offer is None:
        return None
    found = next(each for each in listed if each.path == offer.path)
    same = (
        each for each in listed if each.parent == asker.bundle and each.facts == found.facts and asker.bundle
    )
    return next(same, found)
