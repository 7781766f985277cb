"""A data set opens by name from a local copy, or from a folder; what is missing or damaged is one line."""

import csv
import gzip
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_cl.errors import ConfigError
from edge_cl.vision.frames import read_image
from edge_cl.vision.preprocess import prepare
from host_trainer.datasets.examples import DataSet
from host_trainer.datasets.named import CIFAR10_TRAIN, HELD_BACK, MNIST_FILES, NAMES, open_dataset

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EACH = 20  # pictures of a file
WNIDS = {"n03444034": "go-kart", "n02124075": "Egyptian cat", "n09428293": "crane", "n02012849": "crane"}


def records(seed: int, classes: int, coarse: bool = False) -> bytes:
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, classes, (EACH, 1)), rng.integers(0, 256, (EACH, 3072))]
    if coarse:
        parts.insert(0, rng.integers(0, 20, (EACH, 1)))
    return np.hstack(parts).astype(np.uint8).tobytes()


def cifar10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate((*CIFAR10_TRAIN, "test_batch.bin")):
        (folder / name).write_bytes(records(number, 10))
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR_CLASSES) + "\n\n")
    return folder


def cifar100(root: Path) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    for number, name in enumerate(("train.bin", "test.bin")):
        (folder / name).write_bytes(records(number, 100, coarse=True))
    (folder / "fine_label_names.txt").write_text("\n".join(f"class{number}" for number in range(100)))
    return folder


def mnist(root: Path, packed: bool = False) -> Path:
    folder = root / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in MNIST_FILES:
        shape = (EACH, 28, 28) if "images" in name else (EACH,)
        data = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        data += rng.integers(0, 10, shape, np.uint8).tobytes()
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)
    return folder


def tiny_imagenet(root: Path) -> Path:
    folder = root / "tiny-imagenet-200"
    rows = []
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            part = folder / ("train" if number < 3 else "val")
            name = f"{wnid}_{number}.JPEG" if number < 3 else f"val_{label}.JPEG"
            place = part / (f"{wnid}/images" if number < 3 else "images") / name
            place.parent.mkdir(parents=True, exist_ok=True)
            mode = "L" if number == 1 else "RGB"  # the real set has grey pictures too
            Image.new("RGB", (64, 64), (60 * label, 50 * number, 99)).convert(mode).save(place, quality=95)
        rows.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t63\t63")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    words = [f"{wnid}\t{word}, something else" for wnid, word in WNIDS.items()]
    (folder / "words.txt").write_text("\n".join(["n00000001\tentity", *words]) + "\n")
    return folder


COPIES: dict[str, tuple[Callable[[Path], Path], tuple[int, int], int, int]] = {
    "cifar10": (cifar10, (32, 32), 5 * EACH, EACH),
    "cifar100": (cifar100, (32, 32), EACH, EACH),
    "mnist": (mnist, (28, 28), EACH, EACH),
    "rot-mnist": (mnist, (28, 28), EACH, EACH),
    "perm-mnist": (lambda root: mnist(root, packed=True), (28, 28), EACH, EACH),
    "tiny-imagenet": (tiny_imagenet, (64, 64), 12, 4),
}


def opened(name: str, root: Path, cache: Path, size: tuple[int, int] | None = None) -> DataSet:
    return open_dataset(name, size, root, cache)


