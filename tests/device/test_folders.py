"""Which pictures a folder offers, in which order; no picture is opened."""

import os
from pathlib import Path

import pytest

from edge_cl.device.folders import from_files, from_folder
from edge_cl.errors import ConfigError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(root: Path) -> list[tuple[str, str]]:
    return [
        (picture.label, picture.path.relative_to(root).as_posix()) for picture in from_folder(root).pictures
    ]


def test_classes_come_one_after_the_other_in_a_fixed_order(tmp_path):
    touch(tmp_path, "b/2.jpg", "a/10.jpg", "a/9.jpg", "b/deep/er/1.jpg", "a/x.PNG")
    assert found(tmp_path) == [
        ("a", "a/10.jpg"), ("a", "a/9.jpg"), ("a", "a/x.PNG"), ("b", "b/2.jpg"), ("b", "b/deep/er/1.jpg"),
    ]  # fmt: skip


def test_hidden_files_and_folders_are_nobodys_pictures(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/.DS_Store", ".git/config", "a/.thumbs/1.jpg", "readme.txt")
    assert found(tmp_path) == [("a", "a/1.jpg")]


def test_test_pictures_are_not_taught(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "val/a/3.jpg")
    assert found(tmp_path) == [("a", "train/a/1.jpg")]


def test_names_that_are_no_text_are_offered_all_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.jpg")).write_bytes(b"")
    assert len(from_folder(tmp_path).pictures) == 1
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe")).mkdir()
    assert "Unicode" in from_folder(tmp_path).refused[0].reason


def test_a_folder_that_leads_round_in_a_circle_ends(tmp_path):
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert found(tmp_path) == [("a", "a/1.jpg")]


def test_a_file_named_twice_is_offered_once():
    offer = from_files(" mug ", [Path("a.jpg"), Path("b.jpg"), Path("a.jpg")])
    assert [(picture.label, picture.path.name) for picture in offer.pictures] == [
        ("mug", "a.jpg"),
        ("mug", "b.jpg"),
    ]


def test_a_folder_without_classes_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="--label"):
        from_folder(touch(tmp_path, "1.jpg"))
