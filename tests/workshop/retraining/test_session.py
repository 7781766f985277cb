"""A retraining from what devices sent to a signed bundle: what is learned, refused, and survived."""

import hashlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulators.foundry import KINDS, NEW, NOW, OLD, VIEWS, Fleet, draw, jpeg, pictures_of, send

from edge_cl.errors import ConfigError, StoreBusyError
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.statistics import Statistics, empty_statistics
from edge_cl.wire import bundle
from edge_cl.wire.labels import extended
from edge_cl.wire.messages import Statistics as Told
from host_trainer.release.publisher import add_model
from host_trainer.retraining import deployed, heads, runs
from host_trainer.retraining.samples import statistics_of
from host_trainer.retraining.session import retrain
from host_trainer.retraining.stages import STAGES


def newest(fleet: Fleet) -> deployed.Deployed:
    release = runs.runs(fleet.folder)[-1].facts(deployed.PUBLICATION)
    return deployed.Deployed(**release)


def accuracy(fleet: Fleet, release: deployed.Deployed, kinds: tuple[str, ...] = KINDS) -> float:
    learner = deployed.learner_of(fleet.folder, release, LearnerConfig(views=VIEWS))
    return heads.accuracy(learner, fleet.samples("", kinds, 15, 200))


def test_a_class_that_one_device_was_taught_reaches_the_next_bundle(fleet: Fleet, contents: Path) -> None:
    device, seen = fleet.device("device-1"), fleet.samples("device-1", [NEW], 14, 20)
    send(contents, device.tell(seen), device.features(seen))
    result = fleet.retrain(contents)
    assert result["accepted"] and result["bundle"] == 2
    release = newest(fleet)
    manifest = deployed.manifest_of(fleet.folder, release)
    assert manifest.labels == (*OLD, NEW) and manifest.parent == 0
    assert release.taken == {"device-1": device.last}
    assert accuracy(fleet, release) > 0.9
    lean = next((fleet.folder / "repository" / "targets").rglob("*waste-2-from-1.bundle"))
    assert bundle.read_manifest(lean.read_bytes())[0].parent == 1


def test_statistics_alone_teach_a_class_as_well(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    assert fleet.retrain(contents)["bundle"] == 2
    assert accuracy(fleet, newest(fleet)) > 0.85


def test_what_was_learned_from_is_not_taken_again_and_what_came_later_is(
    fleet: Fleet, contents: Path
) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 10, 20)))
    fleet.retrain(contents)
    send(contents, device.tell(fleet.samples("device-1", [NEW], 15, 20)))
    fleet.retrain(contents)
    facts = runs.runs(fleet.folder)[-1].facts("1-intake")
    assert [content for _, content in facts["accepted"]] == [device.last]
    release = newest(fleet)
    assert release.bundle == 3 and release.taken == {"device-1": device.last}
    samples = runs.runs(fleet.folder)[-1].facts("4-head")["samples"]
    assert samples == {OLD[0]: 14, OLD[1]: 14, NEW: 15}


def test_after_a_bundle_in_two_forms_comes_one_that_is_whole_for_everybody(
    fleet: Fleet, contents: Path
) -> None:
    device = fleet.device("device-1")
    for count in (8, 10, 12):
        send(contents, device.tell(fleet.samples("device-1", [NEW], count, 20)))
        assert fleet.retrain(contents)["accepted"]
    names = [path.name.partition(".")[2] for path in (fleet.folder / "repository").rglob("*.bundle")]
    assert {name for name in names if "-from-" in name} == {"waste-2-from-1.bundle", "waste-4-from-3.bundle"}
    assert newest(fleet).keyframe == 3


def test_a_candidate_that_forgets_is_rejected_and_nothing_is_published(
    fleet: Fleet, contents: Path, tmp_path: Path
) -> None:
    for kind in OLD:  # of the new class nobody can say what it looks like
        shutil.copytree(fleet.held_out / kind, tmp_path / "held-out" / kind)
    device, seen = fleet.device("device-1"), fleet.samples("device-1", OLD[:1], 60, 20)
    misnamed = replace(seen, labels=(NEW,) * len(seen))  # nobody else knows that class
    send(contents, device.tell(misnamed), device.features(misnamed))
    before = sorted((fleet.folder / "repository" / "targets").rglob("*.bundle"))
    result = fleet.retrain(contents, held_out=tmp_path / "held-out")
    assert not result["accepted"] and result["bundle"] == 0
    assert any(f"class {OLD[0]}" in reason for reason in result["reasons"])
    assert sorted((fleet.folder / "repository" / "targets").rglob("*.bundle")) == before
    again = fleet.retrain(contents, held_out=tmp_path / "held-out")
    assert again["run"] == result["run"] + 1  # what was rejected is looked at again, with what came since


def test_a_device_with_swapped_labels_is_named_and_moves_nothing(fleet: Fleet, contents: Path) -> None:
    for number in range(3):
        device = fleet.device(f"device-{number}")
        send(contents, device.tell(fleet.samples(device.name, KINDS, 12, 20 * (number + 1))))
    liar, seen = fleet.device("liar"), fleet.samples("liar", KINDS, 30, 300)
    send(contents, liar.tell(replace(seen, labels=seen.labels[30:] + seen.labels[:30])))
    result = fleet.retrain(contents)
    assert result["accepted"] and set(result["suspects"]) == {"liar"}
    assert "agree" in result["suspects"]["liar"] and result["quarantined"] == 1
    assert set(newest(fleet).taken) == {"device-0", "device-1", "device-2"}
    assert accuracy(fleet, newest(fleet)) > 0.9