def refusal(name: str, root: Path, cache: Path, size: tuple[int, int] | None = None) -> str:
    """Open what cannot be opened, and return the one line that says so."""
    with pytest.raises(ConfigError) as found:
        open_dataset(name, size, root, cache)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_every_name_has_its_row() -> None:
    assert set(COPIES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_opens_by_name_at_its_own_size_and_at_another(name: str, tmp_path: Path) -> None:
    write, size, taught, asked = COPIES[name]
    folder = write(tmp_path / "data")
    for root in (tmp_path / "data", folder):
        data = opened(name, root, tmp_path / "cache")
        assert data.name == name
        assert data.train.values.shape == (taught, *size, 3)
        assert data.test.values.shape == (asked, *size, 3)
        assert data.domain_names == data.refused == ()
        for part in (data.train, data.test):
            assert part.values.dtype == np.uint8
            assert part.labels.dtype == part.domains.dtype == np.int32
            assert len(part.labels) == len(part.domains) == len(part.values)
            assert part.labels.max() < len(data.classes)
            assert not part.domains.any()
    wide = opened(name, tmp_path / "data", tmp_path / "cache", (40, 48))
    assert wide.train.values.shape == (taught, 40, 48, 3)
    assert np.array_equal(wide.train.labels, data.train.labels)


def test_cifar_pictures_are_those_of_the_file_and_resized_as_the_device_does(tmp_path: Path) -> None:
    folder = cifar10(tmp_path)
    raw = np.frombuffer((folder / "data_batch_3.bin").read_bytes(), np.uint8).reshape(EACH, 3073)[7]
    picture = raw[1:].reshape(3, 32, 32).transpose(1, 2, 0)
    data = opened("cifar10", tmp_path, tmp_path / "cache")
    assert data.classes == CIFAR_CLASSES
    assert np.array_equal(data.train.values[2 * EACH + 7], picture)
    assert data.train.labels[2 * EACH + 7] == raw[0]
    wide = opened("cifar10", tmp_path, tmp_path / "cache", (48, 40))
    expected = prepare(Image.fromarray(np.ascontiguousarray(picture)), (48, 40))
    assert np.array_equal(wide.train.values[2 * EACH + 7], expected)


def test_the_second_time_nothing_is_written(tmp_path: Path) -> None:
    cifar10(tmp_path)
    seen: list[int] = []
    for _ in range(2):
        open_dataset("cifar10", None, tmp_path, tmp_path / "cache", seen.append)
    assert seen == list(range(1, 6 * EACH + 1))


def test_a_changed_copy_is_read_anew(tmp_path: Path) -> None:
    folder = cifar10(tmp_path)
    before = opened("cifar10", tmp_path, tmp_path / "cache").test.values[0].copy()
    (folder / "test_batch.bin").write_bytes(records(99, 10))
    os.utime(folder / "test_batch.bin", (1, 1))
    assert not np.array_equal(before, opened("cifar10", tmp_path, tmp_path / "cache").test.values[0])


def test_tiny_imagenet_takes_classes_from_its_lists(tmp_path: Path) -> None:
    folder = tiny_imagenet(tmp_path)
    data = opened("tiny-imagenet", tmp_path, tmp_path / "cache")
    assert data.classes == ("go-kart", "Egyptian cat", "n09428293", "n02012849")  # two kinds of crane
    assert data.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert data.test.labels.tolist() == [0, 1, 2, 3]
    first = prepare(read_image(folder / "train" / "n02124075" / "images" / "n02124075_1.JPEG"), (64, 64))
    assert np.array_equal(data.train.values[4], first)


def test_an_unreadable_picture_of_tiny_imagenet_is_left_out_and_named(tmp_path: Path) -> None:
    folder = tiny_imagenet(tmp_path)
    (folder / "train" / "n02124075" / "images" / "n02124075_1.JPEG").write_bytes(b"no picture")
    data = opened("tiny-imagenet", tmp_path, tmp_path / "cache")
    assert len(data.train.labels) == 11
    assert data.train.labels.tolist().count(1) == 2
    assert data.refused[0].startswith("n02124075_1.JPEG: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_set_names_its_files_and_where_they_are_looked_for(name: str, tmp_path: Path) -> None:
    write = COPIES[name][0]
    line = refusal(name, tmp_path / "nowhere", tmp_path / "cache")
    assert line.startswith(f"{name} is not in {tmp_path / 'nowhere'}")
    files = {
        "cifar10": (*CIFAR10_TRAIN, "test_batch.bin", "batches.meta.txt", "cifar-10-binary.tar.gz"),
        "cifar100": ("train.bin", "test.bin", "fine_label_names.txt", "cifar-100-binary.tar.gz"),
        "tiny-imagenet": ("wnids.txt", "words.txt", "val/val_annotations.txt", "tiny-imagenet-200.zip"),
    }.get(name, MNIST_FILES)
    assert all(file in line for file in files)
    folder = write(tmp_path)
    gone = next(path for path in sorted(folder.iterdir()) if path.is_file())
    gone.unlink()
    line = refusal(name, tmp_path, tmp_path / "cache")
    assert f"{name} is not in {folder}: no {gone.name.removesuffix('.gz')};" in line


@pytest.mark.parametrize(
    ("name", "pickled", "archive"),
    [
        ("cifar10", "cifar-10-batches-py", "cifar-10-binary.tar.gz"),
        ("cifar100", "cifar-100-python", "cifar-100-binary.tar.gz"),
    ],
)
def test_pickles_are_not_read_and_the_other_archive_is_named(
    name: str, pickled: str, archive: str, tmp_path: Path
) -> None:
    (tmp_path / pickled).mkdir()
    line = refusal(name, tmp_path, tmp_path / "cache")
    assert "never read" in line
    assert line.endswith(f"take {archive} instead")


HOSTILE: dict[str, tuple[str, str, bytes, str]] = {
    "a batch that is cut off": ("cifar10", "data_batch_2.bin", records(0, 10)[:-5], "data_batch_2.bin: "),
    "a label out of range": ("cifar10", "test_batch.bin", b"\x0b" * 3073, "names class 11"),
    "nine names for ten": ("cifar10", "batches.meta.txt", b"a\nb\n", "2 names, not 10"),
    "a fine label out of range": ("cifar100", "train.bin", b"\x64" * 3074, "names class 100"),
    "records of the other CIFAR": ("cifar100", "test.bin", records(0, 10), "test.bin: "),
    "pictures without end": ("mnist", MNIST_FILES[0], b"\0\0\x08\x03" + b"\xff" * 12, "claims"),
    "swapped idx files": ("mnist", MNIST_FILES[1], b"\0\0\x08\x03" + b"\xff" * 12, "with 1 axes"),
    "no ids": ("tiny-imagenet", "wnids.txt", b"", "holds no names"),
    "an id that is a path": ("tiny-imagenet", "wnids.txt", b"../val\n", "'../val' of wnids.txt has no"),
    "an id that is too long": ("tiny-imagenet", "wnids.txt", b"n" * 5000, "unpack the archive again"),
    "an id twice": ("tiny-imagenet", "wnids.txt", b"n1\nn1\n", "a name twice"),
    "words that are no text": ("tiny-imagenet", "words.txt", b"\xff\xfe\0", "no text in UTF-8"),
    "a picture elsewhere": (
        "tiny-imagenet",
        "val/val_annotations.txt",
        b"../../wnids.txt\tn03444034\t0\t0\t1\t1\n",
        "row 1: there is no picture '../../wnids.txt'",
    ),
    "a picture of no class": ("tiny-imagenet", "val/val_annotations.txt", b"val_0.JPEG\n", "row 1: "),
    "no annotations": ("tiny-imagenet", "val/val_annotations.txt", b"", "names no pictures"),
}


@pytest.mark.parametrize(("name", "file", "data", "says"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_copy_is_one_line(name: str, file: str, data: bytes, says: str, tmp_path: Path) -> None:
    folder = COPIES[name][0](tmp_path)
    (folder / file).write_bytes(data)
    assert says in refusal(name, tmp_path, tmp_path / "cache")


def test_a_folder_with_both_parts_opens_at_the_size_asked_for(drawn: Path, tmp_path: Path) -> None:
    data = opened(str(drawn), tmp_path, tmp_path / "cache", (20, 24))
    assert data.classes == ("disc", "square", "stripes")
    assert data.train.values.shape == (24, 20, 24, 3)
    assert data.test.values.shape == (9, 20, 24, 3)
    assert data.domain_names == ()


def test_a_folder_without_a_test_part_holds_some_of_each_class_back(drawn: Path, tmp_path: Path) -> None:
    data = opened(str(drawn / "train"), tmp_path, tmp_path / "cache", (16, 16))
    held = round(HELD_BACK * 8)
    assert np.bincount(data.test.labels).tolist() == [held] * 3
    assert np.bincount(data.train.labels).tolist() == [8 - held] * 3
    both = np.concatenate([data.train.values, data.test.values])
    assert len(np.unique(both.reshape(24, -1), axis=0)) == 24


def with_sessions(folder: Path, session_of: Callable[[Path], str]) -> Path:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "session"])
        for path in sorted(folder.rglob("*.png")):
            table.writerow([path.relative_to(folder).as_posix(), session_of(path)])
    return folder


def test_sessions_of_the_manifest_are_domains_in_their_natural_order(drawn: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "own"))
    with_sessions(folder, lambda path: f"day {int(path.stem) + 1}")
    data = opened(str(folder), tmp_path, tmp_path / "cache", (16, 16))
    assert data.domain_names == tuple(f"day {number}" for number in range(1, 12))
    assert data.train.domains.tolist() == [0, 1, 2, 3, 4, 5, 6, 7] * 3
    assert sorted(set(data.test.domains.tolist())) == [8, 9, 10]


def test_domains_are_those_of_the_pictures_that_could_be_read(drawn: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "own"))
    with_sessions(folder, lambda path: "ab"[int(path.stem) % 2])
    (folder / "train" / "disc" / "0.png").write_bytes(b"no picture")
    data = opened(str(folder), tmp_path, tmp_path / "cache", (16, 16))
    assert data.train.domains[:7].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert len(data.train.domains) == len(data.train.values) == 23
    assert len(data.refused) == 1


