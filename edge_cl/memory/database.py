"""Touches the file `learner.db` as a whole: makes, opens, checks, copies and salvages it.

A database is refused before its first byte is changed when it is not ours, of a newer version, or of another
backbone. A damaged one is set aside and replaced by what is whole in it, in steps that survive a pulled plug.
"""

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from edge_cl.errors import ConfigError, MismatchError, StoreBusyError, StoreDamagedError
from edge_cl.memory import salvage as salvaging
from edge_cl.memory import schema
from edge_cl.memory.disk import guarded, size_bytes, sync_file, sync_folder
from edge_cl.memory.salvage import Salvage
from edge_cl.sample import FeatureSpace

DATABASE = "learner.db"
LOCK = "lock"
READY = ".salvaged"  # suffix of a finished salvage that has not taken the damaged database's place yet
PAGE_BYTES = 4096  # larger pages write more at 1-4 KB rows (x10 at 8 K, x28 at 32 K)
CHECKPOINT_PAGES = 1_000  # pages of log (4 MB) before they are moved into the table; fewer moves wear less
BUSY_TIMEOUT_S = 5.0  # readers hold the log for milliseconds
QUICK_CHECK_BYTES = 32 << 20  # always checked at start up to here (about 50 ms); above only after a crash


def lock_folder(folder: Path) -> int:
    """Take the lock of a state folder, made when it is not there; closing the descriptor gives it back.

    Raises:
        StoreBusyError: another process has it.
    """
    with guarded("opening the state folder"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreBusyError(f"another edge-cl is working in {folder}: wait for it, or stop it") from error
    return lock


Spaces = dict[str, FeatureSpace]  # table of features -> whose they are


def open_checked(path: Path, space: FeatureSpace | str | None) -> tuple[sqlite3.Connection, Spaces]:
    """Open for writing a database that is ours, whole, of this version and of this backbone."""
    _finish_creation(path)
    unclean = size_bytes(beside(path, "-wal")) > 0
    version = probe(path, space)  # refuses before the first byte is written
    if version == 0 and not isinstance(space, FeatureSpace):
        raise ConfigError(nothing_here(path.parent))
    with guarded("opening the database"):
        connection = _connect(path)
        try:
            if version == 0 and isinstance(space, FeatureSpace):
                schema.create(connection, space_meta(schema.SHELVES[0], space))
                sync_folder(path.parent)
            elif unclean or size_bytes(path) <= QUICK_CHECK_BYTES:
                _quick_check(connection)
            schema.apply(connection, version or schema.VERSION)
            return connection, read_spaces(connection)
        except BaseException:
            connection.close()
            raise


def _finish_creation(path: Path) -> None:
    """Undo what a crash left of the moment before the log was switched on; the only one with a journal."""
    if beside(path, "-journal").exists():
        with guarded("opening the database"), contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def probe(path: Path, space: FeatureSpace | str | None) -> int:
    """Return the schema version, 0 for a database that is not made yet, without changing the file."""
    if size_bytes(path) == 0:
        return 0
    with guarded("opening the database"), contextlib.closing(connect_reader(path)) as connection:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if version == owner == tables == 0:  # a crash right after the file was made
            return 0
        if owner != schema.APPLICATION_ID:
            raise MismatchError(f"{path} was not made by edge-cl: move it away, or choose another --state")
        if version > schema.VERSION:
            raise MismatchError(
                f"{path} was made by a newer edge-cl (schema {version}, this one knows {schema.VERSION}):"
                " upgrade edge-cl"
            )
        _check_space(path, read_spaces(connection), space)
    return version


def _check_space(path: Path, known: Spaces, wanted: FeatureSpace | str | None) -> None:
    ids = [space.id for space in known.values()]
    asked = wanted.id if isinstance(wanted, FeatureSpace) else wanted
    if asked is None or asked in ids:
        return
    raise MismatchError(
        f"{path.parent} was taught with backbone {ids[0]}, not {asked}:"
        " use that backbone, or choose another --state"
    )


def space_meta(table: str, space: FeatureSpace) -> dict[str, str]:
    """Return what `meta` says of a table of features."""
    text = json.dumps(space)
    name = _meta_name(table)
    return {name: text, f"{name}_crc": str(zlib.crc32(text.encode()))}


def read_spaces(connection: sqlite3.Connection) -> Spaces:
    """Return the feature spaces that a database keeps; two while a learner moves to another."""
    spaces = _parse_spaces(dict(connection.execute("SELECT key, value FROM meta").fetchall()))
    if not spaces:
        raise StoreDamagedError("the database does not say which backbone it belongs to: start again")
    return spaces


def _parse_spaces(meta: dict[str, str]) -> Spaces:
    """Return the spaces that the database keeps, as far as that is readable."""
    found = {table: _parse_space(meta, _meta_name(table)) for table in schema.SHELVES}
    return {table: space for table, space in found.items() if space is not None}


def _parse_space(meta: dict[str, str], name: str) -> FeatureSpace | None:
    try:
        text = meta[name]
        space = FeatureSpace(*json.loads(text))
        crc = str(zlib.crc32(text.encode()))
        whole = meta.get(f"{name}_crc", crc) == crc
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return space if whole else None


def _meta_name(table: str) -> str:
    return table.replace("features", "space")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute("PRAGMA secure_delete = OFF")  # Debian's default is ON, which writes freed pages out
    connection.execute("PRAGMA temp_store = MEMORY")  # nothing of the user's in /tmp, no wear for it
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a database that is there, for reading only."""
    uri = path.absolute().as_uri() + "?mode=ro"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def borrow(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Copy a database and its log to where SQLite may make its index file; `cleanup` removes the copy."""
    with guarded("reading the database"):
        folder = tempfile.TemporaryDirectory(prefix="edge-cl-")
        for part in (path, beside(path, "-wal")):
            if part.exists():
                shutil.copyfile(part, Path(folder.name) / part.name)
    return folder


def nothing_here(folder: Path) -> str:
    """Return the line for a folder without a learner."""
    return f"{folder} holds no learner: run `edge-cl init` first, or choose another --state"


# -- damage ----------------------------------------------------------------------------------------------


def _quick_check(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamagedError(f"the database is damaged ({' '.join(str(found).split())})")
    connection.execute("SELECT count(*), sum(length(key)) FROM meta").fetchone()


def salvage_database(path: Path, space: FeatureSpace | None) -> Salvage:
    """Build a new database from what is whole in the damaged one, then swap them.

    The new one is complete and synced under its final-but-one name before the damaged one is moved, and
    `_finish_swap` carries on from any point at which the plug is pulled.
    """
    building = beside(path, ".building")
    _remove_database(building)
    try:
        report = _build(building, path, space)
        sync_file(building)
        building.rename(beside(path, READY))
        sync_folder(path.parent)
    finally:
        _remove_database(building)
    finish_swap(path)
    return report


def _build(building: Path, path: Path, space: FeatureSpace | None) -> Salvage:
    """Make a new database of what is whole in the damaged one at `path`."""
    with contextlib.closing(_connect(building)) as fresh, _damaged(path) as old:
        meta = {} if old is None else salvaging.read_meta(old)
        known = _parse_spaces(meta) or ({schema.SHELVES[0]: space} if space else {})
        if not known:
            raise StoreDamagedError(
                f"{path} is damaged beyond reading: restore a backup, or name the backbone with --backbone"
            )
        version = old.execute("PRAGMA user_version").fetchone()[0] if old else 0
        if 0 < version < schema.READABLE:
            raise StoreDamagedError(
                f"{path} is damaged and of an older version: salvage it with that edge-cl"
            )
        for table, each in known.items():
            meta |= space_meta(table, each)
        schema.create(fresh, meta)
        kept, lost = (0, 1) if old is None else salvaging.copy_rows(old, fresh, known)
        report = Salvage(kept, lost, _aside(path).name)
        fresh.execute("INSERT OR REPLACE INTO meta VALUES ('salvage', ?)", (report.to_json(),))
    return report


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a damaged database as far as possible; None when not even a new first page makes it one."""
    patched = beside(path, ".patched")
    try:
        with contextlib.closing(connect_reader(path)) as connection:
            if _is_readable(connection):
                yield connection
                return
        _patch_first_page(path, patched)
        with contextlib.closing(connect_reader(patched)) as connection:
            yield connection if _is_readable(connection) else None
    finally:
        _remove_database(patched)


def _is_readable(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def _patch_first_page(path: Path, patched: Path) -> None:
    """Copy a database and its log with a new first page: it says only where the tables begin.

    A new database has them in the same places, and every row is checked before it is believed.
    """
    _remove_database(patched)
    with contextlib.closing(_connect(patched)) as connection:
        schema.create(connection, {})
    first = bytearray(patched.read_bytes()[:PAGE_BYTES])
    pages = size_bytes(path) // PAGE_BYTES
    first[28:32] = pages.to_bytes(4, "big")  # size in pages, believed when the next two fields agree
    first[92:96] = first[24:28]
    shutil.copyfile(path, patched)
    with patched.open("r+b") as file:
        file.write(first)
    log = beside(path, "-wal")
    if log.exists():
        shutil.copyfile(log, beside(patched, "-wal"))


def _remove_database(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        beside(path, suffix).unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    number = 1
    while beside(path, f".damaged-{number}").exists():
        number += 1
    return beside(path, f".damaged-{number}")


def finish_swap(path: Path) -> Salvage | None:
    """Put a finished salvage in place; does nothing when there is none. Safe to repeat."""
    ready = beside(path, READY)
    if not ready.exists():
        return None
    aside = _aside(path)
    for suffix in ("-wal", "-shm", ""):  # the log first: it must never meet the new database
        if beside(path, suffix).exists():
            beside(path, suffix).rename(beside(aside, suffix))
    sync_folder(path.parent)
    ready.rename(path)
    sync_folder(path.parent)
    with contextlib.closing(connect_reader(path)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'salvage'").fetchone()
    return Salvage.from_json(row[0])


def copy_database(source: sqlite3.Connection, path: Path) -> None:
    """Copy a database that may be in use into one checked file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        _quick_check(copy)


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to the one at `path`."""
    return path.with_name(path.name + suffix)
