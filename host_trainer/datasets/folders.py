"""Lists the pictures of an image folder and their classes; opens none of them.

DIR/train/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/* where no part is set aside.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from edge_cl.sample import clean_label, label_key

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN, TEST = "train", "test"


class Pictures(NamedTuple):
    """Pictures in a fixed order.

    Attributes:
        paths: of N files.
        labels: (N,) index of each one's class, -1 where it has none.
        classes: names, sorted.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]

    def at(self, indices: Sequence[int] | NDArray[np.intp]) -> "Pictures":
        """Return the pictures at these places, the classes unchanged."""
        chosen = [int(i) for i in indices]
        return Pictures(tuple(self.paths[i] for i in chosen), self.labels[chosen], self.classes)


class Folder(NamedTuple):
    """The pictures to learn from and those set aside (none when the folder has no parts); same classes."""

    train: Pictures
    test: Pictures


def read_folder(folder: Path, *, least_classes: int = 2) -> Folder:
    """List an image folder.

    Raises:
        ConfigError: no such folder, no pictures, fewer than `least_classes` classes, a class with fewer than
            two pictures to learn from, or classes that differ in case or Unicode form only.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder: give one that holds CLASS/*.jpg, or train/CLASS and test/CLASS"
        )
    parted = (folder / TRAIN).is_dir()
    train = _by_class(folder / TRAIN if parted else folder)
    test = _by_class(folder / TEST) if parted and (folder / TEST).is_dir() else {}
    classes = tuple(sorted({*train, *test}))
    _check(folder, classes, train, least_classes)
    return Folder(_pictures(train, classes), _pictures(test, classes))


def read_unlabelled(folders: Sequence[Path]) -> Pictures:
    """List every picture at any depth below some folders, but for those in a folder called `test`.

    Raises:
        ConfigError: no such folder, or no pictures.
    """
    paths: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder: give one that holds pictures")
        found = (path for path in folder.rglob("*") if _is_picture(path))
        paths += sorted(path for path in found if TEST not in path.relative_to(folder).parts[:-1])
    if not paths:
        raise ConfigError(f"no pictures in {', '.join(map(str, folders))}: give a folder that holds some")
    return Pictures(tuple(paths), np.full(len(paths), -1, np.int32), ())


def _by_class(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if _is_picture(path) and path.parent != folder:
            found[clean_label(path.relative_to(folder).parts[0])].append(path)
    return dict(found)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _check(folder: Path, classes: tuple[str, ...], train: dict[str, list[Path]], least: int) -> None:
    if not train:
        raise ConfigError(f"{folder} holds no pictures in class folders: put some into {folder}/CLASS/")
    if len(classes) < least:
        raise ConfigError(f"{folder} holds one class only ({classes[0]}): training needs {least} or more")
    twins = defaultdict(list)
    for name in classes:
        twins[label_key(name)].append(name)
    alike = next((names for names in twins.values() if len(names) > 1), None)
    if alike:
        raise ConfigError(f"the classes {' and '.join(alike)} differ in spelling only: rename one folder")
    scarce = [name for name in classes if len(train.get(name, ())) < 2]
    if scarce:
        raise ConfigError(
            f"class {scarce[0]} has fewer than 2 pictures to learn from: add some, or remove it"
        )


def _pictures(found: dict[str, list[Path]], classes: tuple[str, ...]) -> Pictures:
    paths, labels = [], []
    for number, name in enumerate(classes):
        paths += found.get(name, [])
        labels += [number] * len(found.get(name, []))
    return Pictures(tuple(paths), np.array(labels, np.int32), classes)
