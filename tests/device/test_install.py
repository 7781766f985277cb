"""The pointer always leads to something whole; what is half written is never in place."""

import hashlib
import json
import os

import numpy as np
import pytest

from edge_cl.device import install
from edge_cl.device.install import (
    Current,
    bundle_folder,
    check_bundle,
    load_checkpoint,
    load_previous,
    point_to,
    read_current,
    remove_bundle,
    save_checkpoint,
    stage_bundle,
    swap,
    tidy,
    write_atomically,
)
from edge_cl.errors import MismatchError, StoreDamagedError, StoreError

FILES = {"bundle.json": b"{}", "backbone.tflite": b"weights" * 1_000}


def saved(folder, value):
    """Save a checkpoint that holds `value`, point to it, and return its name."""
    name = save_checkpoint(
        folder, {"w": np.full((2, 3), value, dtype=np.float64)}, {"seq": value, "labels": ["é"]}
    )
    point_to(folder, checkpoint=name)
    return name


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_atomic_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old" * 99)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert everything(tmp_path) == ["file"]


def test_a_failed_sync_leaves_the_old_content_and_no_leftover(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="free some space") as caught:
        write_atomically(path, b"new")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_a_failed_rename_leaves_what_was_there_and_no_leftover(tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "old").write_bytes(b"old")
    with pytest.raises(StoreError, match="writing file failed"):
        write_atomically(tmp_path / "file", b"new")
    assert everything(tmp_path) == ["file/old"]


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(StoreError, match="No such file"):
        write_atomically(tmp_path / "missing" / "file", b"")


def test_a_fresh_folder_points_at_nothing(tmp_path):
    assert read_current(tmp_path) == Current()
    assert load_checkpoint(tmp_path) is None
    assert load_previous(tmp_path) is None
    assert tidy(tmp_path) == 0


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    name = saved(tmp_path, 5)
    loaded = load_checkpoint(tmp_path)
    np.testing.assert_array_equal(loaded.tensors["w"], np.full((2, 3), 5.0))
    assert (loaded.name, loaded.header, loaded.problem) == (name, {"seq": 5, "labels": ["é"]}, "")


def test_a_checkpoint_is_used_only_when_it_is_pointed_at(tmp_path):
    saved(tmp_path, 1)
    save_checkpoint(tmp_path, {"w": np.zeros(1)}, {"seq": 2})
    assert load_checkpoint(tmp_path).header["seq"] == 1
    assert tidy(tmp_path) == 1
    assert load_checkpoint(tmp_path).header["seq"] == 1


def test_the_pointer_file_says_what_it_leads_to(tmp_path):
    digest = stage_bundle(tmp_path, FILES)
    point_to(tmp_path, bundle=digest)
    name = saved(tmp_path, 1)
    found = json.loads((tmp_path / "current.json").read_bytes())
    data = (tmp_path / "checkpoints" / name).read_bytes()
    assert found["format"] == 1
    assert (found["bundle"], found["checkpoint"]) == (digest, name)
    assert found["sha256"] == hashlib.sha256(data).hexdigest()


def test_two_generations_are_kept(tmp_path):
    names = [saved(tmp_path, value) for value in range(5)]
    assert len(set(names)) == 5
    assert everything(tmp_path / "checkpoints") == names[-2:]
    assert load_previous(tmp_path).header["seq"] == 3
    point_to(tmp_path, checkpoint=names[-1])  # again: nothing changes
    assert load_previous(tmp_path).header["seq"] == 3


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it_and_says_so(tmp_path, how):
    saved(tmp_path, 1)
    damage(tmp_path / "checkpoints" / saved(tmp_path, 2), how)
    loaded = load_checkpoint(tmp_path)
    assert loaded.header["seq"] == 1
    assert "one before" in loaded.problem and "\n" not in loaded.problem
    saved(tmp_path, 3)  # the next one has the whole one as its predecessor, not the damaged one
    assert load_previous(tmp_path).header["seq"] == 1


