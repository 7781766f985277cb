"""`edge-cl status` says what of the host's runs, how its last release fared, and what was taught again."""

import pytest
from simulators.releases import install, own_of
from simulators.workshop import call, ok, refused
from test_installation import TOLD
from test_new_backbone import SIGNS, better, released

from edge_cl.device.installation import probation

__all__ = ["better"]


def words(device) -> str:
    return call("status", "--state", device).out


@pytest.fixture
def tried(device, host, tmp_path):
    return install(device, host.release(tmp_path / "tuf"), TOLD, {TOLD: own_of(device)})


def test_without_a_host_there_is_nothing_to_say(device):
    assert ok("status", "--state", device)["release"] is None
    assert "release" not in words(device)


def test_a_release_on_probation_is_named_with_its_answers(tried, device, photos):
    ok("predict", *sorted(photos.glob("0/*"))[:2], "--state", device)
    found = ok("status", "--state", device)["release"]
    assert (found["bundle"], found["installation"], found["tried"]) == (1, "probation", 1)
    assert found["answers_on_probation"] == 2
    assert found["reason"] is None
    assert found["measured"]["held_back"]["samples"] == 18
    assert "release: bundle 1 of the host, on probation, 2 answers" in words(device)


def test_another_backbone_has_to_wait_until_the_probation_is_over(tried, device, backbone):
    assert "wait until that is kept or undone" in refused("backbone", "add", backbone, "--state", device)


def test_a_release_that_was_undone_is_named_with_its_reason(tried, device):
    installation, record = tried
    probation.fail(device, record, "it sneezed")
    found = ok("status", "--state", device)["release"]
    assert (found["bundle"], found["installation"], found["tried"]) == (0, "rollback", 1)
    assert (found["reason"], found["failures"]) == ("it sneezed", 1)
    said = words(device)
    assert "release: nothing of the host yet" in said
    assert "bundle 1 was undone (failure 1): it sneezed" in said
    assert installation.running().bundle == 0


def test_what_was_taught_again_from_what_is_said(device, better, all_photos, tmp_path):
    """No picture was kept: exemplars stand in."""
    _, record = install(device, released(better, all_photos, tmp_path, "0", "1", "2", *SIGNS))
    assert record.state == "probation"
    found = ok("status", "--state", device)["release"]["retaught"]
    assert found["0"] == {"pictures": 0, "without": 6, "exemplars": 12}
    assert "0: from 12 exemplars in place of 6 without a picture" in words(device)


def test_a_fresh_device_says_what_it_got(state, all_photos, tmp_path):
    from simulators.releases import Host, of_folder

    from edge_cl.device.staged import model_path

    install(state, Host(model_path(state), of_folder(all_photos, "3", "4")).release(tmp_path))
    said = words(state)
    assert "release: bundle 1 of the host, on probation" in said
    assert "next: `edge-cl learn PHOTOS/`" in said
