"""Touches one table of features: cuts those of one space into rows that fill pages, in ring order.

A database has a second such table for the days on which a learner moves to another feature space: both are
written in the same transaction, and whoever opens it says in which space it works.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from edge_cl.memory import salvage as salvaging
from edge_cl.memory import schema
from edge_cl.memory.disk import guarded
from edge_cl.memory.slots import FREE, Slots, piece_bytes
from edge_cl.sample import FeatureSpace

Row = tuple[int, int, bytes, int]  # sample, piece, z, crc
SHRINK_RATIO = 8  # free slots per used one before the file is made smaller (the budget was lowered)
SMALLEST_SHRUNK = 1_000  # slots in use below which that is not worth a rewrite


class Planned(NamedTuple):
    """Rows, and the slots (n,) that they are written to."""

    slots: np.ndarray
    rows: list[Row]


class Shelf:
    """The features of one space in their table.

    Args:
        connection: gives the open database.
        table: one of `schema.SHELVES`.
        space: how the features are to be read.
        is_shared: another process may write: the owners are looked up every time.
    """

    def __init__(
        self, connection: Callable[[], sqlite3.Connection], table: str, space: FeatureSpace, is_shared: bool
    ) -> None:
        self.table, self.space = table, space
        self._connection, self._is_shared = connection, is_shared
        self._view_bytes = space.size * np.dtype(space.dtype).itemsize
        self._piece_bytes = piece_bytes(self._view_bytes)
        self._slots_found: Slots | None = None

    @property
    def slots(self) -> Slots:
        """Who owns which slot."""
        # Reading the owners touches every feature page, which a prediction need not pay for: on first use.
        if self._slots_found is None or self._is_shared:
            query = (
                f"SELECT slot, sample FROM {self.table} WHERE typeof(sample) = 'integer'"  # damage: any type
            )
            with guarded("reading"):
                rows = self._connection().execute(query).fetchall()
            found = np.array(rows, dtype=np.int64).reshape(-1, 2)
            self._slots_found = Slots(found[:, 0], found[:, 1])
        return self._slots_found

    @property
    def wants_shrinking(self) -> bool:
        """Whether most of the table is free."""
        return self.slots.free > SHRINK_RATIO * max(self.slots.used, SMALLEST_SHRUNK)

    def check(self, features: Any) -> None:
        """Raise ValueError unless these are (V, D) features of the space."""
        if (
            features is None
            or features.ndim != 2
            or features.shape[1] != self.space.size
            or not len(features)
        ):
            raise ValueError(f"features of shape (V, {self.space.size}) are expected")
        if features.dtype != np.dtype(self.space.dtype):
            raise ValueError(f"features are {features.dtype}, this store keeps {self.space.dtype}")

    def plan(self, features: Iterable[tuple[int, np.ndarray]]) -> Planned:
        """Cut the (V, D) features of samples into rows, and choose their slots; nothing changes."""
        rows = [row for sample, found in features for row in self._rows(sample, found)]
        slots = self.slots.plan(len(rows))
        if np.unique(slots).size != len(rows):  # two rows in one slot would lose a sample: never continue
            raise RuntimeError("the ring handed out a slot twice")
        return Planned(slots, rows)

    def write(self, connection: sqlite3.Connection, planned: Planned) -> None:
        """Write rows, inside a transaction."""
        rows = ((int(slot), *row) for slot, row in zip(*planned, strict=True))
        connection.executemany(
            f"INSERT OR REPLACE INTO {self.table}(slot, sample, piece, z, crc) VALUES (?, ?, ?, ?, ?)", rows
        )

    def take(self, planned: Planned) -> None:
        """Remember what has been committed."""
        self.slots.take(planned.slots, np.array([row[0] for row in planned.rows], dtype=np.int64))

    def read(self, views: Mapping[int, int]) -> dict[int, np.ndarray]:
        """Read (V, D) arrays for {sample: V}; what is not whole is left out."""
        slots = self.slots.of_any(np.fromiter(views, dtype=np.int64, count=len(views)))
        pieces: dict[int, dict[int, bytes]] = {}
        query = f"SELECT {', '.join(salvaging.COLUMNS[self.table])} FROM {self.table} WHERE slot = ?"
        with guarded("reading"):
            for slot in slots:
                for row in self._connection().execute(query, (int(slot),)):
                    if salvaging.is_good_feature(row, self.table):
                        pieces.setdefault(row[1], {})[row[2]] = row[3]
        found = {}
        for sample, parts in pieces.items():
            data = b"".join(parts[piece] for piece in sorted(parts))
            if len(data) == views.get(sample, 0) * self._view_bytes:
                found[sample] = np.frombuffer(data, dtype=self.space.dtype).reshape(-1, self.space.size)
        return found

    def keep_only(self, samples: Iterable[int]) -> int:
        """Give up the slots of all other samples and return how many those were; nothing is written."""
        keep = set(samples)
        held = self.slots.samples()
        return self.slots.release(held[~np.isin(held, np.fromiter(keep, dtype=np.int64, count=len(keep)))])

    def drop_free(self, connection: sqlite3.Connection) -> None:
        """Drop the free rows and move the others to the front, inside a transaction."""
        free = np.flatnonzero(self.slots.owner[1:] == FREE) + 1
        connection.executemany(f"DELETE FROM {self.table} WHERE slot = ?", ((int(slot),) for slot in free))
        # Survivors move to the front, in order: a slot's new number is never above its old one.
        slots = connection.execute(f"SELECT slot FROM {self.table} ORDER BY slot").fetchall()
        moves = ((new, slot[0]) for new, slot in enumerate(slots, start=1) if slot[0] != new)
        connection.executemany(f"UPDATE {self.table} SET slot = ? WHERE slot = ?", moves)

    def look_again(self) -> None:
        """Forget who owns what; it is read anew when it is asked for."""
        self._slots_found = None

    def _rows(self, sample: int, features: np.ndarray) -> list[Row]:
        rows: list[Row] = []
        for view in features:
            data = np.ascontiguousarray(view).tobytes()
            for start in range(0, len(data), self._piece_bytes):
                z = data[start : start + self._piece_bytes]
                crc = schema.feature_crc(sample, len(rows), z, self.table)
                rows.append((sample, len(rows), z, crc))
        return rows
