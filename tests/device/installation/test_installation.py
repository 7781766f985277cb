"""A release is tried, swapped in, watched and kept, or undone with a reason; nothing taught here is lost."""

from pathlib import Path

import numpy as np
import pytest
from simulators.releases import BOARD, START, install, later, of_folder, own_of
from simulators.workshop import ok

from edge_cl.device.folders import from_files
from edge_cl.device.install import BUNDLES, CHECKPOINTS, read_current
from edge_cl.device.installation import probation
from edge_cl.device.installation.installation import Installation
from edge_cl.device.opening import open_agent
from edge_cl.errors import ReleaseError, StoreBusyError
from edge_cl.learning.statistics import SAMPLE_WEIGHT

TOLD = "a" * 64  # id of the statistics that the device has told


def right(state: Path, photos: Path, *labels: str) -> float:
    """Ask about every picture of some signs, and return the share of right answers."""
    with open_agent(state, with_backbone=True, read_only=True) as agent:
        asked = [(path, label) for label, paths in of_folder(photos, *labels).items() for path in paths]
        return float(np.mean([agent.answer(path).best == label for path, label in asked]))


def state_of(state: Path) -> dict[str, np.ndarray]:
    """Return all that a learner is, as arrays."""
    with open_agent(state, read_only=True) as agent:
        return agent.learner.flatten()


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def tried(device, host, tmp_path):
    """The device with a release on probation, and its installation."""
    told = own_of(device)
    installation, record = install(device, host.release(tmp_path / "tuf"), TOLD, {TOLD: told})
    assert (record.state, record.reason) == ("probation", "")
    return installation


def test_either_knows_what_the_other_was_taught(tried, device, all_photos):
    assert right(device, all_photos, *"012345") > 0.8
    with open_agent(device, read_only=True) as agent:
        assert set(agent.learner.labels) == set("012345")
        assert agent.learner.own_statistics().counts.sum() == 18 * SAMPLE_WEIGHT
        assert (
            agent.learner.base.statistics.counts.sum() == (18 + 36) * SAMPLE_WEIGHT
        )  # what was told counts once
        assert sum(shown.is_live for shown in agent.samples()) == 18
        assert agent.taken == TOLD
    assert tried.running() == (1, TOLD)


def test_a_release_is_kept_after_enough_answers_and_time(tried, device, photos, all_photos, tmp_path):
    before = read_current(device)
    paths = sorted(photos.glob("0/*"))
    ok("predict", *paths[:2], "--state", device)
    assert tried.advance(later(11)).state == "probation"  # two answers are too few
    ok("predict", paths[2], "--state", device)
    assert tried.advance(later(9)).state == "probation"  # and nine minutes
    record = tried.advance(later(11))
    assert (record.state, record.bundle, record.reason, record.failures) == ("commit", 1, "", 0)
    current = read_current(device)
    assert current == before._replace(fallback=None)
    assert names(device / BUNDLES) == {current.bundle}
    assert len(names(device / CHECKPOINTS)) == 2
    assert names(tmp_path / "tuf") == set()
    assert tried.advance(later(99)) == record
    assert right(device, all_photos, *"012345") > 0.8


def test_what_is_taught_under_a_release_goes_on_from_there_bit_for_bit(tried, device, all_photos):
    """Checkpoint and log lead to the uninterrupted run, whichever checkpoint is whole."""
    with open_agent(device, with_backbone=True) as agent:
        agent.teach(from_files("3", sorted((all_photos / "3").iterdir())[:4]).pictures, steps=8)
        agent.save()
        wanted = agent.learner.flatten()
    assert_same(state_of(device), wanted)
    newest = device / CHECKPOINTS / read_current(device).checkpoint.name
    newest.write_bytes(newest.read_bytes()[:-9])
    assert_same(state_of(device), wanted)


