"""Reads from the manifest of an image folder in which session each picture was taken."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from edge_cl.evaluation.protocols import natural
from host_trainer.datasets.folders import Pictures
from host_trainer.datasets.records import read_text

MANIFEST = "manifest.csv"  # optional, beside train/ and test/, with the columns `path` and `session`
MAX_MANIFEST_BYTES = 256 << 20  # a million rows of 256 bytes; the device's bound


def read_sessions(folder: Path) -> dict[str, str]:
    """Return {path relative to the folder: session} of its manifest; empty without one.

    Raises:
        ConfigError: no CSV file in UTF-8, too large, or without a column `path`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    reader = csv.DictReader(io.StringIO(read_text(path, MAX_MANIFEST_BYTES), newline=""), restval="")
    try:
        if "path" not in (reader.fieldnames or ()):
            raise ConfigError(f"{path} has no column 'path': its first row must name the columns")
        return {row["path"].strip(): str(row.get("session") or "").strip() for row in reader}
    except csv.Error as error:
        raise ConfigError(f"{path} is not a CSV file ({error}): export it again") from error


def sessions_of(pictures: Pictures, folder: Path | None, known: Mapping[str, str]) -> tuple[str, ...]:
    """Return the session of each picture, "" where the manifest of `folder` does not know it."""
    if folder is None or not known:
        return ("",) * len(pictures.paths)
    return tuple(known.get(path.relative_to(folder).as_posix(), "") for path in pictures.paths)


def numbered(
    train: tuple[str, ...], test: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.int32], NDArray[np.int32]]:
    """Return the names of domains in their order, and the number of each sample's: (N,) and (M,).

    Where nothing is known of any session there are no names, and every number is 0.
    """
    names = tuple(sorted({*train, *test}, key=natural))
    number = {name: place for place, name in enumerate(names)}
    parts = [np.array([number[name] for name in part], np.int32) for part in (train, test)]
    return (names if any(names) else (), parts[0], parts[1])
