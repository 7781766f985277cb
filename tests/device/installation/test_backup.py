"""A backup taken on probation comes back on probation, and can still go either way."""

import pytest
from simulators.releases import BOARD, install, later, own_of
from simulators.workshop import ok
from test_installation import TOLD, assert_same, state_of

from edge_cl.device.install import read_current
from edge_cl.device.installation import probation
from edge_cl.device.installation.installation import Installation
from edge_cl.device.opening import open_agent


@pytest.fixture
def back(device, host, all_photos, tmp_path):
    """The device after a restore; taught a little on probation before the backup."""
    install(device, host.release(tmp_path / "tuf"), TOLD, {TOLD: own_of(device)})
    ok("learn", "--label", "6", *sorted((all_photos / "6").iterdir())[:4], "--state", device)
    ok("backup", tmp_path / "backup.tar", "--state", device)
    ok("restore", tmp_path / "backup.tar", "--state", tmp_path / "back")
    return tmp_path / "back"


def test_it_is_the_same_learner_with_the_same_way_back(back, device):
    assert_same(state_of(back), state_of(device))
    assert read_current(back) == read_current(device)
    assert Installation(back, BOARD).standing() == Installation(device, BOARD).standing()
    assert Installation(back, BOARD).running() == (1, TOLD)


def test_it_can_be_kept(back, photos):
    ok("predict", *sorted(photos.glob("0/*"))[:3], "--state", back)
    assert Installation(back, BOARD).advance(later(11)).state == "commit"
    assert read_current(back).fallback is None


def test_it_can_be_undone(back):
    installation = Installation(back, BOARD)
    probation.fail(back, installation.standing(), "a test")
    with open_agent(back, read_only=True) as agent:
        assert set(agent.learner.labels) == {"0", "1", "2", "6"}


def test_a_release_that_was_kept_comes_back_with_its_exemplars(device, host, tmp_path, photos):
    installation, _ = install(device, host.release(tmp_path / "tuf"), TOLD, {TOLD: own_of(device)})
    ok("predict", *sorted(photos.glob("0/*"))[:3], "--state", device)
    assert installation.advance(later(11)).state == "commit"
    ok("backup", tmp_path / "backup.tar", "--state", device)
    ok("restore", tmp_path / "backup.tar", "--state", tmp_path / "back")
    assert_same(state_of(tmp_path / "back"), state_of(device))
    with open_agent(tmp_path / "back", read_only=True) as agent:
        assert agent.notes == []
        assert min(agent.learner.live_samples()) < 0
