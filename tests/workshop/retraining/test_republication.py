"""A release that is taken back makes room for the one before it, under a number that devices take."""

from pathlib import Path

import numpy as np
from simulators.foreman import ok
from simulators.foundry import KINDS, NEW, OLD, Fleet, send

from edge_cl.wire import bundle
from edge_cl.wire.release import CHANNELS
from host_trainer.retraining import deployed, heads, runs
from host_trainer.retraining.republication import publish_again


def newest(fleet: Fleet) -> deployed.Deployed:
    return deployed.Deployed(**runs.runs(fleet.folder)[-1].facts(deployed.PUBLICATION))


def listed(fleet: Fleet) -> list[int]:
    channel = fleet.world().place.read().channels[f"waste-{CHANNELS[0]}"].signed.targets
    return sorted({target.custom["bundle"] for target in channel.values()})


def test_the_release_before_comes_again_and_the_next_training_goes_on_from_it(
    fleet: Fleet, contents: Path
) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    fleet.retrain(contents)
    assert publish_again(fleet.folder, "waste", 2, fleet.world()) == (1, 3)
    assert listed(fleet) == [1, 2, 3]
    release = newest(fleet)
    assert release.bundle == release.keyframe == 3 and release.taken == {}
    manifest = deployed.manifest_of(fleet.folder, release)
    assert (manifest.bundle, manifest.parent, manifest.labels) == (3, 0, OLD)
    first, third = (
        bundle.unpack((fleet.folder / "runs" / place / "5-bundle" / "whole.bundle").read_bytes())
        for place in ("1", "3")
    )
    assert first.files == third.files
    assert fleet.retrain(contents)["bundle"] == 4  # what came after the first release is looked at again
    assert newest(fleet).taken == {"device-1": device.last}


def test_taken_back_twice_it_goes_back_twice(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    for count in (8, 14):
        send(contents, device.tell(fleet.samples("device-1", [NEW], count, 20)))
        fleet.retrain(contents)
    assert publish_again(fleet.folder, "waste", 3, fleet.world()) == (2, 4)
    assert publish_again(fleet.folder, "waste", 4, fleet.world()) == (1, 5)
    assert publish_again(fleet.folder, "waste", 5, fleet.world()) is None  # nothing was before the first


def test_what_is_not_the_newest_or_not_from_here_is_left(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    fleet.retrain(contents)
    assert publish_again(fleet.folder, "waste", 1, fleet.world()) is None
    assert publish_again(fleet.folder, "waste", 9, fleet.world()) is None
    assert listed(fleet) == [1, 2]


def test_interrupted_after_the_listing_it_ends_the_same(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    fleet.retrain(contents)
    publish_again(fleet.folder, "waste", 2, fleet.world())
    run = runs.runs(fleet.folder)[-1]
    (run.folder / runs.RESULT).unlink()
    assert listed(fleet) == [1, 2, 3] and run.result is None
    again = publish_again(fleet.folder, "waste", 2, fleet.world())
    assert again in (None, (1, 3)) and listed(fleet) == [1, 2, 3]


def test_the_command_takes_a_bundle_from_all_and_gives_the_one_before(fleet: Fleet, contents: Path) -> None:
    send(contents, fleet.device("device-1").tell(fleet.samples("device-1", [NEW], 14, 20)))
    assert ok("retrain", fleet.folder, "--contents", contents)["bundle"] == 2
    result = ok("rollback", 2, fleet.folder, "--why", "it calls everything a disc")
    assert result["again"] == 3 and result["listings"] >= 1
    learner = deployed.learner_of(fleet.folder, newest(fleet), heads.HeadConfig().learner)
    asked = fleet.samples("", KINDS[:2], 6, 200)
    assert (
        np.mean(
            [
                one == two
                for one, two in zip(heads.answers(learner, asked.features), asked.labels, strict=True)
            ]
        )
        > 0.9
    )
