"""Opens a data set: one of the field's own by name, from a local copy, or a folder of one's own pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_cl.errors import ConfigError
from host_trainer.datasets import tiny_imagenet
from host_trainer.datasets.examples import DataSet, Examples
from host_trainer.datasets.folders import Folder, read_folder
from host_trainer.datasets.pixels import Watch, open_pixels, open_records
from host_trainer.datasets.records import (
    CIFAR_SIDE_PX,
    GZIP_SUFFIX,
    Records,
    read_cifar,
    read_idx_pair,
    read_names,
)
from host_trainer.datasets.sessions import numbered, read_sessions, sessions_of
from host_trainer.datasets.splits import held_back

Size = tuple[int, int]  # (H, W)

HELD_BACK = 0.2  # of each class of a folder without a test part
CIFAR_SIZE, MNIST_SIZE = (CIFAR_SIDE_PX, CIFAR_SIDE_PX), (28, 28)
CIFAR10, CIFAR100, TINY_IMAGENET = "cifar10", "cifar100", "tiny-imagenet"
MNIST, ROTATED_MNIST, PERMUTED_MNIST = "mnist", "rot-mnist", "perm-mnist"


class Recorded(NamedTuple):
    """A data set kept as plain bytes: its classes, its own size, and both parts."""

    classes: tuple[str, ...]
    size: Size
    train: Records
    test: Records


class Copy(NamedTuple):
    """What a local copy looks like.

    Attributes:
        folders: where below the root it may lie; the first is what its archive makes.
        files: that it must hold.
        archive: to take when it is missing.
        pickled: folder of another version that is never read, "" where there is none.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]
    archive: str
    pickled: str = ""


CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST_COPY = Copy(("mnist", "MNIST/raw", "."), MNIST_FILES, "its four idx files, packed as .gz or not")
COPIES = {
    CIFAR10: Copy(
        ("cifar-10-batches-bin", "."),
        (*CIFAR10_TRAIN, "test_batch.bin", "batches.meta.txt"),
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-py",
    ),
    CIFAR100: Copy(
        ("cifar-100-binary", "."),
        ("train.bin", "test.bin", "fine_label_names.txt"),
        "cifar-100-binary.tar.gz",
        "cifar-100-python",
    ),
    TINY_IMAGENET: Copy((tiny_imagenet.ARCHIVE_FOLDER, "."), tiny_imagenet.FILES, "tiny-imagenet-200.zip"),
    MNIST: MNIST_COPY,
    ROTATED_MNIST: MNIST_COPY,
    PERMUTED_MNIST: MNIST_COPY,
}
NAMES = tuple(COPIES)


def open_dataset(
    name_or_folder: str,
    size: Size | None,
    root: Path,
    cache: Path,
    watch: Watch = lambda done: None,
    *,
    least_classes: int = 2,
) -> DataSet:
    """Open a data set, its pictures decoded once into `cache`.

    Args:
        name_or_folder: one of NAMES, or an image folder; `./mnist` is a folder of that name.
        size: (H, W) that pictures are stretched to, as the device does it; None for the set's own.
        root: folder that holds the local copy, or is it.
        cache: folder for the decoded pictures.
        watch: told how many pictures are decoded.
        least_classes: that a folder must hold.

    Raises:
        ConfigError: a copy that is missing or damaged, a folder that cannot be learned from, or one
            without a size.
        StoreError: the cache cannot be written.
    """
    if name_or_folder in RECORDED:
        recorded = RECORDED[name_or_folder](find_copy(name_or_folder, root))
        return _from_records(name_or_folder, recorded, size or recorded.size, cache, watch)
    if name_or_folder == TINY_IMAGENET:
        folder = tiny_imagenet.read_tiny_imagenet(find_copy(name_or_folder, root))
        return _from_pictures(name_or_folder, folder, size or tiny_imagenet.SIZE, None, cache, watch)
    place = Path(name_or_folder)
    if not place.is_dir():
        raise ConfigError(f"{name_or_folder} is no folder and none of {', '.join(NAMES)}: give one of them")
    if size is None:
        raise ConfigError(f"{name_or_folder}: pictures of a folder have many sizes: give one to train at")
    folder = _parted(read_folder(place, least_classes=least_classes))
    return _from_pictures(name_or_folder, folder, size, place, cache, watch)


