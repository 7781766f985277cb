"""A release with another backbone: pictures are seen again, and nothing that was taught may be lost."""

from pathlib import Path

import numpy as np
import pytest
from simulators.releases import Host, install, later, of_folder, own_of
from simulators.workshop import BETTER_BACKBONE, ok
from test_installation import assert_same, names, right, state_of

from edge_cl.config import read_settings, write_settings
from edge_cl.device.install import BUNDLES, read_current
from edge_cl.device.installation import probation
from edge_cl.device.opening import open_agent
from edge_cl.device.staged import model_path
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.memory.opening import open_store

SIGNS = ("3", "4", "5")


@pytest.fixture(scope="module")
def better(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another backbone, cut at its embedding: 256 values, in another feature space."""
    folder = tmp_path_factory.mktemp("better")
    ok("init", "--state", folder, "--backbone", models_dir / BETTER_BACKBONE)
    return model_path(folder)


@pytest.fixture
def keeping(device: Path, photos: Path) -> Path:
    """The device with the pictures of what it was taught."""
    keep_pictures(device)
    assert ok("learn", photos, "--state", device)["skipped"] == 18
    return device


def keep_pictures(device: Path) -> None:
    text = (device / "config.toml").read_text()
    (device / "config.toml").write_text(text.replace("keep_jpeg = false", "keep_jpeg = true"))
    settings = read_settings(device)
    assert settings is not None
    assert settings.teaching.keep_jpeg
    write_settings(device, settings)


def released(better: Path, photos: Path, place: Path, *signs: str, number: int = 1):
    return Host(better, of_folder(photos, *signs)).release(place, number)


def spaces(device: Path) -> int:
    with open_store(device, None, read_only=True) as store:
        return 1 if store.other_space is None else 2


def test_kept_pictures_are_seen_again_and_all_that_was_taught_goes_on(keeping, better, all_photos, tmp_path):
    own = own_of(keeping)
    _, record = install(keeping, released(better, all_photos, tmp_path, *SIGNS))
    assert (record.state, record.reason) == ("probation", "")
    assert record.retaught == {
        sign: {"pictures": 6, "without": 0, "exemplars": 0} for sign in ("0", "1", "2")
    }
    assert record.facts["held_back"]["samples"] == 18
    with open_agent(keeping, read_only=True) as agent:
        assert agent.space.size == 256
        assert set(agent.learner.labels) == set("012345")
        assert sum(shown.is_live for shown in agent.samples()) == 18
    assert own_of(keeping).statistics.counts.sum() == own.statistics.counts.sum()
    assert right(keeping, all_photos, *"012345") > 0.8
    assert spaces(keeping) == 2


def test_it_is_kept_and_the_old_features_go(keeping, better, all_photos, photos, tmp_path):
    installation, _ = install(keeping, released(better, all_photos, tmp_path, *SIGNS))
    ok("predict", *sorted(photos.glob("0/*"))[:3], "--state", keeping)
    wanted = state_of(keeping)
    assert installation.advance(later(11)).state == "commit"
    assert spaces(keeping) == 1
    assert names(keeping / BUNDLES) == {read_current(keeping).bundle}
    assert_same(state_of(keeping), wanted)
    assert (
        ok("learn", "--label", "6", *sorted((all_photos / "6").iterdir())[:4], "--state", keeping)["learned"]
        == 4
    )


def test_undone_it_leaves_the_old_features_of_what_was_taught_meanwhile_too(
    keeping, better, all_photos, tmp_path
):
    installation, record = install(keeping, released(better, all_photos, tmp_path, *SIGNS))
    more = sorted((all_photos / "6").iterdir())[:5]
    ok("learn", "--label", "6", *more, "--state", keeping)
    ok("forget", "--sample", 2, "--yes", "--state", keeping)
    probation.fail(keeping, record, "a test")
    assert installation.advance(later(1)).state == "rollback"
    assert spaces(keeping) == 1
    with open_agent(keeping, read_only=True) as agent:
        assert agent.space.size == 64
        assert set(agent.learner.labels) == {"0", "1", "2", "6"}
        assert sum(shown.is_live for shown in agent.samples()) == 22
        assert agent.learner.own_statistics().counts.sum() == 22 * SAMPLE_WEIGHT
    assert ok("predict", *more, "--state", keeping)["unreadable"] == []


def test_a_class_that_would_be_unknown_is_a_reason_to_refuse_and_nothing_changes(
    device, better, all_photos, photos, tmp_path
):
    """No pictures were kept; the release knows two of the three classes."""
    before, learner = read_current(device), state_of(device)
    made = released(better, all_photos, tmp_path, "0", "1", *SIGNS)
    installation, record = install(device, made)
    assert record.state == "rollback"
    assert "'2'" in record.reason
    assert "edge-cl learn --label 2" in record.reason
    assert read_current(device).life.bundle == before.bundle
    assert spaces(device) == 1
    assert_same(state_of(device), learner)
    # What the reason advises helps.
    keep_pictures(device)
    ok("learn", "--label", "2", *sorted(photos.glob("2/*")), "--state", device)
    _, record = install(device, released(better, all_photos, tmp_path, "0", "1", *SIGNS))
    assert record.state == "probation"
    assert record.retaught["2"] == {"pictures": 6, "without": 0, "exemplars": 0}
    assert record.retaught["0"]["pictures"] == 0
    assert record.retaught["0"]["without"] == 6
    assert record.retaught["0"]["exemplars"] >= 6
    assert installation.standing().failures == 1


@pytest.mark.slow
def test_a_picture_that_is_damaged_is_as_one_that_was_not_kept(keeping, better, all_photos, tmp_path):
    import sqlite3

    with sqlite3.connect(keeping / "learner.db") as connection:
        connection.execute("UPDATE jpegs SET data = x'ffd8ff' WHERE sample = 1")
    connection.close()
    _, record = install(keeping, released(better, all_photos, tmp_path, *SIGNS))
    assert record.state == "probation"
    assert record.retaught["0"]["pictures"] == 5


def test_another_process_may_go_on_in_between(keeping, better, all_photos, photos, tmp_path):
    """Taught between shadow and swap: the swap looks at those pictures too."""
    from simulators.releases import BOARD, START

    from edge_cl.device.installation.installation import Installation

    made = released(better, all_photos, tmp_path, *SIGNS)
    installation = Installation(keeping, BOARD)
    installation.consider(made.file, made.manifest, None, START)
    record = installation.standing()
    while record.state != "swap":
        record = installation._step(record, START)
    ok("learn", "--label", "6", *sorted((all_photos / "6").iterdir())[:4], "--state", keeping)
    record = installation.advance(START)
    assert record.state == "probation"
    assert record.retaught["6"]["pictures"] == 4
    assert right(keeping, all_photos, "6") > 0.3


def test_features_that_a_try_left_behind_give_way(keeping, better, all_photos, tmp_path):
    from edge_cl.device.installation import records
    from edge_cl.device.installation.states import Record
    from edge_cl.sample import FeatureSpace

    with open_store(keeping, None) as store:
        store.add_space(FeatureSpace("0" * 16, 8, "int8", 1.0, 0))
    records.write(keeping, Record("rollback", 1, failures=1))
    _, record = install(keeping, released(better, all_photos, tmp_path, *SIGNS))
    assert record.state == "probation"


@pytest.mark.slow
def test_frames_are_tried_with_both_backbones(keeping, better, all_photos, photos, tmp_path):
    from edge_cl.vision.frames import read_image

    frames = [np.asarray(read_image(path)) for path in sorted(photos.glob("*/*"))]
    _, record = install(keeping, released(better, all_photos, tmp_path, *SIGNS), frames=frames)
    assert record.state == "probation"
    assert record.facts["frames"] == 18
