"""Turns what SQLite and the system refuse into our errors, and pushes files through to the storage."""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_cl.errors import StoreBusyError, StoreDamagedError, StoreError

PIECE_BYTES = 1 << 20  # of a file, read at a time
_FULL = "free some space, then repeat; nothing that was acknowledged is lost"
_READ_ONLY = "the storage is read-only: look at its switch or its health, remount it, then repeat"
_RIGHTS = "give this user the right to write to the state folder, or choose another --state"
_MENDING = {  # words of SQLite and of the system -> how to mend it
    "disk is full": _FULL,
    "No space left": _FULL,
    "quota exceeded": _FULL,
    "disk I/O error": "the storage is full or failing: free space, look at `dmesg`, then start again",
    "Input/output error": "the storage is failing: look at `dmesg`, make a backup, replace it",
    "readonly database": _READ_ONLY,
    "Read-only file system": _READ_ONLY,
    "Permission denied": _RIGHTS,
    "unable to open database file": _RIGHTS,
}
_DAMAGE = (  # words of SQLite
    "malformed",
    "not a database",
    "unsupported file format",
    "no such table",
    "no such column",
    "Could not decode",
)


@contextlib.contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Raise what SQLite and the system raise as a StoreError of one line, with the way to mend it."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # SQLite quotes damaged bytes as text
        raise _translated(doing, error) from error


def _translated(doing: str, error: Exception) -> StoreError:
    text = " ".join(str(error).split())
    for sign, mend in _MENDING.items():
        if sign in text:
            return StoreError(f"{doing} failed ({text}): {mend}")
    if " is locked" in text:
        return StoreBusyError(
            f"{doing} failed ({text}): another program holds the database; stop it, then repeat"
        )
    if _means_damage(error):
        return StoreDamagedError(f"{doing} failed ({text}): start again, what is whole will be salvaged")
    return StoreError(f"{doing} failed ({text}): look at the state folder and the storage it is on")


def _means_damage(error: Exception) -> bool:
    # Python 3.10 does not tell SQLite's code, only its words; and none at all where they quote damaged bytes.
    if isinstance(error, UnicodeDecodeError):
        return True
    text = str(error)
    return isinstance(error, sqlite3.DatabaseError) and (not text or any(sign in text for sign in _DAMAGE))


def sync_file(path: Path) -> None:
    """Push a file's content through to the storage."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Push a folder's list of names through to the storage: a rename is not safe before that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> "hashlib._Hash":
    """Return the SHA-256 over a file's content, read in pieces; OSError when it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest


def size_bytes(path: Path) -> int:
    """Return a file's length, 0 when it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def process_written_bytes() -> int | None:
    """Return the bytes this process has caused to be sent to storage; None where the kernel does not say."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith("write_bytes:")]
    return int(found[0]) if found else None
