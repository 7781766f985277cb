"""Opening `learner.db`: made when new, salvaged when damaged, read from a copy on read-only storage."""

import contextlib
import os
from pathlib import Path

from edge_cl.errors import ConfigError, MismatchError, StoreDamagedError
from edge_cl.memory import schema
from edge_cl.memory.database import (
    DATABASE,
    READY,
    beside,
    borrow,
    connect_reader,
    finish_swap,
    lock_folder,
    nothing_here,
    open_checked,
    probe,
    read_spaces,
    salvage_database,
)
from edge_cl.memory.disk import guarded, size_bytes
from edge_cl.memory.salvage import Salvage
from edge_cl.memory.store import Store, Wanted
from edge_cl.sample import FeatureSpace


def open_store(folder: Path, space: Wanted, *, read_only: bool = False) -> Store:
    """Open the store of a state folder; made when it is not there and `space` is a space.

    `space` says in which the features are to be read: of a store that keeps two while a learner moves to
    another, by its id if need be; None takes the one the store was made with. A damaged database is set aside
    and what is whole in it is kept: look at `Store.salvage` afterwards.

    Raises:
        ConfigError: there is no store here and `space` is None, or `read_only` is set.
        MismatchError: made with another backbone, by a newer version, or not by edge-cl; nothing is changed.
        StoreBusyError: another process writes here.
        StoreDamagedError: `read_only`, and the database does not read back.
        StoreError: the storage refuses.
    """
    if read_only:
        return _open_reader(folder, space)
    is_new = size_bytes(folder / DATABASE) == 0
    if not isinstance(space, FeatureSpace) and is_new and not beside(folder / DATABASE, READY).exists():
        raise ConfigError(nothing_here(folder))
    lock = lock_folder(folder)
    try:
        return _open_writer(folder, space, lock)
    except BaseException:
        os.close(lock)
        raise


def _open_writer(folder: Path, space: Wanted, lock: int) -> Store:
    path = folder / DATABASE
    with guarded("opening the database"):
        salvage = finish_swap(path)
    try:
        return _opened(path, space, lock, salvage)
    except StoreDamagedError:
        with guarded("salvaging the database"):
            salvage = salvage_database(path, space if isinstance(space, FeatureSpace) else None)
        return _opened(path, space, lock, salvage)


def _opened(path: Path, space: Wanted, lock: int, salvage: Salvage | None) -> Store:
    connection, spaces = open_checked(path, space)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        store = Store(path.parent, connection, spaces, space, lock, salvage)
        undo.pop_all()
    return store


def _open_reader(folder: Path, space: Wanted) -> Store:
    path = folder / DATABASE
    if size_bytes(path) == 0 or beside(path, "-journal").exists():
        raise ConfigError(nothing_here(folder))
    with contextlib.ExitStack() as undo:
        store = _reading(path, space, undo)
        undo.pop_all()
    return store


def _reading(path: Path, space: Wanted, undo: contextlib.ExitStack) -> Store:
    folder, borrowed = path.parent, None
    if not os.access(folder, os.W_OK) and not beside(path, "-shm").exists():
        # SQLite cannot read a log without an index file beside it: on read-only storage read a copy.
        borrowed = borrow(path)
        undo.callback(borrowed.cleanup)
        path = Path(borrowed.name) / DATABASE
    version = probe(path, space)
    if version == 0:
        raise ConfigError(nothing_here(folder))
    if version < schema.READABLE:
        raise MismatchError(f"{path} is of an older version: run any command that writes to bring it forward")
    with guarded("opening the database"):
        connection = connect_reader(path)
        undo.callback(connection.close)
        return Store(folder, connection, read_spaces(connection), space, None, None, borrowed)
