"""What the retraining's tests share: a fleet with a first release on a small real backbone."""

from pathlib import Path

import pytest
from simulators.foundry import ASKED, EACH, KINDS, NOW, OLD, Fleet, draw

from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.extractor import cut_at_embedding
from host_trainer.release.publisher import found_repository
from host_trainer.retraining.session import retrain


@pytest.fixture(scope="session")
def first_fleet(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Fleet:
    """A fleet whose first release knows two kinds of drawn pictures; not to be changed."""
    root = tmp_path_factory.mktemp("fleet")
    for part, kinds, numbers in (
        ("photos", OLD, range(EACH)),
        ("held-out", KINDS, range(100, 100 + ASKED)),
    ):
        for kind in kinds:
            (root / part / kind).mkdir(parents=True)
            for number in numbers:
                draw(kind, number).save(root / part / kind / f"{number}.png")
    backbone = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    cut = root / "backbone.tflite"
    cut.write_bytes(cut_at_embedding(backbone.read_bytes()).data)
    with open_backbone(cut) as opened:
        fleet = Fleet(root / "fleet", root / "held-out", cut, opened.space)
    world = fleet.world()
    found_repository(world.place, world.ring, ["waste"], b"", NOW)
    result = retrain(
        fleet.options(first=True, backbone=backbone, data=root / "photos", held_out=root / "held-out"), world
    )
    assert result["accepted"] and result["bundle"] == 1
    return fleet


@pytest.fixture
def fleet(first_fleet: Fleet, tmp_path: Path) -> Fleet:
    """A fleet of one's own."""
    return first_fleet.copy(tmp_path / "fleet")


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    """An empty folder for contents."""
    folder = tmp_path / "contents"
    folder.mkdir()
    return folder
