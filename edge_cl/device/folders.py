"""Decides which pictures a folder, a list or a CSV file offers, and under which label; opens no picture."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge_cl.errors import ConfigError, LabelError
from edge_cl.sample import clean_label

MANIFEST = "manifest.csv"  # optional, beside train/ and test/: adds a session to each path
TRAIN = "train"
MAX_CSV_BYTES = 256 << 20  # a million rows of 256 bytes


class Picture(NamedTuple):
    """One picture to be taught: its label, where it lies, and the session it was taken in ("" if unknown)."""

    label: str
    path: Path
    session: str = ""


class Refused(NamedTuple):
    """Something that was offered and cannot be used: its name, and the reason in one line."""

    name: str
    reason: str


class Offer(NamedTuple):
    """What was found: pictures in a fixed order, and what had to be refused without opening it."""

    pictures: tuple[Picture, ...]
    refused: tuple[Refused, ...] = ()


def from_folder(folder: Path) -> Offer:
    """Return the pictures of an image folder: FOLDER/CLASS/*, or FOLDER/train/CLASS/* where that exists.

    Class after class in the order of their names; in a class in the order of the paths.

    Raises:
        ConfigError: no folder, or no class folders in it.
    """
    root = _training_root(folder)
    classes = _folders(root)
    if not classes:
        raise ConfigError(
            f"{folder} has no class folders: put pictures into {folder}/CLASS/, or name one with --label"
        )
    sessions = _sessions(folder)
    pictures: list[Picture] = []
    refused: list[Refused] = []
    for place in classes:
        try:
            label = clean_label(place.name)
        except LabelError as error:
            refused.append(Refused(str(place), str(error)))
            continue
        pictures += [Picture(label, path, sessions.get(_key(folder, path), "")) for path in _files(place)]
    return Offer(tuple(pictures), tuple(refused))


def from_files(label: str, paths: Iterable[Path]) -> Offer:
    """Return these files as pictures of one class, each once, in the order given.

    Raises:
        LabelError: the class cannot have that name.
    """
    name = clean_label(label)
    return Offer(tuple(Picture(name, path) for path in dict.fromkeys(paths)))


def from_csv(path: Path) -> Offer:
    """Return the pictures of a CSV file with the columns `path` and `label`, optionally `session`.

    Relative paths start at the CSV file's folder. Rows that say too little are refused one by one.

    Raises:
        ConfigError: the file cannot be read, or lacks a column.
    """
    pictures: list[Picture] = []
    refused: list[Refused] = []
    for number, row in _rows(path, ("path", "label")):
        name = f"{path.name} row {number}"
        if not row["path"] or "\0" in row["path"]:
            refused.append(Refused(name, "names no picture: fill in the column path"))
            continue
        try:
            label = clean_label(row["label"])
        except LabelError as error:
            refused.append(Refused(f"{name} ({row['path']})", str(error)))
            continue
        pictures.append(Picture(label, path.parent / row["path"], row.get("session", "")))
    return Offer(tuple(pictures), tuple(refused))


def _training_root(folder: Path) -> Path:
    """Return FOLDER/train where that holds class folders itself; a class may be called "train" too."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: give an image folder, or name files with --label")
    inner = folder / TRAIN
    return inner if inner.is_dir() and _folders(inner) else folder


def _folders(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}): check its rights") from error
    return sorted(found, key=lambda path: os.fsencode(path.name))


def _files(folder: Path) -> list[Path]:
    """Return every file below a class folder that is not hidden; whether it is a picture shows later."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found, key=os.fsencode)


def _sessions(folder: Path) -> dict[str, str]:
    """Return {path relative to the folder: session} from its manifest; empty without one."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return {}
    return {row["path"]: row.get("session", "") for _, row in _rows(manifest, ("path",))}


def _key(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number as editors count, row) of a CSV file with these columns; every value is text."""
    try:
        if path.stat().st_size > MAX_CSV_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CSV_BYTES} bytes: split it")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in needed if name not in (reader.fieldnames or [])]
            if missing:
                raise ConfigError(f"{path} has no column {missing[0]!r}: its first row must name the columns")
            for row in reader:
                yield reader.line_num, {str(key): str(value).strip() for key, value in row.items() if key}
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): check the path and its rights"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a CSV file in UTF-8 ({error}): export it again") from error
