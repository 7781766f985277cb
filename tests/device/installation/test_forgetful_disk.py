"""A disk that forgets what was not pushed through: after a cut in every state one whole bundle is in use."""

import pytest
from simulators.forgetful import ForgetfulDisk
from simulators.releases import BOARD, START, later
from simulators.workshop import ok
from test_new_backbone import SIGNS, better, keep_pictures, released

from edge_cl.device.install import check_bundle, load_checkpoint, load_others, read_current
from edge_cl.device.installation import probation
from edge_cl.device.installation.installation import Installation
from edge_cl.device.opening import open_agent

__all__ = ["better"]


@pytest.mark.parametrize("end", [pytest.param("commit", marks=pytest.mark.slow), "rollback"])
def test_a_cut_after_every_step_loses_nothing_that_was_said(
    device, better, photos, all_photos, tmp_path, monkeypatch, end
):
    keep_pictures(device)
    ok("learn", photos, "--state", device)
    made = released(better, all_photos, tmp_path, *SIGNS)
    installation, states = Installation(device, BOARD), ["verify"]
    with ForgetfulDisk(device, monkeypatch) as disk:
        installation.consider(made.file, made.manifest, None, START)
        while states[-1] != end:
            disk.cut()
            check_one_whole_life(device)
            record = installation.standing()
            states += [record.state] if record.state != states[-1] else []
            if record.state != "probation":
                installation._step(record, START)
            elif end == "rollback":
                probation.fail(device, record, "a test")
            else:
                ok("predict", *sorted(photos.glob("0/*"))[:3], "--state", device)
                disk.cut()
                installation._step(record, later(11))
        installation.advance(later(12))
        disk.cut()
    assert states == ["verify", "staged", "shadow", "swap", "probation", end]
    check_one_whole_life(device)
    with open_agent(device, with_backbone=True) as agent:
        assert agent.space.size == (256 if end == "commit" else 64)
        assert sum(shown.is_live for shown in agent.samples()) == 18
        assert agent.store.other_space is None


def check_one_whole_life(device) -> None:
    current = read_current(device)
    for digest in current.bundles:
        check_bundle(device, digest)
    loaded = load_checkpoint(device)
    assert loaded is None or loaded.problem == ""
    if current.previous is not None:
        assert None not in load_others(device)
