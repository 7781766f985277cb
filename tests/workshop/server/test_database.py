"""The database is ours, private, up to date, and what was committed is there; on SQLite and PostgreSQL."""

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text

from edge_cl.errors import ConfigError, MismatchError, StoreError
from host_trainer.server.database import Database, open_database
from host_trainer.server.fleet import Address, Fleet, open_fleet
from host_trainer.server.tables import Base, EditRow


def edit(version: int) -> EditRow:
    return EditRow(version=version, text="{}", at=0)


def versions(database: Database) -> list[int]:
    with database.reading() as session:
        return list(session.scalars(select(EditRow.version).order_by(EditRow.version)))


def test_the_migrations_make_the_tables_that_the_code_speaks_of(fleet: Fleet) -> None:
    with fleet.database.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_what_was_written_is_there_when_it_is_opened_again(
    folder: Path, fleet: Fleet, database_address: str
) -> None:
    with fleet.database.writing() as session:
        session.add(edit(1))
    with open_fleet(folder, Address(database_address)) as again:
        assert versions(again.database) == [1]


def test_what_failed_leaves_nothing(fleet: Fleet) -> None:
    with pytest.raises(RuntimeError), fleet.database.writing() as session:
        session.add(edit(1))
        session.flush()
        raise RuntimeError
    assert versions(fleet.database) == []


def test_a_reader_cannot_write(fleet: Fleet) -> None:
    with fleet.database.reading() as session:
        session.add(edit(1))
    assert versions(fleet.database) == []


def test_a_broken_rule_is_our_error_and_the_session_after_it_works(fleet: Fleet) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match="refuses"), fleet.database.writing() as session:
            session.execute(text("INSERT INTO edits (version) VALUES (1)"))
    assert versions(fleet.database) == []


def test_several_may_write_at_once(fleet: Fleet) -> None:
    def write(first: int) -> None:
        for version in range(first, first + 10):
            with fleet.database.writing() as session:
                session.add(edit(version))

    threads = [threading.Thread(target=write, args=(100 * k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(versions(fleet.database)) == 40


def test_two_who_open_an_empty_database_at_once_both_get_it(folder: Path, database_address: str) -> None:
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            open_database(folder, database_address).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_who_meets_another_turning_a_new_database_to_a_log_waits(folder: Path) -> None:
    other = sqlite3.connect(folder / "host.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # SQLite answers the wish for a log with "locked" at once, not in 20 s
    gone = threading.Timer(0.3, other.rollback)
    gone.start()
    open_database(folder).close()
    gone.join()
    other.close()


def test_a_newer_database_is_refused_and_left_as_it_is(
    fleet: Fleet, folder: Path, database_address: str
) -> None:
    with fleet.database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MismatchError, match="newer"):
        open_database(folder, database_address)


def test_only_its_owner_may_read_it(small_fleet: Fleet) -> None:
    for name in ("host.db", "host.db-wal", "host.db-shm"):
        assert (small_fleet.folder / name).stat().st_mode & 0o077 == 0


def test_sqlite_syncs_what_it_commits(small_fleet: Fleet) -> None:
    with small_fleet.database.reading() as session:
        asked = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / "host.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_database(folder)


def test_a_database_of_something_else_is_not_touched(folder: Path) -> None:
    with sqlite3.connect(folder / "host.db") as connection:
        connection.execute("CREATE TABLE devices (other TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="already exists"):
        open_database(folder)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("oracle://somewhere/db", "postgresql://"),
        ("nonsense", "does not read"),
        ("postgresql+asyncpg://somewhere/db", "postgresql://"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(folder: Path, address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_database(folder, address)


def test_a_server_that_does_not_answer_is_named_without_its_password(folder: Path) -> None:
    with pytest.raises(StoreError) as caught:
        open_database(folder, "postgresql://me:secret@127.0.0.1:9/fleet")
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_no_fleet_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host-trainer init"), open_fleet(tmp_path / "nowhere"):
        pass
