"""Decides what of a damaged database can still be believed, row by row, and copies it into a new one.

A row is believed when it can be read and its CRC fits. Positions in the log are kept, so what is lost leaves
gaps in `seq`; whoever replays tolerates gaps, and ignores events about samples it does not know.
"""

import functools
import json
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from edge_cl.memory import schema
from edge_cl.memory.events import EventKind

MAX_FAILED_READS = (
    20_000  # per table; each split of a damaged range costs one, a hopeless file about a second
)
UNKNOWN_LAST_ROW = 1 << 40  # upper end of the search when the last row cannot be asked for
ROWS_PER_COMMIT = 512  # rows read and written at a time; bounds memory (half a megabyte at 1 KB)


class Salvage(NamedTuple):
    """What became of a damaged database.

    Attributes:
        rows_kept: rows that were read whole, of all tables.
        rows_lost: rows whose CRC did not fit or whose sample is lost, plus places that could not be read.
        aside: name of the file, in the state folder, that the damaged database was renamed to.
    """

    rows_kept: int
    rows_lost: int
    aside: str

    def to_json(self) -> str:
        """Write the report as one JSON object."""
        return json.dumps(self._asdict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Salvage":
        """Read what `to_json` wrote."""
        found = json.loads(text)
        return cls(int(found["rows_kept"]), int(found["rows_lost"]), str(found["aside"]))


def copy_rows(
    damaged: sqlite3.Connection, fresh: sqlite3.Connection, shelves: Collection[str] = schema.SHELVES[:1]
) -> tuple[int, int]:
    """Copy every believable row into `fresh`, whose tables exist and are empty; return (kept, lost).

    `shelves` are the tables of features in use.
    """
    kept = lost = 0
    for table, is_good in _CHECKS.items():
        if table in schema.SHELVES and table not in shelves:
            continue
        reader = _Reader(damaged, table)
        batch: list[tuple[Any, ...]] = []
        for row in reader.rows():
            if not is_good(row):
                lost += 1
                continue
            batch.append(row)
            if len(batch) >= ROWS_PER_COMMIT:
                _write(fresh, table, batch)
                kept, batch = kept + len(batch), []
        _write(fresh, table, batch)
        kept, lost = kept + len(batch), lost + reader.unreadable
    orphans = _drop_orphans(fresh)
    return kept - orphans, lost + orphans


def _drop_orphans(fresh: sqlite3.Connection) -> int:
    """Remove features and pictures whose TEACH is lost: their sample id will be given out again."""
    dropped = 0
    for table in (*schema.SHELVES, "jpegs"):
        taught = f"SELECT sample FROM events WHERE kind = {int(EventKind.TEACH)}"
        dropped += fresh.execute(f"DELETE FROM {table} WHERE sample NOT IN ({taught})").rowcount
    return dropped


def read_meta(damaged: sqlite3.Connection) -> dict[str, str]:
    """Return what can be read of the `meta` table; nothing when it cannot be read."""
    try:
        rows = damaged.execute("SELECT key, value FROM meta").fetchall()
    except (sqlite3.Error, UnicodeDecodeError):
        return {}
    return {key: value for key, value in rows if isinstance(key, str) and isinstance(value, str)}


class _Reader:
    """Read a table by row number, halving every range that fails until only the broken rows are left out."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self.connection = connection
        self.columns = ", ".join(COLUMNS[table])
        self.table = table
        self.key = COLUMNS[table][0]
        self.failed_reads = 0
        self.unreadable = 0

    def rows(self) -> Iterator[tuple[Any, ...]]:
        last = self._last_row()
        ranges = [(1, last)] if last else []
        while ranges and self.failed_reads < MAX_FAILED_READS:
            low, high = ranges.pop()
            if last < UNKNOWN_LAST_ROW and high - low >= ROWS_PER_COMMIT:  # memory stays bounded
                ranges.append((low + ROWS_PER_COMMIT, high))
                high = low + ROWS_PER_COMMIT - 1
            found = self._range(low, high)
            if found is not None:
                yield from found
            elif low == high:
                self.unreadable += 1
            else:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]
        self.unreadable += len(ranges)

    def _range(self, low: int, high: int) -> list[tuple[Any, ...]] | None:
        query = (
            f"SELECT {self.columns} FROM {self.table} WHERE {self.key} BETWEEN ? AND ? ORDER BY {self.key}"
        )
        try:
            return self.connection.execute(query, (low, high)).fetchall()
        except (sqlite3.Error, UnicodeDecodeError, OverflowError):
            self.failed_reads += 1
            return None

    def _last_row(self) -> int:
        try:
            row = self.connection.execute(f"SELECT max({self.key}) FROM {self.table}").fetchone()
        except sqlite3.OperationalError:  # no such table: its definition is lost
            self.unreadable += 1
            return 0
        except sqlite3.Error:
            self.failed_reads += 1
            return UNKNOWN_LAST_ROW
        return int(row[0] or 0)


def _write(fresh: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    places = ", ".join("?" * len(COLUMNS[table]))
    fresh.execute("BEGIN IMMEDIATE")
    fresh.executemany(f"INSERT OR REPLACE INTO {table}({', '.join(COLUMNS[table])}) VALUES ({places})", rows)
    fresh.execute("COMMIT")


def is_good_event(row: tuple[Any, ...]) -> bool:
    """Tell whether a row of `events`, in the order of COLUMNS, is as it was written."""
    seq, kind, sample, label, amount, image_hash, source, views, _, session, crc = row
    try:
        found = schema.event_crc(seq, kind, sample, label, amount, image_hash, source, views, session)
    except (AttributeError, TypeError, ValueError, struct.error):
        return False
    return found == crc


def is_good_feature(row: tuple[Any, ...], table: str = schema.SHELVES[0]) -> bool:
    """Tell whether a row of a table of features, in the order of COLUMNS, is as it was written."""
    _, sample, piece, z, crc = row
    try:
        return schema.feature_crc(sample, piece, z, table) == crc
    except (TypeError, struct.error):
        return False


def is_good_jpeg(row: tuple[Any, ...]) -> bool:
    """Tell whether a row of `jpegs`, in the order of COLUMNS, is as it was written."""
    sample, data, crc = row
    try:
        return schema.jpeg_crc(sample, data) == crc
    except (TypeError, struct.error):
        return False


def _is_good_erasure(row: tuple[Any, ...]) -> bool:
    return isinstance(row[0], int)


_EVENTS = "seq kind sample label amount image_hash source views written session crc"
COLUMNS = {
    "events": tuple(_EVENTS.split()),
    **dict.fromkeys(schema.SHELVES, ("slot", "sample", "piece", "z", "crc")),
    "jpegs": ("sample", "data", "crc"),
    "erasures": ("sample",),
}
_CHECKS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "events": is_good_event,
    **{table: functools.partial(is_good_feature, table=table) for table in schema.SHELVES},
    "jpegs": is_good_jpeg,
    "erasures": _is_good_erasure,
}