def damage(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        changed = bytes([data[-1] ^ 1])
        path.write_bytes({"flip": data[:-1] + changed, "cut": data[:-1], "empty": b""}[how])


def test_two_damaged_checkpoints_are_an_error_that_names_the_way_out(tmp_path):
    names = [saved(tmp_path, 1), saved(tmp_path, 2)]
    for name in names:
        damage(tmp_path / "checkpoints" / name, "cut")
    assert load_previous(tmp_path) is None
    with pytest.raises(StoreDamagedError, match="restore"):
        load_checkpoint(tmp_path)


def test_the_pointer_does_not_move_to_something_that_is_not_whole(tmp_path):
    saved(tmp_path, 1)
    name = save_checkpoint(tmp_path, {"w": np.zeros(1)}, {"seq": 2})
    damage(tmp_path / "checkpoints" / name, "cut")
    digest = stage_bundle(tmp_path, FILES)
    (bundle_folder(tmp_path, digest) / "backbone.tflite").write_bytes(b"other")
    before = (tmp_path / "current.json").read_bytes()
    for target in (
        {"checkpoint": name},
        {"checkpoint": "no.safetensors"},
        {"bundle": digest},
        {"bundle": "no"},
    ):
        with pytest.raises(StoreDamagedError):
            point_to(tmp_path, **target)
    assert (tmp_path / "current.json").read_bytes() == before


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        save_checkpoint(tmp_path, {"w": np.array([np.nan])}, {})


def test_thousands_of_class_names_fit_a_checkpoint(tmp_path):
    labels = [f"class {i} " + "x" * 190 for i in range(10_000)]
    point_to(tmp_path, checkpoint=save_checkpoint(tmp_path, {"w": np.zeros(1)}, {"labels": labels}))
    assert load_checkpoint(tmp_path).header["labels"] == labels


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"format": 1}', b'{"format": "x"}', b"\xff" * 9])
def test_a_damaged_pointer_is_said_so(tmp_path, content):
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(StoreDamagedError, match="restore"):
        read_current(tmp_path)


def test_a_pointer_may_not_lead_out_of_the_folder(tmp_path):
    found = {"format": 1, "bundle": None, "checkpoint": "../../x", "sha256": "0", "previous": None}
    (tmp_path / "current.json").write_text(json.dumps(found))
    with pytest.raises(StoreDamagedError):
        read_current(tmp_path)


def test_a_pointer_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "current.json").write_text('{"format": 3}')
    with pytest.raises(MismatchError, match="newer"):
        read_current(tmp_path)


def test_a_bundle_is_named_by_its_content(tmp_path):
    digest = stage_bundle(tmp_path, FILES)
    assert stage_bundle(tmp_path, dict(reversed(FILES.items()))) == digest
    assert stage_bundle(tmp_path, {**FILES, "labels.json": b"[]"}) != digest
    assert (
        stage_bundle(tmp_path, {"bundle.json": FILES["bundle.json"], "other": FILES["backbone.tflite"]})
        != digest
    )
    check_bundle(tmp_path, digest)
    for name, content in FILES.items():
        assert (bundle_folder(tmp_path, digest) / name).read_bytes() == content


def test_a_bundle_can_be_staged_from_files(tmp_path):
    (tmp_path / "model.tflite").write_bytes(FILES["backbone.tflite"])
    files = {"bundle.json": b"{}", "backbone.tflite": tmp_path / "model.tflite"}
    assert stage_bundle(tmp_path / "state", files) == stage_bundle(tmp_path / "other", FILES)


def test_a_bundle_that_cannot_be_copied_is_not_there_at_all(tmp_path):
    with pytest.raises(StoreError):
        stage_bundle(tmp_path, {"bundle.json": b"{}", "z.tflite": tmp_path / "missing.tflite"})
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_damaged_bundle_is_made_whole_by_staging_it_again(tmp_path):
    digest = stage_bundle(tmp_path, FILES)
    (bundle_folder(tmp_path, digest) / "backbone.tflite").write_bytes(b"damaged")
    with pytest.raises(StoreDamagedError, match="add the backbone again"):
        check_bundle(tmp_path, digest)
    assert stage_bundle(tmp_path, FILES) == digest
    check_bundle(tmp_path, digest)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", ".."])
def test_a_bundle_holds_plain_names_only(tmp_path, name):
    with pytest.raises(ValueError):
        stage_bundle(tmp_path, {name: b""})


def test_a_bundle_in_use_is_not_removed(tmp_path):
    first, second = stage_bundle(tmp_path, FILES), stage_bundle(tmp_path, {"bundle.json": b"2"})
    point_to(tmp_path, bundle=first)
    with pytest.raises(ValueError, match="in use"):
        remove_bundle(tmp_path, first)
    remove_bundle(tmp_path, second)
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [first]


