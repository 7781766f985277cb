"""Puts results on the disk so that a file or folder is there whole under its name, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_cl.errors import ConfigError, StoreError

PART = ".part-"  # in front of the name of what is not finished; removed by the next try


def write_file(path: Path, data: bytes) -> None:
    """Write `data` under `path` in one step: a reader sees the old file or the new one.

    Raises:
        StoreError: no space, no permission, no such folder.
    """
    part = path.with_name(f"{PART}{path.name}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _refused(path, error) from error


@contextmanager
def staged_folder(final: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden folder beside `final`; it gets that name when the block ends well, else it goes.

    Args:
        final: the folder's name once it is whole; must not exist, or be empty, unless `overwrite`.
        overwrite: let the new folder take the place of an old one.

    Raises:
        ConfigError: `final` is there already and holds something.
        StoreError: no space, no permission.
    """
    if final.exists() and not overwrite and not (final.is_dir() and not any(final.iterdir())):
        raise ConfigError(f"{final} is there already: choose another --out, or remove it first")
    part = final.with_name(f"{PART}{final.name}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        _sync_tree(part)
        _take_name(part, final)
    except OSError as error:
        raise _refused(final, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def make_folder(path: Path) -> Path:
    """Make a folder, its parents too, and return it.

    Raises:
        StoreError: no space, no permission, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from error
    return path


def remove_folder(path: Path) -> None:
    """Remove a folder and all it holds, as far as that can be done."""
    shutil.rmtree(path, ignore_errors=True)


def _take_name(part: Path, final: Path) -> None:
    """Rename; an old folder steps aside first and goes when the new one stands."""
    old = final.with_name(f"{PART}old-{final.name}")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.replace(old)
    part.replace(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Push the names in a folder through to the storage; OSError when it refuses."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(path: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    return StoreError(f"{path} cannot be written ({reason}): check space and permissions")
