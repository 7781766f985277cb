"""A database of version 1, made by literal SQL, comes forward whole, or stays as it was."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edge_cl.errors import MismatchError, StoreDamagedError
from edge_cl.memory import schema
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import EventKind
from edge_cl.sample import FeatureSpace

SPACE = FeatureSpace("old", 4, "int8", 0.5, 0)
VERSION_1 = """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events(
    seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, sample INTEGER NOT NULL, label TEXT NOT NULL,
    amount INTEGER NOT NULL, image_hash BLOB NOT NULL, source TEXT NOT NULL, views INTEGER NOT NULL,
    written INTEGER);
CREATE TABLE features(
    slot INTEGER PRIMARY KEY, sample INTEGER NOT NULL, piece INTEGER NOT NULL, z BLOB NOT NULL);
CREATE TABLE jpegs(sample INTEGER PRIMARY KEY, data BLOB NOT NULL);
INSERT INTO meta VALUES ('space', '["old", 4, "int8", 0.5, 0]');
INSERT INTO events VALUES (1, 1, 1, 'mug', 0, x'000102030405060708090a0b0c0d0e0f', 'a.jpg', 2, NULL);
INSERT INTO events VALUES (2, 2, 1, 'cup', 0, x'', '', 0, 4096);
INSERT INTO features VALUES (1, 1, 0, x'01020304');
INSERT INTO features VALUES (2, 1, 1, x'fffefdfc');
INSERT INTO jpegs VALUES (1, x'ffd8');
PRAGMA application_id = 0x45434c31;
PRAGMA user_version = 1;
COMMIT;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    connection = sqlite3.connect(tmp_path / "learner.db")
    connection.executescript(VERSION_1)
    connection.close()
    return tmp_path


def test_a_version_1_database_comes_forward_whole(old):
    with open_store(old, SPACE) as store:
        taught, relabelled = store.events_after(0)
        assert (taught.kind, taught.label, taught.session) == (EventKind.TEACH, "mug", "")
        np.testing.assert_array_equal(taught.features, [[1, 2, 3, 4], [-1, -2, -3, -4]])
        assert (relabelled.kind, relabelled.label) == (EventKind.RELABEL, "cup")
        assert store.jpeg(1) == b"\xff\xd8"
        assert store.erasures() == ()
        assert store.sizes().written_bytes_total >= 4096


def test_a_migrated_database_has_the_tables_of_a_new_one(old, tmp_path_factory):
    fresh = tmp_path_factory.mktemp("fresh")
    for folder in (old, fresh):
        open_store(folder, SPACE).close()
    assert columns(old) == columns(fresh)


def columns(folder: Path) -> dict[str, list]:
    connection = sqlite3.connect(folder / "learner.db")
    found = {
        table: sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({table})"))
        for table in schema.TABLES
    }
    assert connection.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
    connection.close()
    return found


def test_pending_lists_the_steps_and_changes_nothing():
    assert schema.pending(1) == (2, 3)
    assert schema.pending(schema.VERSION) == ()


def test_a_step_that_fails_leaves_the_old_version_whole(old, monkeypatch):
    def half(connection):
        connection.execute("ALTER TABLE events ADD COLUMN session TEXT NOT NULL DEFAULT ''")
        connection.execute("SELECT no_such_function()")

    with monkeypatch.context() as patch:
        patch.setitem(schema.MIGRATIONS, 2, half)
        with pytest.raises(Exception, match="no_such_function"):
            open_store(old, SPACE)
    with open_store(old, SPACE) as store:
        assert len(list(store.events_after(0))) == 2


def test_an_old_database_is_not_migrated_by_reading(old):
    with pytest.raises(MismatchError, match="older version"):
        open_store(old, SPACE, read_only=True)


def test_a_damaged_old_database_is_left_in_place_for_the_version_that_can_read_it(old):
    connection = sqlite3.connect(old / "learner.db")
    page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()[0]
    connection.close()
    data = bytearray((old / "learner.db").read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    (old / "learner.db").write_bytes(bytes(data))
    with pytest.raises(StoreDamagedError, match="older version"):
        open_store(old, SPACE)
    assert (old / "learner.db").read_bytes() == bytes(data)
    assert sorted(path.name for path in old.iterdir() if "damaged" in path.name) == []