FOLDER_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a manifest without a path": (
        lambda folder: (folder / "manifest.csv").write_text("name,session\n"),
        "has no column 'path'",
    ),
    "a manifest that is no text": (
        lambda folder: (folder / "manifest.csv").write_bytes(b"path\n\xff\xff"),
        "no text in UTF-8",
    ),
    "a manifest with an endless field": (
        lambda folder: (folder / "manifest.csv").write_text("path\n" + "x" * 200_000),
        "is not a CSV file",
    ),
    "a class that cannot be read": (
        lambda folder: [path.write_bytes(b"") for path in (folder / "train" / "disc").iterdir()],
        "class 'disc' has no readable picture to learn from",
    ),
    "one class": (
        lambda folder: (
            [shutil.rmtree(folder / "train" / name) for name in ("disc", "square")]
            + [shutil.rmtree(folder / "test")]
        ),
        "one class only",
    ),
}


@pytest.mark.parametrize(("break_it", "says"), FOLDER_FAULTS.values(), ids=FOLDER_FAULTS)
def test_a_folder_that_cannot_be_learned_is_one_line(
    break_it: Callable[[Path], object], says: str, drawn: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "own"))
    break_it(folder)
    assert says in refusal(str(folder), tmp_path, tmp_path / "cache", (16, 16))


def test_a_folder_needs_a_size_and_what_is_no_folder_is_told_the_names(drawn: Path, tmp_path: Path) -> None:
    assert "give one to train at" in refusal(str(drawn), tmp_path, tmp_path / "cache")
    line = refusal("cifar11", tmp_path, tmp_path / "cache", (16, 16))
    assert line.startswith("cifar11 is no folder and none of cifar10, cifar100")


def test_real_photographs_with_sessions_open(data_dir: Path, tmp_path: Path) -> None:
    """Sign digits: every student's photographs are a session, and the split is by session."""
    source = data_dir / "signdigits_100"
    with (source / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] in ("0", "1", "2")]
    with tarfile.open(source / "signdigits_100.tar") as tar:
        members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
        for row in rows:
            place = tmp_path / "own" / row["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            data = tar.extractfile(members[row["path"]])
            assert data is not None
            place.write_bytes(data.read())
    shutil.copy(source / "manifest.csv", tmp_path / "own" / "manifest.csv")
    found = opened(str(tmp_path / "own"), tmp_path, tmp_path / "cache", (32, 32))
    assert len(found.train.labels) + len(found.test.labels) == len(rows)
    assert set(found.domain_names) == {row["session"] for row in rows}
