"""Touches a cache of features, so that the second evaluation on the same pictures takes seconds.

Losing it costs time and nothing else: it is not synced, what is damaged in it counts as absent, and a cache
that cannot be used at all is a cache that never hits. Two processes may share it.
"""

import contextlib
import hashlib
import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_CACHE_BYTES = 2 << 30  # of the file; larger at start, and it begins anew
BUSY_TIMEOUT_S = 10.0  # the other process writes a batch in milliseconds
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS features1(key BLOB PRIMARY KEY, kind TEXT, z BLOB, crc INTEGER) WITHOUT ROWID"
)
DTYPES = ("int8", "uint8", "float32")  # stored dtypes of a feature space

logger = logging.getLogger(__name__)


class FeatureKey(NamedTuple):
    """What a feature depends on: the picture (SHA-256, hex), the backbone's id, and how it was prepared."""

    image_hash: str
    backbone_id: str
    preprocessing: str

    def digest(self) -> bytes:
        """Return the 32 bytes this key is stored under."""
        return hashlib.sha256(json.dumps(self).encode()).digest()


class FeatureCache:
    """Features (V, D) by `FeatureKey`, in one SQLite file; never raises for what is wrong with the file."""

    def __init__(self, path: Path) -> None:
        """Open the cache at `path`, made anew when it is missing, damaged or too large."""
        self.path = path
        self._connection = self._open()

    def __enter__(self) -> "FeatureCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: FeatureKey) -> np.ndarray | None:
        """Return the features (V, D) kept under `key`; None when there are none."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[FeatureKey]) -> dict[FeatureKey, np.ndarray]:
        """Return what is kept of these keys."""
        found = {}
        try:
            for key in keys:
                values = self._read(key.digest())
                if values is not None:
                    found[key] = values
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._rebuild(error)
        return found

    def put(self, key: FeatureKey, features: np.ndarray) -> None:
        """Keep the features (V, D) of one picture."""
        self.put_many({key: features})

    def put_many(self, features: Mapping[FeatureKey, np.ndarray]) -> None:
        """Keep the features (V, D) of many pictures in one transaction."""
        if self._connection is None:
            return
        rows = [_row(key, values) for key, values in features.items()]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO features1 VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._rebuild(error)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, digest: bytes) -> np.ndarray | None:
        if self._connection is None:
            return None
        row = self._connection.execute(
            "SELECT kind, z, crc FROM features1 WHERE key = ?", (digest,)
        ).fetchone()
        if row is None or zlib.crc32(row[1], zlib.crc32(row[0].encode())) != row[2]:
            return None
        dtype, views, size = json.loads(row[0])
        return np.frombuffer(row[1], dtype=dtype).reshape(views, size)

    def _open(self) -> sqlite3.Connection | None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > MAX_CACHE_BYTES:
                self._remove()
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            return self._open_anew(error)

    def _open_anew(self, error: sqlite3.Error) -> sqlite3.Connection | None:
        if not _is_damage(error):
            logger.debug("no feature cache: %s", error)
            return None
        try:
            self._remove()
            return _connect(self.path)
        except (sqlite3.Error, OSError) as again:
            logger.debug("no feature cache: %s", again)
            return None

    def _rebuild(self, error: Exception) -> None:
        """Start anew after damage; after anything else (disk full, locked) just leave this batch out."""
        logger.debug("feature cache: %s", error)
        if isinstance(error, sqlite3.Error) and _is_damage(error):
            self.close()
            self._connection = self._open_anew(error)

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # a cache: the worst a crash does is a rebuild
        connection.execute(SCHEMA)
        connection.execute("SELECT count(*) FROM (SELECT 1 FROM features1 LIMIT 1)").fetchone()
        return connection
    except BaseException:
        connection.close()
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    text = str(error)
    return any(sign in text for sign in ("malformed", "not a database", "no such table", "has no column"))


def _row(key: FeatureKey, values: np.ndarray) -> tuple[bytes, str, bytes, int]:
    if values.ndim != 2 or values.dtype.name not in DTYPES:
        raise ValueError(f"features are (V, D) of {DTYPES}, not {values.dtype}{values.shape}")
    kind = json.dumps([values.dtype.name, *values.shape])
    z = np.ascontiguousarray(values).tobytes()
    return key.digest(), kind, z, zlib.crc32(z, zlib.crc32(kind.encode()))