def test_a_device_with_scaled_statistics_is_set_aside(fleet: Fleet, contents: Path) -> None:
    device, seen = fleet.device("device-1"), fleet.samples("device-1", [NEW], 12, 20)
    exact = statistics_of(seen, (NEW,), fleet.space.zero_point)
    longer = Statistics(exact.counts, 2 * exact.sums, 4 * exact.moment, 0)
    send(contents, device.message(longer, (NEW,), empty_statistics(fleet.space.size, 1)))
    assert set(fleet.retrain(contents)["suspects"]) == {"device-1"}
    assert "longer than" in runs.runs(fleet.folder)[-1].facts("1-intake")["aside"][0][2]


def test_classes_that_the_registry_joined_are_one_in_the_bundle(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    edits = extended((), [OLD[0], OLD[1]], "shape")
    fleet.retrain(contents, edits)
    release = newest(fleet)
    assert deployed.manifest_of(fleet.folder, release).labels == ("shape", NEW)
    assert deployed.manifest_of(fleet.folder, release).registry == release.registry == 1


def test_what_a_device_takes_back_is_destroyed_in_every_run(fleet: Fleet, contents: Path) -> None:
    device, seen = fleet.device("device-1"), fleet.samples("device-1", [NEW], 14, 20)
    files = [jpeg(draw(NEW, number)) for number in range(20, 34)]
    send(contents, device.tell(seen), device.features(seen), pictures_of("device-1", NEW, files))
    fleet.retrain(contents)
    kept = fleet.folder / "runs" / "2" / "1-intake" / "pictures"
    assert len(list(kept.iterdir())) == 14
    row = np.ascontiguousarray(seen.features[4]).tobytes()
    assert any(row in path.read_bytes() for path in (fleet.folder / "runs").rglob("*.safetensors"))
    fewer = device.tell(seen.at(seen.numbers != 5))
    send(contents, Told(**{**vars(fewer), "withdrawn": np.array([5])}))
    fleet.retrain(contents)
    assert (
        len(list(kept.iterdir())) == 13
        and not (kept / f"{hashlib.sha256(files[4]).hexdigest()}.jpg").exists()
    )
    for path in (fleet.folder / "runs").rglob("1-intake/*.safetensors"):
        assert row not in path.read_bytes(), path
    assert len(newest(fleet).pictures) == 13


def test_there_is_a_first_release_before_any_other(fleet: Fleet, contents: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model other here"):
        retrain(replace(fleet.options(), model="other"), fleet.world(contents))
    add_model(fleet.world().place, fleet.world().ring, "other", NOW)
    with pytest.raises(ConfigError, match="other has no release yet: make one with --first"):
        retrain(replace(fleet.options(), model="other"), fleet.world(contents))
    with pytest.raises(ConfigError, match="give --backbone FILE"):
        retrain(replace(fleet.options(first=True), model="other"), fleet.world(contents))


def test_a_first_release_may_know_nothing_yet(fleet: Fleet, contents: Path) -> None:
    add_model(fleet.world().place, fleet.world().ring, "other", NOW)
    chosen = replace(
        fleet.options(first=True, backbone=fleet.backbone, held_out=fleet.held_out), model="other"
    )
    assert retrain(chosen, fleet.world())["accepted"]
    assert deployed.manifest_of(fleet.folder, newest(fleet)).labels == ()
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", KINDS, 14, 20)))
    result = retrain(replace(fleet.options(), model="other"), fleet.world(contents))
    assert result["accepted"] and accuracy(fleet, newest(fleet)) > 0.85


def test_two_processes_do_not_retrain_one_fleet_at_once(fleet: Fleet, contents: Path) -> None:
    with runs.locked(fleet.folder), pytest.raises(StoreBusyError, match="another process"):
        fleet.retrain(contents)


def killed_at(moment: int, fleet: Fleet, contents: Path) -> bool:
    """Retrain in a child that kills itself at a moment; whether it was still at work then.

    A stage has three moments: before it works, when its files are written but not named, and when it is over.
    """
    child = os.fork()
    if child == 0:
        reached = 0

        def pass_by() -> None:
            nonlocal reached
            reached += 1
            if reached == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        carry_out = runs.Run.carry_out

        def watched(self: runs.Run, stage: str, work):
            def worked(part: Path):
                pass_by()
                facts = work(part)
                pass_by()
                return facts

            facts = carry_out(self, stage, worked)
            pass_by()
            return facts

        runs.Run.carry_out = watched  # type: ignore[method-assign]
        fleet.retrain(contents)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_run_that_is_killed_anywhere_goes_on_and_ends_bit_for_bit_the_same(
    first_fleet: Fleet, contents: Path, tmp_path: Path
) -> None:
    device, seen = first_fleet.device("device-1"), first_fleet.samples("device-1", [NEW], 14, 20)
    send(contents, device.tell(seen), device.features(seen))
    straight, broken = first_fleet.copy(tmp_path / "straight"), first_fleet.copy(tmp_path / "broken")
    straight.retrain(contents)
    # What is whole is not done again: the first moment of a try is where the last one was cut off.
    cuts = sum(killed_at(moment, broken, contents) for _ in STAGES for moment in (1, 2, 3))
    assert cuts == 3 * len(STAGES)
    assert broken.retrain(contents)["bundle"] == 2
    assert files(straight.folder) == files(broken.folder)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file by its name, but for what says where the fleet lies."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("result.json", "lock")
    }
