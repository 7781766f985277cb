"""Backups: the same learner comes back, and nothing but a whole backup makes a state folder."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.workshop import ok, refused

from edge_cl.device.archive import write_backup
from edge_cl.device.opening import open_agent

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def backup(taught: Path, tmp_path: Path) -> Path:
    with open_agent(taught) as agent:
        agent.checkpoint()
        agent.relabel(1, "1")
    ok("backup", tmp_path / "backup.tar", "--state", taught)
    return tmp_path / "backup.tar"


def rewritten(backup: Path, change: Callable[[list[Member]], list[Member]]) -> Path:
    """Return the backup with its members changed."""
    with tarfile.open(backup) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]
    other = backup.with_name("other.tar")
    with tarfile.open(other, "w:") as tar:
        for info, data in change(members):
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return other


def test_the_learner_that_comes_back_is_the_same(backup, taught, photos, tmp_path):
    ok("restore", backup, "--state", tmp_path / "back")
    pictures = sorted(photos.glob("*/*"))
    assert ok("predict", *pictures, "--state", tmp_path / "back") == ok(
        "predict", *pictures, "--state", taught
    )
    before, after = (ok("status", "--state", state) for state in (taught, tmp_path / "back"))
    assert after["classes"] == before["classes"]
    assert ok("learn", photos, "--state", tmp_path / "back")["skipped"] == 17  # one was relabelled by hand


def test_a_backup_of_a_learner_that_was_taught_nothing_works_too(state, photos, tmp_path):
    ok("backup", tmp_path / "new.tar", "--state", state)
    ok("restore", tmp_path / "new.tar", "--state", tmp_path / "back")
    assert ok("learn", photos, "--state", tmp_path / "back")["learned"] == 18


def test_a_backup_can_be_made_while_another_process_learns(taught, tmp_path):
    with open_agent(taught) as agent:
        agent.relabel(2, "2")
        assert "learner.db" in write_backup(taught, tmp_path / "busy.tar").names
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_nothing_is_overwritten(backup, taught, tmp_path):
    whole = backup.read_bytes()
    assert "there already" in refused("backup", backup, "--state", taught)
    assert backup.read_bytes() == whole
    assert "not empty" in refused("restore", backup, "--state", taught)
    assert "not a folder" in refused("backup", tmp_path / "no" / "b.tar", "--state", taught)


def path_trick(name: str) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [*members, (tarfile.TarInfo(name), b"evil")]


def link(kind: bytes) -> Callable[[list[Member]], list[Member]]:
    def change(members: list[Member]) -> list[Member]:
        info = tarfile.TarInfo("config.toml")
        info.type, info.linkname = kind, "/etc/passwd"
        return [members[0], (info, b""), *members[1:]]

    return change


def spoiled(name: str) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [
        (i, d[:-1] + bytes([d[-1] ^ 1]) if i.name.endswith(name) else d) for i, d in members
    ]


def without(name: str) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [(info, data) for info, data in members if not info.name.endswith(name)]


def newer(members: list[Member]) -> list[Member]:
    contents = json.loads(members[0][1])
    return [(members[0][0], json.dumps({**contents, "format": 2}).encode()), *members[1:]]


TRICKS = {
    "climbs up": path_trick("../evil"),
    "climbs up inside": path_trick("bundles/../../evil"),
    "absolute": path_trick("/evil"),
    "unknown name": path_trick("evil"),
    "hidden in a bundle": path_trick(f"bundles/{'0' * 64}/.evil"),
    "symbolic link": link(tarfile.SYMTYPE),
    "hard link": link(tarfile.LNKTYPE),
    "device": link(tarfile.CHRTYPE),
    "named pipe": link(tarfile.FIFOTYPE),
    "twice": lambda members: [*members, members[1]],
    "database spoiled": spoiled("learner.db"),
    "model spoiled": spoiled("backbone.tflite"),
    "checkpoint spoiled": spoiled(".safetensors"),
    "settings missing": without("config.toml"),
    "database missing": without("learner.db"),
    "contents missing": lambda members: members[1:],
    "contents are no list": lambda members: [(members[0][0], b"[]"), *members[1:]],
    "of a newer version": newer,
    "empty": lambda members: [],
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_a_backup_that_is_not_whole_and_ours_makes_no_state_folder(backup, tmp_path, trick):
    other = rewritten(backup, trick)
    before = {path.name for path in tmp_path.iterdir()}
    refused("restore", other, "--state", tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_backup_that_was_cut_off_is_refused(backup, tmp_path, share):
    data = backup.read_bytes()
    backup.write_bytes(data[: int(share * len(data))])
    refused("restore", backup, "--state", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_compressed_file_and_a_missing_one_are_refused(backup, tmp_path):
    with tarfile.open(tmp_path / "small.tar.gz", "w:gz") as tar:
        tar.add(backup, "config.toml")
    for name in ("small.tar.gz", "nothing.tar", "."):
        refused("restore", tmp_path / name, "--state", tmp_path / "back")
