"""A disk that forgets, as LazyFS does: what was not pushed through is gone after a cut, its name stays.

It watches `os.fsync` of this process. SQLite's own syncs happen below that and are believed: its files are
left alone (measured: 640 of 640 rows survived with WAL and synchronous=FULL).
"""

import os
from pathlib import Path

import pytest

SQLITE = (".db", ".db-wal", ".db-shm")


class ForgetfulDisk:
    """Watches a folder while it is entered; `cut` then pulls the plug."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self._kept: dict[tuple[int, int], bytes] = {}  # (device, inode) -> content at the last fsync

    def __enter__(self) -> "ForgetfulDisk":
        for path in self._files():
            self._keep(path.stat(), path.read_bytes())
        sync = os.fsync

        def watched(descriptor: int) -> None:
            sync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}")
            if path.is_file():
                self._keep(os.fstat(descriptor), path.read_bytes())

        self._patch.setattr(os, "fsync", watched)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def cut(self) -> list[Path]:
        """Take from every file what was written after its last fsync; return those that lost something."""
        lost = []
        for path in self._files():
            status = path.stat()
            kept = self._kept.get((status.st_dev, status.st_ino), b"")
            if path.read_bytes() != kept:
                path.write_bytes(kept)
                lost.append(path)
        return lost

    def _keep(self, status: os.stat_result, content: bytes) -> None:
        self._kept[status.st_dev, status.st_ino] = content

    def _files(self) -> list[Path]:
        return [
            path
            for path in sorted(self._folder.rglob("*"))
            if path.is_file() and not path.is_symlink() and not path.name.endswith(SQLITE)
        ]
