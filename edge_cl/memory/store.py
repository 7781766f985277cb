"""Touches `learner.db`: the device's event log, features and pictures, in SQLite, safe against a pulled plug.

A call of `append` is one transaction, written through to the storage (WAL, synchronous=FULL): when it has
returned, its events are acknowledged and survive anything. Callers batch about COMMIT_ROWS events a call.
What the learner knows is a fold over the events, so `checkpoint + events_after(checkpoint)` is the
uninterrupted run. Positions (`seq`) only grow; cleaning, forgetting and salvage leave gaps, which a reader
ignores, as it ignores events about a sample that is not there any more.

One process writes (an OS lock on `lock`, given back by the kernel when it dies); any number read.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import StoreBusyError, StoreDamagedError, StoreError
from edge_cl.memory import salvage as salvaging
from edge_cl.memory import schema
from edge_cl.memory.database import (
    DATABASE,
    PAGE_BYTES,
    QUICK_CHECK_BYTES,
    Spaces,
    beside,
    copy_database,
    space_meta,
)
from edge_cl.memory.disk import guarded, process_written_bytes, size_bytes, sync_file, sync_folder
from edge_cl.memory.events import Event, EventKind, SampleInfo, idle_renames
from edge_cl.memory.salvage import Salvage
from edge_cl.memory.shelf import Shelf
from edge_cl.sample import FeatureSpace, label_key

__all__ = ["COMMIT_ROWS", "Event", "EventKind", "SampleInfo", "Salvage", "Sizes", "Store"]

COMMIT_ROWS = 32  # events a transaction; measured: 6.6 bytes written per byte kept against 20 one by one
MAX_REMEMBERED = 20_000  # dead samples whose hash is kept (2 MB), so that teaching a folder again is noticed
MAX_NAME_BYTES = 255  # of a source or session; what file systems allow for a file name
MAX_OTHER_EVENTS = 1_024  # entries that teach nothing, beyond one a sample, before old ones are removed

Wanted = FeatureSpace | str | None  # a space, its id, or the one that is there


class Sizes(NamedTuple):
    """What the store holds, on disk and in rows, and the bytes ever written to the storage."""

    database_bytes: int
    log_bytes: int
    jpeg_bytes: int
    used_slots: int
    free_slots: int
    samples: int
    events: int
    written_bytes_total: int


class Store:
    """An open `learner.db`; made by `opening.open_store`. One thread at a time.

    Attributes:
        folder: the state folder.
        salvage: what a damaged database, found by this opening, was reduced to; None when all was well.
        next_seq: position of the next event.
        next_sample: id of the next sample.
        dropped: TEACH events that `events_after` had to leave out because their features are not whole.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        spaces: Spaces,
        wanted: Wanted,
        lock: int | None,
        salvage: Salvage | None = None,
        borrowed: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.folder = folder
        self.salvage = salvage
        self.dropped = 0
        self._connection: sqlite3.Connection | None = connection
        self._lock = lock
        self._borrowed = borrowed
        self._broken = ""
        self._shelf, self._other = self._shelves_of(spaces, wanted)
        self._written_at_start = process_written_bytes()
        self._estimated_bytes = 0
        self.next_seq = self.next_sample = 1
        with guarded("reading"):
            self._load()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing -----------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event], *, erase: Iterable[int] = ()) -> None:
        """Keep these events in one transaction; when this returns they survive anything.

        `seq` must run on from `next_seq`, a TEACH sample from `next_sample`. `erase` notes samples whose
        bytes `forget` is to destroy once no checkpoint needs them any more; the note survives too.

        Raises:
            StoreError: nothing of it was kept; after space was freed the same call works.
        """
        self._check_order(events)
        planned = [shelf.plan(_features(events, shelf is self._shelf)) for shelf in self._shelves]
        with self._transaction("keeping what was taught") as connection:
            connection.executemany(_INSERT_EVENT, self._event_rows(events))
            for shelf, plan in zip(self._shelves, planned, strict=True):
                shelf.write(connection, plan)
            connection.executemany(_INSERT_JPEG, _jpeg_rows(events))
            connection.executemany("INSERT OR IGNORE INTO erasures(sample) VALUES (?)", ((s,) for s in erase))
        for shelf, plan in zip(self._shelves, planned, strict=True):
            shelf.take(plan)
        self._note(events)

    def clean(self, live: Iterable[int], up_to_seq: int) -> int:
        """Give up the features of samples neither in `live` nor taught after `up_to_seq`; return their rows.

        Call it at start, and whenever a checkpoint that holds everything up to `up_to_seq` is safe: what is
        given up is not written down. Give the union of the live samples, and the lowest `up_to_seq`, of
        every checkpoint that may still be returned to. Costs no writing by itself: given-up rows are
        overwritten later (see `slots`); now and then pictures and old log entries are removed.
        """
        keep = set(live) | {sample for sample, seq in self._seq_of.items() if seq > up_to_seq}
        rows = sum(shelf.keep_only(keep) for shelf in self._shelves)
        self._trim_jpegs(keep)
        self._trim_log(keep, up_to_seq)
        if any(shelf.wants_shrinking for shelf in self._shelves):
            self._shrink()
        return rows

    def forget(self, samples: Iterable[int], *, labels: Iterable[str] = ()) -> None:
        """Destroy features, picture, names and hash of these samples, so that no file here holds their bytes.

        `labels` are forgotten classes whose names must go from the log as well. Costs rewriting the database
        once: give all in one call. Call it after a checkpoint no longer needs them; until then
        `append(..., erase=...)` keeps the note, and `erasures()` lists it. May be repeated.

        Raises:
            StoreBusyError: forgotten, but a reader keeps the old bytes in the log; call again later.
        """
        gone = sorted({int(sample) for sample in samples})
        names = sorted(set(labels))
        if not gone and not names:
            return
        self._execute_outside("PRAGMA secure_delete = ON")
        with self._transaction("forgetting") as connection:
            self._keep_counters(connection)
            connection.executemany("INSERT OR IGNORE INTO erasures(sample) VALUES (?)", ((s,) for s in gone))
            _fill_chosen(connection, gone)
            for table in (*schema.SHELVES, "events", "jpegs"):
                connection.execute(f"DELETE FROM {table} WHERE sample IN (SELECT sample FROM temp.chosen)")
            classes = ((EventKind.FORGET_CLASS, name) for name in names)
            connection.executemany("DELETE FROM events WHERE kind = ? AND label = ?", classes)
            idle = idle_renames(map(_event, connection.execute(f"{_SELECT_EVENTS} ORDER BY seq")), names)
            connection.executemany("DELETE FROM events WHERE seq = ?", ((seq,) for seq in idle))
        for shelf in self._shelves:
            shelf.slots.release(np.array(gone, dtype=np.int64))
        with guarded("forgetting"):
            self._load_events()
        self._scrub()
        with self._transaction("forgetting") as connection:
            connection.executemany("DELETE FROM erasures WHERE sample = ?", ((s,) for s in gone))

    def keep_jpeg(self, sample: int, data: bytes) -> None:
        """Keep the picture of a sample that was taught without; nothing happens when one is kept."""
        if self._open.execute("SELECT 1 FROM jpegs WHERE sample = ?", (sample,)).fetchone():
            return
        with self._transaction("keeping a picture") as connection:
            connection.execute(_INSERT_JPEG, (sample, data, schema.jpeg_crc(sample, data)))

    def add_space(self, space: FeatureSpace) -> None:
        """Keep features of a second space beside those in use; nothing happens when it is there already.

        Raises:
            ValueError: two others are kept already.
        """
        if space in (self.space, self.other_space):
            return
        if self._other is not None:
            raise ValueError("features of two spaces are kept already")
        table = next(table for table in schema.SHELVES if table != self._shelf.table)
        with self._transaction("making room for other features") as connection:
            connection.execute(f"DELETE FROM {table}")  # of a space that was dropped half way
            connection.executemany(_INSERT_META, space_meta(table, space).items())
        self._other = Shelf(lambda: self._open, table, space, False)

    def add_features(self, features: Mapping[int, np.ndarray]) -> None:
        """Keep (V, D) features of the other space for samples that were taught before, in one transaction."""
        if self._other is None:
            raise ValueError("features of a second space, where the store has one")
        for found in features.values():
            self._other.check(found)
        planned = self._other.plan(features.items())
        with self._transaction("keeping other features") as connection:
            self._other.write(connection, planned)
        self._other.take(planned)

    def other_features(self, samples: Iterable[int]) -> dict[int, np.ndarray]:
        """Read the (V, D) features of these samples in the other space, as `features`."""
        return self._other.read(self._views_of(samples)) if self._other else {}

    def other_samples(self) -> set[int]:
        """Return the samples that have features of the other space."""
        return set(self._other.slots.samples().tolist()) if self._other else set()

    def drop_other(self) -> None:
        """Give up the space that is not in use, with its features; nothing happens when there is one only."""
        if self._other is None:
            return
        names = [(name,) for name in space_meta(self._other.table, self._other.space)]
        with self._transaction("removing other features") as connection:
            connection.execute(f"DELETE FROM {self._other.table}")
            connection.executemany("DELETE FROM meta WHERE key = ?", names)
        self._other = None

    def skip_to(self, seq: int, sample: int) -> None:
        """Never hand out a position below `seq` or a sample below `sample`: a salvaged log may end early."""
        self.next_seq = max(self.next_seq, seq)
        self.next_sample = max(self.next_sample, sample)

    # -- reading -----------------------------------------------------------------------------------------

    def events_after(self, seq: int) -> Iterator[Event]:
        """Yield the events after `seq` in order, TEACH with its features; jpegs are not read.

        A TEACH whose features are not whole is left out and counted in `dropped`.
        """
        while True:
            with guarded("reading"):
                query = f"{_SELECT_EVENTS} WHERE seq > ? ORDER BY seq LIMIT ?"
                rows = self._open.execute(query, (seq, COMMIT_ROWS)).fetchall()
            good = [row for row in rows if salvaging.is_good_event(row)]
            features = self._shelf.read({row[2]: row[7] for row in good if row[1] == EventKind.TEACH})
            for row in good:
                if row[1] != EventKind.TEACH:
                    yield _event(row)
                elif row[2] in features:
                    yield _event(row)._replace(features=features[row[2]])
            self.dropped += (
                len(rows)
                - len(good)
                + sum(row[1] == EventKind.TEACH and row[2] not in features for row in good)
            )
            if len(rows) < COMMIT_ROWS:
                return
            seq = rows[-1][0]

    def features(self, samples: Iterable[int]) -> dict[int, np.ndarray]:
        """Read the features of these samples, (V, D) each; one that is not there or not whole is left out."""
        return self._shelf.read(self._views_of(samples))

    def _views_of(self, samples: Iterable[int]) -> dict[int, int]:
        """Return {sample: V} of those that the log knows."""
        wanted = {int(sample) for sample in samples}
        with guarded("reading"):
            rows = [row for row in self._open.execute(_SELECT_EVENTS) if row[2] in wanted]
        return {row[2]: row[7] for row in rows if salvaging.is_good_event(row) and row[1] == EventKind.TEACH}

    def samples(self) -> list[SampleInfo]:
        """Return everything known of every remembered sample, in the order they were taught."""
        with guarded("reading"):
            rows = self._open.execute(f"{_SELECT_EVENTS} ORDER BY seq").fetchall()
        known: dict[int, SampleInfo] = {}
        for row in filter(salvaging.is_good_event, rows):
            event = _event(row)
            if event.kind is EventKind.TEACH:
                known[event.sample] = SampleInfo(
                    event.sample,
                    event.seq,
                    event.label,
                    event.image_hash,
                    event.session,
                    event.source,
                    row[7],
                )
            elif event.kind is EventKind.RELABEL and event.sample in known:
                known[event.sample] = known[event.sample]._replace(label=event.label)
            elif event.kind is EventKind.RENAME:
                of = [each for each in known.values() if label_key(each.label) == label_key(event.label)]
                known |= {each.sample: each._replace(label=event.source) for each in of}
        return list(known.values())

    def known_hashes(self) -> set[bytes]:
        """Return the image hashes of everything taught and still remembered."""
        return set(self._hashes)

    def erasures(self) -> tuple[int, ...]:
        """Return the samples noted by `append(..., erase=...)` that `forget` has not destroyed yet."""
        with guarded("reading"):
            return tuple(row[0] for row in self._open.execute("SELECT sample FROM erasures ORDER BY sample"))

    def jpeg(self, sample: int) -> bytes | None:
        """Return the kept picture of a sample; None when none was kept.

        Raises:
            StoreDamagedError: it is there, but not as it was written.
        """
        with guarded("reading"):
            query = "SELECT data, crc FROM jpegs WHERE sample = ?"
            row = self._open.execute(query, (int(sample),)).fetchone()
        if row is None:
            return None
        if schema.jpeg_crc(int(sample), row[0]) != row[1]:
            raise StoreDamagedError(
                f"the picture of sample {sample} is damaged: forget it and teach it again"
            )
        return bytes(row[0])

    def picture_sizes(self) -> dict[int, int]:
        """Return the bytes of each picture that is kept, by sample."""
        with guarded("reading"):
            return dict(self._open.execute("SELECT sample, length(data) FROM jpegs").fetchall())

    def written_bytes(self) -> int:
        """Return the bytes this process has sent to the storage since the store was opened.

        From /proc/self/io (file system journal not included); an estimate from the rows where that is absent.
        """
        now = process_written_bytes()
        if now is None or self._written_at_start is None:
            return self._estimated_bytes
        return now - self._written_at_start

    def sizes(self) -> Sizes:
        """Measure the store; reads the picture table's lengths, not the pictures."""
        path = self.folder / DATABASE
        with guarded("reading"):
            jpeg_bytes = self._open.execute("SELECT coalesce(sum(length(data)), 0) FROM jpegs").fetchone()[0]
            events = self._open.execute("SELECT count(*) FROM events").fetchone()[0]
        return Sizes(
            database_bytes=size_bytes(path),
            log_bytes=size_bytes(beside(path, "-wal")),
            jpeg_bytes=jpeg_bytes,
            used_slots=sum(shelf.slots.used for shelf in self._shelves),
            free_slots=sum(shelf.slots.free for shelf in self._shelves),
            samples=len(self._seq_of),
            events=events,
            written_bytes_total=self._written_before + self.written_bytes(),
        )

    def backup_to(self, path: Path) -> None:
        """Write a whole, checked copy of the database to `path`, which is replaced in one step."""
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with guarded("writing the backup"):
                copy_database(self._open, part)
                sync_file(part)
                part.replace(path)
                sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files and give back the lock; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._borrowed is not None:
            self._borrowed.cleanup()
            self._borrowed = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- inside ------------------------------------------------------------------------------------------

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the store is closed")
        return self._connection

    def _shelves_of(self, spaces: Spaces, wanted: Wanted) -> tuple[Shelf, Shelf | None]:
        """Return the shelf of the space that is wanted, and the other one."""
        is_shared = self._lock is None
        shelves = [Shelf(lambda: self._open, table, space, is_shared) for table, space in spaces.items()]
        chosen = wanted.id if isinstance(wanted, FeatureSpace) else wanted
        first = next((shelf for shelf in shelves if shelf.space.id == chosen), shelves[0])
        return first, next((shelf for shelf in shelves if shelf is not first), None)

    @property
    def space(self) -> FeatureSpace:
        """How the features are to be read."""
        return self._shelf.space

    @property
    def is_read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._lock is None

    @property
    def other_space(self) -> FeatureSpace | None:
        """The other space that is kept while a learner moves from one to another."""
        return self._other.space if self._other else None

    @property
    def _shelves(self) -> list[Shelf]:
        return [self._shelf, self._other] if self._other else [self._shelf]

    def _load(self) -> None:
        self._load_events()
        meta = dict(self._open.execute("SELECT key, value FROM meta").fetchall())
        last = self._open.execute(
            "SELECT written FROM events WHERE typeof(written) = 'integer' ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        self._written_before = max(_count(meta, "written"), last[0] if last else 0)
        last_seq = self._open.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        self.next_seq = max(last_seq + 1, _count(meta, "next_seq"))
        self.next_sample = max(max(self._seq_of, default=0) + 1, _count(meta, "next_sample"))

    def _load_events(self) -> None:
        self._seq_of: dict[int, int] = {}
        self._hashes: set[bytes] = set()
        for row in self._open.execute(_SELECT_EVENTS):
            if not salvaging.is_good_event(row):
                self._meet_damage(f"entry {row[0]} of the log")
            elif row[1] == EventKind.TEACH:
                self._seq_of[row[2]] = row[0]
                self._hashes.add(row[5])

    def _meet_damage(self, where: str) -> None:
        # A writer has it salvaged, and the user told, by whoever opens the store; a reader does what it can.
        if self._lock is not None:
            raise StoreDamagedError(f"{where} is damaged: start again, what is whole will be salvaged")

    def _check_order(self, events: Sequence[Event]) -> None:
        if self._lock is None:
            raise RuntimeError("the store was opened read-only")
        sample = self.next_sample
        for position, event in enumerate(events):
            if event.seq != self.next_seq + position:
                raise ValueError(f"event {event.seq} where {self.next_seq + position} is next")
            if event.kind is EventKind.TEACH:
                self._check_features(event, sample)
                sample = event.sample + 1

    def _check_features(self, event: Event, next_sample: int) -> None:
        if event.sample < next_sample:
            raise ValueError(f"sample {event.sample} where {next_sample} is next")
        self._shelf.check(event.features)
        if event.twin is not None:
            if self._other is None:
                raise ValueError("features of a second space, where the store has one")
            self._other.check(event.twin)

    def _event_rows(self, events: Sequence[Event]) -> Iterator[tuple[Any, ...]]:
        for event in events:
            views = 0 if event.features is None else len(event.features)
            source, session = _name(event.source), _name(event.session)
            head = (event.seq, int(event.kind), event.sample, event.label, event.amount)
            crc = schema.event_crc(*head, event.image_hash, source, views, session)
            # The running total rides on the last row of each commit: no page is written for it alone.
            written = self._written_before + self.written_bytes() if event is events[-1] else None
            yield (*head, event.image_hash, source, views, written, session, crc)

    def _note(self, events: Sequence[Event]) -> None:
        """Remember in memory what a commit has just made true."""
        for event in events:
            self.next_seq = event.seq + 1
            if event.kind is EventKind.TEACH:
                self._seq_of[event.sample] = event.seq
                self._hashes.add(event.image_hash)
                self.next_sample = event.sample + 1
                self._estimated_bytes += 4 * (0 if event.features is None else event.features.nbytes)
            self._estimated_bytes += PAGE_BYTES // COMMIT_ROWS

    def _trim_jpegs(self, keep: set[int]) -> None:
        """Remove the pictures of samples that are not kept; freed overflow pages cost no writing."""
        with guarded("reading"):
            held = [row[0] for row in self._open.execute("SELECT sample FROM jpegs")]
        gone = [(sample,) for sample in held if sample not in keep]
        if gone:
            with self._transaction("removing old pictures") as connection:
                connection.executemany("DELETE FROM jpegs WHERE sample = ?", gone)

    def _trim_log(self, keep: set[int], up_to_seq: int) -> None:
        """Remove log entries that nothing needs, when there are enough of them to be worth the writing."""
        dead = sorted(seq for sample, seq in self._seq_of.items() if sample not in keep)
        surplus = len(dead) - MAX_REMEMBERED
        with guarded("reading"):
            count = self._open.execute("SELECT count(*) FROM events").fetchone()[0]
        if surplus <= MAX_REMEMBERED // 4 and count <= 2 * len(self._seq_of) + MAX_OTHER_EVENTS:
            return
        with self._transaction("removing old log entries") as connection:
            self._keep_counters(connection)
            _fill_chosen(connection, keep)
            if surplus > 0:
                connection.execute(_DELETE_OLD_TEACH, (EventKind.TEACH, dead[surplus - 1]))
            connection.execute(_DELETE_OLD_REST, (up_to_seq, *_KEPT, EventKind.RELABEL))
        with guarded("reading"):
            self._load_events()

    def _shrink(self) -> None:
        """Make the file smaller: drop the dead rows, then rewrite the rest side by side."""
        with self._transaction("making the database smaller") as connection:
            for shelf in self._shelves:
                shelf.drop_free(connection)
        for shelf in self._shelves:
            shelf.look_again()
        self._vacuum()
        self._truncate_log()

    def _vacuum(self) -> None:
        # The copy is built in memory, which spares the storage, unless kept pictures make it large.
        large = size_bytes(self.folder / DATABASE) > QUICK_CHECK_BYTES
        self._execute_outside(f"PRAGMA temp_store = {'FILE' if large else 'MEMORY'}")
        self._execute_outside("VACUUM")
        self._execute_outside("PRAGMA temp_store = MEMORY")

    def _scrub(self) -> None:
        """Rewrite the database and empty the log, so that freed space holds no old bytes."""
        # Pages freed earlier, without secure_delete, may hold copies of what is forgotten now: VACUUM writes
        # a database without free pages, and truncating the log removes the last copies.
        self._vacuum()
        self._execute_outside("PRAGMA secure_delete = OFF")
        if not self._truncate_log():
            raise StoreBusyError(
                "forgotten, but another program still reads the old log: stop it, then repeat"
            )

    def _truncate_log(self) -> bool:
        """Move the log into the table and cut it to nothing; return False when a reader is in the way."""
        with guarded("emptying the log"):
            return not self._open.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]

    def _keep_counters(self, connection: sqlite3.Connection) -> None:
        """Write down what could otherwise be read off the rows that are about to be deleted."""
        total = self._written_before + self.written_bytes()
        values = {"next_seq": self.next_seq, "next_sample": self.next_sample, "written": total}
        connection.executemany(_INSERT_META, ((k, str(v)) for k, v in values.items()))

    def _execute_outside(self, statement: str) -> None:
        with guarded("rewriting the database"):
            self._open.execute(statement)

    @contextlib.contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        if self._lock is None:
            raise RuntimeError("the store was opened read-only")
        if self._broken:
            raise StoreError(f"{self._broken} earlier: start the program again before anything else is kept")
        connection = self._open
        try:
            with guarded(doing):
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # After a failed fsync nobody knows what is on the storage; only opening anew finds out.
            if isinstance(error, StoreError) and "disk I/O error" in str(error):
                self._broken = "the storage failed"
            raise


