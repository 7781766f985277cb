"""Touches the database of a fleet: opens it, brings its tables up to date, and gives out transactions.

SQLite in the fleet's folder, or PostgreSQL by its address. On SQLite a writing transaction takes the one
writer's place at its beginning, so that two never find out at their end that they cannot both be; and what
was committed is on the disk (`synchronous=FULL`), whatever happens to the power.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from edge_cl.errors import ConfigError, MismatchError, StoreBusyError, StoreError

FILE = "host.db"
PRIVATE_FILE = 0o600  # the devices' keys are in it
BUSY_TIMEOUT_MS = 20_000  # for the writer's place
RETRY_S = 0.01  # where SQLite does not wait by itself
LOCKED = "locked"  # in SQLite's words, which have no number before Python 3.11
POOL = 8  # connections that stay open, and as many more under load
WRITES = "edge_cl_writes"
POSTGRESQL = "postgresql+psycopg"
MIGRATION_LOCK = 0x65636C  # of PostgreSQL's advisory locks: one server at a time brings the tables up to date


class Database:
    """The database of a fleet; `reading` and `writing` give sessions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite lets waiting writers try again and again; in one process they queue better here.
        self._turn = threading.Lock() if self.is_sqlite else contextlib.nullcontext()

    @property
    def is_sqlite(self) -> bool:
        """Whether only one can write at a time."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one state of the database and changes nothing; errors as `writing`."""
        with _translated(), self._engine.connect() as connection, Session(connection) as session:
            yield session
            session.rollback()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session whose changes are all on the disk when the block ends, or none.

        Raises:
            StoreBusyError: others keep writing.
            StoreError: the database refuses: no space, no rights, no connection.
        """
        with self._turn, _translated(), self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITES: True})
            with connection.begin(), Session(connection, expire_on_commit=False) as session:
                yield session
                session.flush()

    def check(self) -> None:
        """Raise StoreError when the database does not answer."""
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()


def open_database(folder: Path, address: str = "") -> Database:
    """Open the database of a fleet, made and brought up to date where needed.

    Args:
        folder: of the fleet, where SQLite's file lies.
        address: as in "postgresql://user@machine/name"; "" for SQLite.

    Raises:
        ConfigError: the address cannot be used.
        MismatchError: the tables are those of a newer host-trainer, or none of ours.
        StoreError: the database refuses.
    """
    engine = _engine(folder, address)
    database = Database(engine)
    try:
        with _translated():
            _bring_up_to_date(engine)
    except BaseException:
        database.close()
        raise
    return database


def _engine(folder: Path, address: str) -> Engine:
    if address:
        return _postgresql(address)
    path = folder / FILE
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a fleet's folder: make one with `host-trainer init DIR`")
    _make_private(path)
    engine = create_engine(
        f"sqlite:///{path.absolute()}",
        pool_size=POOL,
        max_overflow=POOL,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(address: str) -> Engine:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise ConfigError(
            "the database's address does not read: give postgresql://USER@MACHINE/NAME"
        ) from error
    if url.drivername not in ("postgresql", "postgres", POSTGRESQL):
        raise ConfigError(
            f"{url.drivername} is no database that is known here: give postgresql://..., or none"
        )
    try:
        # Read committed, as ever there: what must not change under us is locked by name.
        return create_engine(
            url.set(drivername=POSTGRESQL), pool_size=POOL, max_overflow=POOL, pool_pre_ping=True
        )
    except ModuleNotFoundError as error:
        raise ConfigError("psycopg is not installed: pip install 'edge-cl[postgresql]'") from error


def _make_private(path: Path) -> None:
    """Make an empty file for its owner's eyes only, before SQLite would make one for everybody's."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}): check space and rights") from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin below, not where the driver guesses
    _keep_a_log(connection)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "secure_delete=ON",  # a piece that is given up leaves no bytes
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _keep_a_log(connection: Any) -> None:
    """Turn a new database to a write-ahead log.

    Two who do so at once would each wait for the other to stop reading: SQLite refuses one of them at once,
    whatever its busy timeout, and that one asks again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if LOCKED not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def alembic_config(connection: Connection) -> Config:
    """Return what Alembic needs to work on an open connection."""
    config = Config()
    config.set_main_option("script_location", "host_trainer.server:migrations")
    config.attributes["connection"] = connection
    return config


def _bring_up_to_date(engine: Engine) -> None:
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATION_LOCK})
        config = alembic_config(connection)
        scripts = ScriptDirectory.from_config(config)
        found = MigrationContext.configure(connection).get_current_heads()
        known = {script.revision for script in scripts.walk_revisions()}
        if not set(found) <= known:
            raise MismatchError(
                f"the database has tables of a newer host-trainer ({', '.join(found)}): update this one"
            )
        if set(found) != set(scripts.get_heads()):
            command.upgrade(config, "head")


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what the database says as our errors; the address, which may hold a password, is not repeated."""
    try:
        yield
    except DBAPIError as error:
        words = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason given"
        if isinstance(error.orig, sqlite3.OperationalError) and LOCKED in words:
            raise StoreBusyError(f"the database is busy ({words}): try again") from error
        raise StoreError(
            f"the database refuses ({words}): check that it runs, its space and rights"
        ) from error
    except SQLAlchemyError as error:
        raise StoreError(
            f"the database cannot be asked ({type(error).__name__}): is it overloaded?"
        ) from error
