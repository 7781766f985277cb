"""Decides what the tables of `learner.db` look like, and how an older one is brought forward.

Only SQL that SQLite 3.22 knows (Jetson Nano's Ubuntu 18.04). No secondary index: each costs flash at every
write, and what is needed for look-ups is small enough to be read at start. Every row carries its CRC-32, so
that salvage can tell what is still good.
"""

import sqlite3
import struct
import zlib
from collections.abc import Callable

APPLICATION_ID = 0x45434C31  # "ECL1" in the file header: this is an edge-cl learner
VERSION = 3  # user_version; 1 had neither CRCs nor sessions, 2 had features of one space only
READABLE = 2  # the oldest version that a reader, which changes nothing, can take as it is

META = "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
EVENTS = """CREATE TABLE events(
    seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, sample INTEGER NOT NULL, label TEXT NOT NULL,
    amount INTEGER NOT NULL, image_hash BLOB NOT NULL, source TEXT NOT NULL, views INTEGER NOT NULL,
    written INTEGER, session TEXT NOT NULL DEFAULT '', crc INTEGER NOT NULL DEFAULT 0)"""
FEATURES = """CREATE TABLE {}(
    slot INTEGER PRIMARY KEY, sample INTEGER NOT NULL, piece INTEGER NOT NULL, z BLOB NOT NULL,
    crc INTEGER NOT NULL DEFAULT 0)"""
JPEGS = "CREATE TABLE jpegs(sample INTEGER PRIMARY KEY, data BLOB NOT NULL, crc INTEGER NOT NULL DEFAULT 0)"
ERASURES = "CREATE TABLE erasures(sample INTEGER PRIMARY KEY)"
SHELVES = ("features", "features_2")  # of one feature space each; the second while a learner moves to another
TABLES = {
    "meta": META,
    "events": EVENTS,
    SHELVES[0]: FEATURES.format(SHELVES[0]),
    "jpegs": JPEGS,
    "erasures": ERASURES,
    SHELVES[1]: FEATURES.format(SHELVES[1]),
}


def feature_crc(sample: int, piece: int, z: bytes, table: str = SHELVES[0]) -> int:
    """Return the CRC-32 of a feature row, its place included: a row moved by damage is not believed."""
    return _signed(zlib.crc32(z, zlib.crc32(struct.pack("<qq", sample, piece), SHELVES.index(table))))


def jpeg_crc(sample: int, data: bytes) -> int:
    """Return the CRC-32 of a kept picture."""
    return _signed(zlib.crc32(data, zlib.crc32(struct.pack("<q", sample))))


def event_crc(
    seq: int,
    kind: int,
    sample: int,
    label: str,
    amount: int,
    image_hash: bytes,
    source: str,
    views: int,
    session: str,
) -> int:
    """Return the CRC-32 of an event row; `written` is bookkeeping and stays outside."""
    crc = zlib.crc32(struct.pack("<qqqqq", seq, kind, sample, amount, views))
    for part in (label.encode(), image_hash, source.encode(), session.encode()):
        crc = zlib.crc32(part, zlib.crc32(struct.pack("<q", len(part)), crc))
    return _signed(crc)


def _signed(crc: int) -> int:
    """Return the CRC as a signed number: SQLite keeps it in four bytes instead of six."""
    return crc - (1 << 32) if crc >> 31 else crc


def create(connection: sqlite3.Connection, meta: dict[str, str]) -> None:
    """Make every table in one transaction; a crash leaves an empty database, which is made again."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES.values():
            connection.execute(statement)
        connection.executemany("INSERT INTO meta(key, value) VALUES (?, ?)", sorted(meta.items()))
        _stamp(connection, VERSION)


def pending(version: int) -> tuple[int, ...]:
    """Return the versions a database of `version` still has to pass through; reads only."""
    return tuple(sorted(step for step in MIGRATIONS if step > version))


def apply(connection: sqlite3.Connection, version: int) -> None:
    """Bring the database forward, each step in its own transaction: a crash leaves a whole version."""
    connection.create_function("feature_crc", 3, feature_crc)
    connection.create_function("event_crc", 9, event_crc)
    connection.create_function("jpeg_crc", 2, jpeg_crc)
    for step in pending(version):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            MIGRATIONS[step](connection)
            _stamp(connection, step)


def _to_v2(connection: sqlite3.Connection) -> None:
    """Add sessions, a CRC on every row, and the list of erasures that are under way."""
    connection.execute("ALTER TABLE events ADD COLUMN session TEXT NOT NULL DEFAULT ''")
    for table in ("events", "features", "jpegs"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
    connection.execute(ERASURES)
    connection.execute("UPDATE features SET crc = feature_crc(sample, piece, z)")
    connection.execute("UPDATE jpegs SET crc = jpeg_crc(sample, data)")
    connection.execute(
        "UPDATE events SET crc ="
        " event_crc(seq, kind, sample, label, amount, image_hash, source, views, session)"
    )


def _to_v3(connection: sqlite3.Connection) -> None:
    """Add the table for features of a second space."""
    connection.execute(TABLES[SHELVES[1]])


def _stamp(connection: sqlite3.Connection, version: int) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {2: _to_v2, 3: _to_v3}
