"""Keeps objects as files, `objects/ab/abcd...`; each is whole and synced before it has its name."""

import hashlib
import os
from collections.abc import Callable, Set
from pathlib import Path
from uuid import uuid4

from edge_cl.errors import StoreDamagedError, StoreError
from host_trainer.artefacts import PART, make_folder, sync_folder

PRIVATE_FOLDER = 0o700  # pictures of somebody's home


class FolderStore:
    """See `ObjectStore`."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)
        self._guarded(folder, lambda: folder.chmod(PRIVATE_FOLDER))

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore`."""
        path = self._path(key)
        self._guarded(path, lambda: _write(path, data))

    def get(self, key: str) -> bytes:
        """See `ObjectStore`."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreDamagedError(f"{path} is gone: restore a copy of it") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}): check its rights") from error
        if hashlib.sha256(data).hexdigest() != key:
            raise StoreDamagedError(f"{path} is not what was kept: restore a copy of it")
        return data

    def remove(self, key: str) -> None:
        """See `ObjectStore`."""
        path = self._path(key)
        self._guarded(path, lambda: _remove(path))

    def sweep(self, used: Set[str], before: int) -> int:
        """See `ObjectStore`; what a crash left half written goes, too."""
        count = 0
        for path in sorted(self._folder.glob("??/*")):
            if path.name not in used:
                self._guarded(path, lambda path=path: _remove_old(path, before))  # type: ignore[misc]
                count += not path.exists()
        return count

    def check(self) -> None:
        """See `ObjectStore`."""
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise StoreError(f"{self._folder} cannot be written: check its rights")

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise ValueError(f"{key!r} is no key")
        return self._folder / key[:2] / key

    def _guarded(self, path: Path, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error.strerror}): check space and rights"
            ) from error


def _write(path: Path, data: bytes) -> None:
    if path.exists():
        os.utime(path)  # put anew: no sweep takes it for something that was left behind
        sync_folder(path.parent)
        return
    is_new = not path.parent.exists()
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{PART}{uuid4().hex}")  # two may bring the same object at once
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    if is_new:
        sync_folder(path.parent.parent)


def _remove(path: Path) -> None:
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def _remove_old(path: Path, before: int) -> None:
    if path.stat().st_mtime < before:
        _remove(path)