_EVENT_COLUMNS = ", ".join(salvaging.COLUMNS["events"])
_SELECT_EVENTS = f"SELECT {_EVENT_COLUMNS} FROM events"
_INSERT_EVENT = f"INSERT INTO events({_EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_META = "INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)"
_INSERT_JPEG = "INSERT OR REPLACE INTO jpegs(sample, data, crc) VALUES (?, ?, ?)"
_DELETE_OLD_TEACH = (
    "DELETE FROM events WHERE kind = ? AND seq <= ? AND sample NOT IN (SELECT sample FROM temp.chosen)"
)
_KEPT = (EventKind.TEACH, EventKind.RENAME)
_DELETE_OLD_REST = (
    "DELETE FROM events WHERE seq <= ? AND kind NOT IN (?, ?)"
    " AND NOT (kind = ? AND sample IN (SELECT sample FROM temp.chosen))"
)


def _fill_chosen(connection: sqlite3.Connection, samples: Iterable[int]) -> None:
    """Put samples into a temporary table: a statement takes only 999 parameters in old SQLite."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS chosen(sample INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM temp.chosen")
    connection.executemany("INSERT INTO temp.chosen VALUES (?)", ((int(sample),) for sample in samples))


def _event(row: tuple[Any, ...]) -> Event:
    seq, kind, sample, label, amount, image_hash, source, _, _, session, _ = row
    return Event(seq, EventKind(kind), sample, label, amount, None, image_hash, session, source)


def _count(meta: dict[str, str], key: str) -> int:
    """Return a counter kept in `meta`; 0 when it is not there or not a number."""
    text = meta.get(key, "")
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0


def _features(events: Sequence[Event], is_first: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (sample, features) of the space in use, or of the other one."""
    for event in events:
        found = event.features if is_first else event.twin
        if found is not None:
            yield event.sample, found


def _jpeg_rows(events: Sequence[Event]) -> Iterator[tuple[int, bytes, int]]:
    for event in events:
        if event.jpeg is not None:
            yield event.sample, event.jpeg, schema.jpeg_crc(event.sample, event.jpeg)


def _name(text: str) -> str:
    """Return a name as it can be kept: valid Unicode, its end when it is too long."""
    data = text.encode("utf-8", "backslashreplace")  # a file name need not be valid Unicode
    return data[-MAX_NAME_BYTES:].decode("utf-8", "ignore")