def test_leftovers_of_an_interrupted_run_are_removed_at_the_next_start(tmp_path):
    saved(tmp_path, 1)
    digest = stage_bundle(tmp_path, FILES)
    whole = everything(tmp_path)
    (tmp_path / f"{install.LEFTOVER}1").write_bytes(b"half a pointer")
    (tmp_path / "checkpoints" / f"{install.LEFTOVER}2").write_bytes(b"half a checkpoint")
    (tmp_path / "bundles" / f"{install.LEFTOVER}3").mkdir()
    (tmp_path / "bundles" / f"{install.LEFTOVER}3" / "backbone.tflite").write_bytes(b"half")
    assert tidy(tmp_path) == 3
    assert everything(tmp_path) == whole
    check_bundle(tmp_path, digest)


def two_lives(folder):
    """Swap from one bundle to another; return the pointer before and after."""
    old, new = stage_bundle(folder, FILES), stage_bundle(folder, {"bundle.json": b"2"})
    point_to(folder, bundle=old)
    saved(folder, 1)
    saved(folder, 2)
    before = read_current(folder)
    names = [save_checkpoint(folder, {"w": np.full(1, value)}, {"seq": value}) for value in (3, 4)]
    return before, swap(folder, new, (names[1], names[0]))


def test_a_swap_moves_everything_in_one_step_and_keeps_the_way_back(tmp_path):
    before, after = two_lives(tmp_path)
    assert after == read_current(tmp_path)
    assert after.fallback == before.life
    assert load_checkpoint(tmp_path).header["seq"] == 4
    assert [each.header["seq"] for each in install.load_others(tmp_path)] == [3, 2, 1]
    assert tidy(tmp_path) == 0
    with pytest.raises(ValueError, match="probation"):
        swap(tmp_path, before.bundle, (after.checkpoint.name, after.previous.name))
    with pytest.raises(ValueError, match="in use"):
        remove_bundle(tmp_path, before.bundle)


def test_the_way_back_leads_to_what_was_and_only_once(tmp_path):
    before, after = two_lives(tmp_path)
    assert install.roll_back(tmp_path) == before
    assert install.roll_back(tmp_path) == before
    assert load_checkpoint(tmp_path).header["seq"] == 2
    assert len(everything(tmp_path / "checkpoints")) == 2
    remove_bundle(tmp_path, after.bundle)


def test_a_committed_swap_gives_the_way_back_up(tmp_path):
    before, after = two_lives(tmp_path)
    assert install.commit_swap(tmp_path) == after._replace(fallback=None)
    assert install.roll_back(tmp_path) == after._replace(fallback=None)
    assert len(everything(tmp_path / "checkpoints")) == 2
    remove_bundle(tmp_path, before.bundle)


def test_later_checkpoints_of_both_lives_stay_apart(tmp_path):
    before, _ = two_lives(tmp_path)
    saved(tmp_path, 5)
    names = [save_checkpoint(tmp_path, {"w": np.zeros(1)}, {"seq": value}) for value in (6, 7)]
    install.renew_fallback(tmp_path, (names[1], names[0]))
    assert load_checkpoint(tmp_path).header["seq"] == 5
    assert [each.header["seq"] for each in install.load_others(tmp_path)] == [4, 7, 6]
    assert install.roll_back(tmp_path).bundle == before.bundle
    assert load_checkpoint(tmp_path).header["seq"] == 7
    with pytest.raises(ValueError, match="no fallback"):
        install.renew_fallback(tmp_path, (names[1], names[0]))


def test_a_pointer_without_a_way_back_is_one_that_older_programs_read(tmp_path):
    two_lives(tmp_path)
    assert json.loads((tmp_path / "current.json").read_bytes())["format"] == 2
    install.commit_swap(tmp_path)
    found = json.loads((tmp_path / "current.json").read_bytes())
    assert found["format"] == 1
    assert "fallback" not in found


def test_a_way_back_that_is_not_whole_is_not_taken(tmp_path):
    before, after = two_lives(tmp_path)
    (bundle_folder(tmp_path, before.bundle) / "backbone.tflite").write_bytes(b"other")
    with pytest.raises(StoreDamagedError):
        install.roll_back(tmp_path)
    assert read_current(tmp_path) == after