def test_a_release_undone_leaves_what_was_there_and_what_was_taught_meanwhile(tried, device, all_photos):
    more = sorted((all_photos / "6").iterdir())[:5]
    ok("learn", "--label", "6", *more, "--state", device)
    current = read_current(device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_cl.device.installation.probation.LEAST_JUDGED", 1)
        patch.setattr(
            "edge_cl.device.installation.probation.ERRORS", -100.0
        )  # whatever was right was too little
        record = tried.advance(later(1))
    assert record.state == "rollback"
    assert "right before being told" in record.reason
    assert (record.failures, record.staged) == (1, "")
    assert read_current(device) == current._replace(**current.fallback._asdict(), fallback=None)
    assert names(device / BUNDLES) == {current.fallback.bundle}
    with open_agent(device, read_only=True) as agent:
        assert set(agent.learner.labels) == {"0", "1", "2", "6"}
        assert len(agent.samples()) == 23
        assert agent.learner.own_statistics().counts.sum() == 23 * SAMPLE_WEIGHT
        assert agent.taken is None
    assert tried.running() == (0, None)


def test_what_is_forgotten_on_probation_stays_forgotten_when_it_is_undone(tried, device, all_photos):
    secret = sorted((all_photos / "6").iterdir())[:3]
    ok("learn", "--label", "very-secret", *secret, "--state", device)
    with open_agent(device) as agent:
        gone = agent.store.features([1])[1][0].tobytes()
        assert agent.forget([1], label="very-secret") == (4, 0)
    everything = b"".join(path.read_bytes() for path in device.rglob("*") if path.is_file())
    assert gone not in everything
    assert b"very-secret" not in everything
    probation.fail(device, tried.standing(), "a test")
    with open_agent(device, read_only=True) as agent:
        assert set(agent.learner.labels) == {"0", "1", "2"}
        assert len(agent.samples()) == 17
        assert agent.learner.own_statistics().counts.sum() == 17 * SAMPLE_WEIGHT


def test_what_was_not_told_yet_is_not_lost(device, host, all_photos, tmp_path):
    """Told up to TOLD, then taught more: the release has the former, the device adds the latter."""
    told = own_of(device)
    ok("learn", "--label", "6", *sorted((all_photos / "6").iterdir())[:5], "--state", device)
    _, record = install(device, host.release(tmp_path), TOLD, {TOLD: told})
    assert record.state == "probation"
    with open_agent(device, read_only=True) as agent:
        own = dict(zip(agent.learner.labels, agent.learner.own_statistics().counts.tolist(), strict=True))
        base = dict(zip(agent.learner.labels, agent.learner.base.counts.tolist(), strict=True))
    taught = {"0": 6, "1": 6, "2": 6, "6": 5}
    assert own == {sign: taught.get(sign, 0) * SAMPLE_WEIGHT for sign in "0123456"}
    assert {sign: base[sign] // SAMPLE_WEIGHT for sign in taught} == taught
    assert right(device, all_photos, "6") > 0.3


def test_a_release_that_knows_nothing_of_us_gets_all_we_know(device, stranger, all_photos, tmp_path):
    own = own_of(device)
    _, record = install(device, stranger.release(tmp_path))
    assert record.state == "probation"
    assert own_of(device).statistics.counts.sum() == own.statistics.counts.sum()
    assert right(device, all_photos, *"012345") > 0.8


def test_the_next_release_goes_on_from_the_one_in_use(tried, device, host, all_photos, tmp_path):
    """What was told in all is what the last release had of us and what came since."""
    ok("predict", *sorted(all_photos.glob("0/*"))[:3], "--state", device)
    assert tried.advance(later(11)).state == "commit"
    ok("learn", "--label", "6", *sorted((all_photos / "6").iterdir())[:5], "--state", device)
    told = {TOLD: host.known, "b" * 64: own_of(device)}
    host.hear(told["b" * 64])
    installation, record = install(device, host.release(tmp_path, 2), "b" * 64, told)
    assert (record.state, record.reason) == ("probation", "")
    assert own_of(device).statistics.counts.sum() == 23 * SAMPLE_WEIGHT
    with open_agent(device, read_only=True) as agent:
        assert agent.learner.base.counts.sum() == (23 + 36) * SAMPLE_WEIGHT
    assert right(device, all_photos, *"0123456") > 0.75
    assert installation.running() == (2, "b" * 64)


def test_a_fresh_device_begins_with_what_the_fleet_knows(state, all_photos, tmp_path):
    from simulators.releases import Host

    from edge_cl.device.staged import model_path

    host = Host(model_path(state), of_folder(all_photos, "3", "4", "5"))
    _, record = install(state, host.release(tmp_path))
    assert record.state == "probation"
    assert right(state, all_photos, "3", "4", "5") > 0.8
    assert ok("status", "--state", state)["samples"] == 0


def test_only_newer_releases_are_taken_up_one_at_a_time(tried, device, host, tmp_path):
    with pytest.raises(ReleaseError, match="still at probation"):
        again = host.release(tmp_path, 2)
        tried.consider(again.file, again.manifest, TOLD, START)
    ok("predict", *sorted(device.parent.glob("PHOTOS/0/*"))[:3], "--state", device)
    assert tried.advance(later(11)).state == "commit"
    same = host.release(tmp_path, 1)
    with pytest.raises(ReleaseError, match="not newer"):
        tried.consider(same.file, same.manifest, TOLD, START)
    assert tried.standing().state == "commit"


def test_a_release_at_its_end_is_put_out_of_the_way_before_the_next_one(tried, device, stranger, tmp_path):
    """Undone by whoever came next, its files still there; then another comes while somebody teaches."""
    probation.fail(device, tried.standing(), "a test")
    made = stranger.release(tmp_path, 2)
    with open_agent(device), pytest.raises(ReleaseError, match="not out of the way"):
        tried.consider(made.file, made.manifest, None, START)
    tried.consider(made.file, made.manifest, None, START)
    assert tried.advance(START).state == "probation"
    assert len(names(device / BUNDLES)) == 2


def test_while_somebody_teaches_it_waits(device, host, tmp_path):
    told = own_of(device)
    made = host.release(tmp_path)
    installation = Installation(device, BOARD, {TOLD: told}.get)
    installation.consider(made.file, made.manifest, TOLD, START)
    with open_agent(device):
        for _ in range(4):  # not a failure of the release, however often
            with pytest.raises(StoreBusyError):
                installation.advance(START)
    assert installation.advance(START).state == "probation"
