"""The deployed network is trained on with what devices sent, or the reason is said why it is not."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulators.foreman import ok
from simulators.foundry import HEAD, KINDS, NEW, NOW, OLD, Fleet, draw, send

from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import open_backbone
from edge_cl.wire.messages import Images
from host_trainer.checkpoints import load_network, weights_of
from host_trainer.release.publisher import found_repository
from host_trainer.retraining import deployed, heads, runs
from host_trainer.retraining.network import Shown, Situation, trained_on, why_only_the_head
from host_trainer.retraining.session import retrain

BATCH = 6
GOOD = Situation(True, False, KINDS, OLD, {NEW: 9}, True)
REASONS = {
    "all is there": (GOOD, ""),
    "asked": (GOOD._replace(head_only=True), "so it was asked"),
    "no network": (GOOD._replace(network=False), "no network of its own"),
    "no pictures": (GOOD._replace(pictures={}), "no pictures came"),
    "own pictures gone": (GOOD._replace(own_at_hand=False), "own pictures are gone"),
    "too few of a new class": (GOOD._replace(pictures={NEW: 3}), f"of class {NEW} fewer than 4"),
    "another spelling": (GOOD._replace(pictures={NEW.upper(): 9}), ""),
    "two classes lack": (
        GOOD._replace(classes=("cup", *KINDS, "pot")),
        "class cup fewer than 4 pictures came, and of 1 others",
    ),
}


@pytest.mark.parametrize(("found", "reason"), REASONS.values(), ids=REASONS)
def test_the_network_is_trained_on_only_with_pictures_of_every_class(found: Situation, reason: str) -> None:
    said = why_only_the_head(found)
    assert (reason in said) if reason else not said


def photographs(folder: Path, kinds: tuple[str, ...], numbers: range) -> Path:
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for number in numbers:
            draw(kind, number).save(folder / kind / f"{number}.png")
    return folder


def images(device: str, kinds: tuple[str, ...], numbers: range) -> Images:
    files = []
    for kind in kinds:
        for number in numbers:
            out = io.BytesIO()
            draw(kind, number).save(out, "JPEG", quality=95)
            files.append(out.getvalue())
    sizes = np.array([len(each) for each in files], np.int32)
    classes = np.repeat(np.arange(len(kinds), dtype=np.int32), len(numbers))
    samples = np.arange(1, len(files) + 1)
    return Images(device, 0, kinds, samples, classes, sizes, np.frombuffer(b"".join(files), np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that was trained on two kinds, with SparCL."""
    root = tmp_path_factory.mktemp("trained")
    photographs(root / "photos", OLD, range(24))
    ok(
        *("train", "--data", root / "photos", "--method", "sparcl-derpp", "--tasks", 1, "--epochs", 4),
        *("--network", "separable:0.5/32", "--batch", BATCH, "--buffer", 24, "--sparsity", 0.5),
        *("--out", root / "network"),
    )
    return root


def first(root: Path, trained: Path) -> Fleet:
    held_out = photographs(root / "held-out", KINDS, range(100, 112))
    fleet = Fleet(root / "fleet", held_out, Path(), FeatureSpace("", 1, "int8", 1.0, 0))
    world = fleet.world()
    found_repository(world.place, world.ring, ["waste"], b"", NOW)
    chosen = fleet.options(
        first=True, network=trained / "network", data=trained / "photos", held_out=held_out
    )
    assert retrain(chosen, world)["accepted"]
    return opened(fleet)


def opened(fleet: Fleet) -> Fleet:
    """Return the fleet with the backbone and the space of its newest release."""
    release = deployed.Deployed(**runs.runs(fleet.folder)[-1].facts(deployed.PUBLICATION))
    file = fleet.folder / release.backbone
    with open_backbone(file) as backbone:
        return fleet._replace(backbone=file, space=backbone.space)


def facts(fleet: Fleet, stage: str) -> dict[str, Any]:
    return runs.runs(fleet.folder)[-1].facts(stage)


@pytest.mark.slow
def test_pictures_train_the_network_on_and_a_new_file_goes_to_the_devices(
    trained: Path, tmp_path: Path
) -> None:
    fleet, contents = first(tmp_path, trained), tmp_path / "contents"
    device = fleet.device("device-1")
    samples = fleet.samples("device-1", [NEW], 20, 20)
    send(contents, device.tell(samples), device.features(samples), images("device-1", (NEW,), range(20, 40)))
    result = fleet.retrain(contents, epochs=4)
    assert result["accepted"], result
    assert facts(fleet, "2-update")["kind"] == "network"
    assert facts(fleet, "3-export")["parity"]["passed"]
    release = deployed.Deployed(**facts(fleet, deployed.PUBLICATION))
    assert release.adopted == ["device-1"] and release.told == {} and release.taken == {}
    assert deployed.manifest_of(fleet.folder, release).labels == KINDS
    later = opened(fleet)
    assert later.space.id != fleet.space.id and release.keyframe == 2
    learner = deployed.learner_of(fleet.folder, release, HEAD.learner)
    assert heads.accuracy(learner, later.samples("", KINDS, 12, 200)) > 0.8

    # The device looks at its pictures again and tells anew; that takes the place of what the host saw.
    again = later.device("device-1")
    send(contents, again.tell(later.samples("device-1", [NEW], 20, 20)))
    assert later.retrain(contents)["accepted"]
    release = deployed.Deployed(**facts(later, deployed.PUBLICATION))
    assert (
        facts(later, "2-update")["reason"] == "only the head: no pictures came since the network was trained"
    )
    assert release.adopted == [] and release.taken == {"device-1": again.last}
    assert facts(later, "4-head")["samples"][NEW] == 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_two_workers_train_what_one_trains(engine: str, trained: Path, tmp_path: Path) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="--engine ray needs Ray")
    fleet = Fleet(tmp_path / "fleet", Path(), Path(), FeatureSpace("", 1, "int8", 1.0, 0))
    # Two of three pictures of a kind are learned from: one step, for more of them magnify rounding.
    folder = photographs(tmp_path / "photos", (*OLD, NEW), range(30, 30 + BATCH // 2))
    shown = [Shown(path.parent.name, path.name, path) for path in sorted(folder.rglob("*.png"))]
    asked = fleet.options(epochs=1)
    for name, how in (("one", asked), ("two", replace(asked, engine=engine, workers=2))):
        trained_on(trained / "network", shown, tmp_path / name, how, fleet.world())
    one, two = (weights_of(load_network(tmp_path / name / "trained").model) for name in ("one", "two"))
    for path, values in one.items():
        assert np.abs(values - two[path]).max() < 1e-4, path


@pytest.mark.slow
def test_without_pictures_of_every_class_the_backbone_stays(trained: Path, tmp_path: Path) -> None:
    fleet, contents = first(tmp_path, trained), tmp_path / "contents"
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    send(contents, replace(images("device-1", (OLD[0],), range(40, 50))))
    assert fleet.retrain(contents)["accepted"]
    assert f"of class {NEW} fewer than" in facts(fleet, "2-update")["reason"]
    assert not facts(fleet, "3-export")["is_new"]
    release = deployed.Deployed(**facts(fleet, deployed.PUBLICATION))
    assert len(release.pictures) == len(release.untrained) == 10  # they wait for the others
