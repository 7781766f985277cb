"""Decides which versions may still be believed, and keeps that in `marks.db`, safe against a pulled plug.

The library keeps versions in files that it does not push through to the storage: after a power cut it
accepted version 1 although it had trusted version 2. A mark is what stays.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_cl.errors import ReleaseError, StoreDamagedError
from edge_cl.memory.disk import guarded, sync_folder

DATABASE = "marks.db"
APPLICATION_ID = 0x45434C54  # "ECLT" in the file header
VERSION = 1
TABLE = """CREATE TABLE marks(
    role TEXT PRIMARY KEY, version INTEGER NOT NULL, keys TEXT NOT NULL,
    bundle INTEGER NOT NULL DEFAULT 0, issued INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"""


class Mark(NamedTuple):
    """The highest that was verified of a role.

    Attributes:
        version: of its document.
        keys: ids of the keys that could sign it; none for the root, whose mark is never void.
        bundle: for a channel, the highest bundle that was fetched whole; else 0.
        issued: for the timestamp, when it was signed, in seconds since 1970; else 0.
    """

    version: int
    keys: frozenset[str] = frozenset()
    bundle: int = 0
    issued: int = 0


class Seen(NamedTuple):
    """What was just verified of a role: its mark-to-be, and how many of its keys must sign."""

    mark: Mark
    threshold: int = 0


def is_void(mark: Mark, keys: Iterable[str], threshold: int) -> bool:
    """Tell whether a mark counts no more: too few of its keys are left to sign anything under it.

    Then nothing signed before could be accepted, so there is no way back to guard; and a version that a thief
    made huge (the fast-forward attack of the Mercury paper) does not lock the device out after the rotation.
    """
    return len(mark.keys & frozenset(keys)) < threshold


def check(marks: Mapping[str, Mark], seen: Mapping[str, Seen]) -> None:
    """Refuse what is older than its mark; ReleaseError names the role."""
    for role, (found, threshold) in seen.items():
        mark = marks.get(role)
        if mark is None or is_void(mark, found.keys, threshold):
            continue
        if found.version < mark.version:
            raise ReleaseError(
                f"the host offers {role} {found.version}, but {mark.version} was seen here: an old state is"
                " replayed, or the host was restored from an old copy; what runs goes on"
            )


def raised(marks: Mapping[str, Mark], seen: Mapping[str, Seen]) -> dict[str, Mark]:
    """Return the marks after what was seen; a void one starts anew."""
    result = dict(marks)
    for role, (found, threshold) in seen.items():
        mark = marks.get(role)
        if mark is not None and not is_void(mark, found.keys, threshold):
            found = Mark(
                max(mark.version, found.version),
                found.keys,
                max(mark.bundle, found.bundle),
                max(mark.issued, found.issued),
            )
        result[role] = found
    return result


class Marks:
    """An open `marks.db`."""

    def __init__(self, folder: Path) -> None:
        path = folder / DATABASE
        with guarded("opening the marks"):
            self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def read(self) -> dict[str, Mark]:
        """Return every mark by role."""
        with self._whole():
            rows = self._connection.execute(
                "SELECT role, version, keys, bundle, issued FROM marks"
            ).fetchall()
            return {
                str(role): Mark(int(version), frozenset(str(keys).split()), int(bundle), int(issued))
                for role, version, keys, bundle, issued in rows
            }

    def write(self, marks: Mapping[str, Mark]) -> None:
        """Replace the marks that differ; when this returns, no power cut takes them back."""
        known = self.read()
        rows = [
            (role, mark.version, " ".join(sorted(mark.keys)), mark.bundle, mark.issued)
            for role, mark in sorted(marks.items())
            if known.get(role) != mark
        ]
        if not rows:
            return  # nothing is written where nothing changed: flash wears
        with guarded("writing the marks"), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _prepare(self, path: Path) -> None:
        with self._whole():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            owner = self._connection.execute("PRAGMA application_id").fetchone()[0]
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if owner == version == 0:
            self._create(path)
        elif (owner, version) != (APPLICATION_ID, VERSION):
            raise StoreDamagedError(_damaged(path))

    def _create(self, path: Path) -> None:
        with guarded("making the marks"):
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(TABLE)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
            sync_folder(path.parent)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Say what to do about marks that do not read back; without them an old release could come back."""
        try:
            with guarded("reading the marks"):
                yield
        except StoreDamagedError as error:
            raise StoreDamagedError(
                f"the marks of the releases seen are damaged ({error}): enrol again"
            ) from error
        except (ValueError, TypeError) as error:
            raise StoreDamagedError(
                f"the marks of the releases seen are damaged ({error}): enrol again"
            ) from error


def _damaged(path: Path) -> str:
    return f"{path} is not a list of releases seen by this edge-cl: enrol again"
