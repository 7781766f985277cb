"""State folders of another backbone, of a newer version, read-only, full, busy or damaged: one line each."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from simulators.workshop import BETTER_BACKBONE, call, ok, refused

from edge_cl.device.install import read_current

TIMEOUT_S = 60
OUR_ROOM = ["unshare", "--map-root-user", "--mount"]  # mounts that nobody else sees


def can_mount() -> bool:
    """Tell whether this user may mount in a room of their own."""
    if shutil.which("unshare") is None:
        return False
    mount = "mount -t tmpfs none /mnt"
    return subprocess.run([*OUR_ROOM, "sh", "-c", mount], capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(
    not can_mount(), reason="mounting is not allowed here, not even in one's own room"
)


def in_room(script: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run a shell script where mounts are ours; `edge_cl` runs the program."""
    program = f'edge_cl() {{ "{sys.executable}" -m edge_cl.cli "$@"; }}\n'
    return subprocess.run(
        [*OUR_ROOM, "sh", "-c", program + script, "sh", *map(str, words)],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def test_another_backbone_is_refused_where_something_was_taught(taught, models_dir):
    before = read_current(taught)
    said = refused("backbone", "add", models_dir / BETTER_BACKBONE, "--state", taught)
    assert "edge-cl init --state OTHER" in said
    assert read_current(taught) == before
    assert ok("status", "--state", taught)["samples"] == 18


def test_another_backbone_is_welcome_before_anything_was_taught(state, photos, models_dir):
    found = ok("backbone", "add", models_dir / BETTER_BACKBONE, "--state", state)
    assert found["cut_from"]
    listed = ok("backbone", "list", "--state", state)["backbones"]
    assert [each["in_use"] for each in listed] == [each["bundle"] == found["bundle"] for each in listed]
    assert len(listed) == 2
    assert ok("backbone", "show", "--state", state)["name"] == BETTER_BACKBONE.name
    assert ok("learn", photos, "--state", state)["learned"] == 18


def test_a_pointer_to_another_backbone_is_noticed(taught, tmp_path, models_dir):
    """As after copying a bundle from one machine to another."""
    other = tmp_path / "other"
    ok("init", "--state", other, "--backbone", models_dir / BETTER_BACKBONE)
    bundle = read_current(other).bundle
    shutil.copytree(other / "bundles" / bundle, taught / "bundles" / bundle)
    pointer = json.loads((taught / "current.json").read_text())
    (taught / "current.json").write_text(json.dumps({**pointer, "bundle": bundle}))
    assert "use that backbone" in refused("predict", models_dir / "coral" / "parrot.jpg", "--state", taught)


@pytest.mark.parametrize("command", ["status", "relabel 1 1", "backup {new}"])
def test_a_database_of_a_newer_version_is_left_alone(taught, tmp_path, command):
    with sqlite3.connect(taught / "learner.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = (taught / "learner.db").read_bytes()
    words = command.format(new=tmp_path / "new.tar").split()
    assert "upgrade edge-cl" in refused(*words, "--state", taught)
    assert (taught / "learner.db").read_bytes() == before


@pytest.mark.parametrize("name", ["config.toml", "current.json"])
def test_settings_and_pointer_of_a_newer_version_are_refused(taught, name):
    text = (taught / name).read_text()
    (taught / name).write_text(text.replace("format = 1", "format = 3").replace('"format": 1', '"format": 3'))
    assert "upgrade edge-cl" in refused("status", "--state", taught)


def test_settings_that_differ_from_those_it_was_taught_with_are_refused(taught):
    ok("forget", "--sample", "1", "--yes", "--state", taught)  # makes a checkpoint
    text = (taught / "config.toml").read_text()
    (taught / "config.toml").write_text(text.replace("density = 0.1", "density = 0.2"))
    assert "put it back" in refused("status", "--state", taught)
    (taught / "config.toml").write_text(text.replace("density = 0.1", 'density = "much"'))
    assert "must be of type float" in refused("status", "--state", taught)


def test_a_folder_that_is_something_else_is_refused(tmp_path, backbone):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    assert "not empty" in refused("init", "--state", tmp_path / "letters", "--backbone", backbone)
    assert "not a folder" in refused("status", "--state", tmp_path / "file")
    assert "edge-cl init" in refused("status", "--state", tmp_path / "letters")


def test_a_learner_that_was_taught_is_not_made_anew(taught, backbone):
    assert "edge-cl status" in refused("init", "--state", taught, "--backbone", backbone)
    assert ok("status", "--state", taught)["samples"] == 18


NO_BACKBONES = [
    "config.toml",
    "nothing.tflite",
    "coral/parrot.jpg",
    "coral/model_invoking_error.tflite",
    "coral/mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite",
    "mlperf_tiny/kws_ref_model.tflite",
]


@pytest.mark.parametrize("name", NO_BACKBONES)
def test_a_file_that_is_no_backbone_leaves_no_learner_behind(tmp_path, models_dir, name):
    (tmp_path / "config.toml").write_text("x")
    file = tmp_path / name if name == "config.toml" else models_dir / name
    said = refused("init", "--state", tmp_path / "state", "--backbone", file)
    assert Path(name).name in said
    assert "edge-cl init" in refused("status", "--state", tmp_path / "state")


def test_a_collapsed_backbone_is_taken_with_a_warning(tmp_path, models_dir, photos):
    file = models_dir / "mlperf_tiny" / "vww_96_int8.tflite"
    pictures = sorted(photos.glob("*/*"))[:3]
    found = ok("init", "--state", tmp_path / "state", "--backbone", file, "--images", *pictures)["backbone"]
    assert found["judged_on"] == "3 pictures"
    assert found["zero_fraction"] > 0.9
    assert "hardly tells pictures apart" in found["warnings"][0]


def test_a_busy_folder_can_be_read_but_not_written(taught, photos):
    """Held by a process of its own, as a service would."""
    hold = (
        "import sys; from pathlib import Path; from edge_cl.device.opening import open_agent\n"
        "with open_agent(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(taught)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        assert "another edge-cl" in refused("learn", photos, "--state", taught)
        assert "another edge-cl" in refused("forget", "--sample", "1", "--yes", "--state", taught)
        assert ok("status", "--state", taught)["samples"] == 18
        assert ok("predict", photos / "0" / "01.jpg", "--state", taught)["predictions"]
        holder.communicate()


def test_a_damaged_database_is_salvaged_and_the_person_is_told(taught, photos):
    with sqlite3.connect(taught / "learner.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    data = bytearray((taught / "learner.db").read_bytes())
    data[4096 * 5 : 4096 * 6] = os.urandom(4096)
    (taught / "learner.db").write_bytes(data)
    said = call("learn", photos, "--state", taught, "--json")
    assert said.status == 0, said
    assert "the database was damaged" in said.err
    assert (taught / "learner.db.damaged-1").exists()
    assert said.json["learned"] + said.json["skipped"] == 18
    assert ok("status", "--state", taught)["samples"] == 18


def test_a_damaged_backbone_is_refused_by_name(taught, photos):
    model = taught / "bundles" / read_current(taught).bundle / "backbone.tflite"
    model.write_bytes(model.read_bytes()[:-1])
    said = call("predict", photos / "0" / "01.jpg", "--state", taught)
    assert said.status == 1
    assert "add the backbone again" in said.err


@needs_mounts
def test_a_read_only_folder_answers_and_refuses_to_learn(taught, photos):
    script = """
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99
        edge_cl status --state "$1" --json && edge_cl predict "$2" --state "$1" --json || exit 98
        edge_cl learn "$3" --state "$1"
    """
    done = in_room(script, taught, photos / "0" / "01.jpg", photos)
    status, prediction = (json.loads(line) for line in done.stdout.splitlines())
    assert status["samples"] == 18
    assert prediction["predictions"]
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == 1
    assert "read-only" in done.stderr.lower()


@needs_mounts
@pytest.mark.parametrize("room_kb", [24, 60, 100, 140])
def test_a_full_disk_is_one_line_and_loses_nothing_that_was_acknowledged(
    state, all_photos, tmp_path, room_kb
):
    """The disk fills up somewhere in the middle; with more room, the same command finishes the work."""
    script = """
        mkdir -p "$3" && mount -t tmpfs -o size=16m none "$3" && cp -a "$1/." "$3" || exit 99
        used=$(df -k --output=used "$3" | tail -1); mount -o remount,size=$((used + $4))k "$3" || exit 98
        edge_cl learn "$2" --state "$3" --json; echo "status $?" >&2
        mount -o remount,size=16m "$3" || exit 97
        edge_cl status --state "$3" --json && edge_cl learn "$2" --state "$3" --json
    """
    done = in_room(script, state, all_photos, tmp_path / "disk", room_kb)
    assert done.returncode == 0, done
    complaint, ended = done.stderr.splitlines()
    assert ended == "status 1"
    assert "free some space" in complaint or "storage is full" in complaint
    status, rest = (json.loads(line) for line in done.stdout.splitlines())
    assert rest["skipped"] == status["samples"]
    assert rest["learned"] == 120 - status["samples"] > 0
