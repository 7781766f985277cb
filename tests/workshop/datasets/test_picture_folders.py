"""What an image folder may look like, and what is said of one that cannot serve."""

import shutil
from pathlib import Path

import pytest

from edge_cl.errors import ConfigError
from host_trainer.datasets.folders import read_folder, read_unlabelled


def test_a_folder_with_parts_keeps_them_apart(drawn: Path) -> None:
    folder = read_folder(drawn)
    assert folder.train.classes == folder.test.classes == ("disc", "square", "stripes")
    assert (len(folder.train.paths), len(folder.test.paths)) == (24, 9)
    assert [folder.train.classes[i] for i in folder.train.labels] == [
        p.parent.name for p in folder.train.paths
    ]


def test_a_folder_without_parts_is_all_for_learning(drawn: Path) -> None:
    folder = read_folder(drawn / "train")
    assert (len(folder.train.paths), len(folder.test.paths)) == (24, 0)


def test_unlabelled_pictures_are_found_at_any_depth_but_for_test(drawn: Path) -> None:
    found = read_unlabelled([drawn])
    assert len(found.paths) == 24
    assert set(found.labels.tolist()) == {-1}
    assert not any("test" in path.relative_to(drawn).parts for path in found.paths)


def test_the_order_does_not_depend_on_the_disk(drawn: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(drawn, tmp_path / "copy")
    names = [path.relative_to(drawn) for path in read_folder(drawn).train.paths]
    assert [path.relative_to(copy) for path in read_folder(copy).train.paths] == names


def world(root: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.jpg").write_bytes(b"not looked at yet")
    return root


BAD = {
    "no such folder": (lambda root: root / "missing", "is no folder"),
    "no pictures": (lambda root: root, "holds no pictures"),
    "pictures without classes": (lambda root: loose(root), "holds no pictures in class folders"),
    "one class": (lambda root: world(root, mug=3), "one class only (mug)"),
    "one picture a class": (lambda root: world(root, mug=1, cup=3), "class mug has fewer than 2"),
    "labels that differ in case": (lambda root: world(root, Mug=2, mug=2), "differ in spelling only"),
}


def loose(root: Path) -> Path:
    (root / "1.jpg").write_bytes(b"")
    return root


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_what_cannot_serve_is_refused_in_one_line(make, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_folder(make(tmp_path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pictures_there_is_nothing_to_distil(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        read_unlabelled([tmp_path])