def find_copy(name: str, root: Path) -> Path:
    """Return the folder of a local copy of the set called `name`, below `root` or `root` itself.

    Raises:
        ConfigError: it is not there, or not whole; one line names its files and the folder looked in.
    """
    copy = COPIES[name]
    missing = {folder: _missing(root / folder, copy.files) for folder in copy.folders}
    whole = next((folder for folder, absent in missing.items() if not absent), None)
    if whole is not None:
        return root / whole
    if copy.pickled and (root / copy.pickled).is_dir():
        raise ConfigError(
            f"{root / copy.pickled} holds pickles, which are never read: take {copy.archive} instead"
        )
    nearest = min(copy.folders, key=lambda folder: len(missing[folder]))  # the first where none has any
    raise ConfigError(
        f"{name} is not in {root / nearest}: no {', '.join(missing[nearest])}; unpack {copy.archive} there"
    )


def _missing(folder: Path, files: Sequence[str]) -> list[str]:
    return [name for name in files if not _as_found(folder, name).is_file()]


def _as_found(folder: Path, name: str) -> Path:
    """Return the file as it lies there: as named, or packed."""
    packed = folder / f"{name}{GZIP_SUFFIX}"
    return packed if name in MNIST_FILES and packed.is_file() else folder / name


def _cifar10(folder: Path) -> Recorded:
    classes = read_names(folder / "batches.meta.txt", 10)
    train = read_cifar([folder / name for name in CIFAR10_TRAIN], 1, 10)
    return Recorded(classes, CIFAR_SIZE, train, read_cifar([folder / "test_batch.bin"], 1, 10))


def _cifar100(folder: Path) -> Recorded:
    classes = read_names(folder / "fine_label_names.txt", 100)
    parts = [read_cifar([folder / name], 2, 100) for name in ("train.bin", "test.bin")]
    return Recorded(classes, CIFAR_SIZE, *parts)


def _mnist(folder: Path) -> Recorded:
    paths = [_as_found(folder, name) for name in MNIST_FILES]
    parts = [read_idx_pair(paths[at], paths[at + 1], MNIST_SIZE, 10) for at in (0, 2)]
    return Recorded(tuple("0123456789"), MNIST_SIZE, *parts)


RECORDED: dict[str, Callable[[Path], Recorded]] = {
    CIFAR10: _cifar10,
    CIFAR100: _cifar100,
    MNIST: _mnist,
    ROTATED_MNIST: _mnist,
    PERMUTED_MNIST: _mnist,
}


def _from_records(name: str, recorded: Recorded, size: Size, cache: Path, watch: Watch) -> DataSet:
    def examples(records: Records, before: int) -> Examples:
        values = open_records(records, size, cache, lambda done: watch(before + done))
        return Examples(values, records.labels, np.zeros(len(records.labels), np.int32))

    train = examples(recorded.train, 0)
    return DataSet(name, recorded.classes, (), train, examples(recorded.test, len(train.labels)))


def _parted(folder: Folder) -> Folder:
    """Return the folder with a test part, held back from the training one where it has none."""
    if folder.test.paths:
        return folder
    held = held_back(folder.train.labels, HELD_BACK)
    return Folder(folder.train.at(np.flatnonzero(~held)), folder.train.at(np.flatnonzero(held)))


def _from_pictures(
    name: str, folder: Folder, size: Size, place: Path | None, cache: Path, watch: Watch
) -> DataSet:
    """Decode both parts; sessions of the manifest in `place`, if any, become domains."""
    known = read_sessions(place) if place else {}
    train = open_pixels(folder.train, size, cache, watch=watch)
    before = len(folder.train.paths)
    test = open_pixels(folder.test, size, cache, watch=lambda done: watch(before + done))
    classes = folder.train.classes
    untaught = sorted(set(range(len(classes))) - set(train.pictures.labels.tolist()))
    if untaught:
        raise ConfigError(f"class {classes[untaught[0]]!r} has no readable picture to learn from: add some")
    sessions = [sessions_of(part.pictures, place, known) for part in (train, test)]
    domain_names, taught, asked = numbered(*sessions)
    return DataSet(
        name,
        classes,
        domain_names,
        Examples(train.values[:, 0], train.pictures.labels, taught),
        Examples(test.values[:, 0], test.pictures.labels, asked),
        train.refused + test.refused,
    )
