"""Touches `sync/sync.db`: who the host is, what it was told, what is on its way; safe against a pulled plug.

    meta       enrolment and standing
    told       statistics by number: READY to go, COMMITTING (the host may have them), TOLD, the older FOLDED;
               PAST ones are from before all was told anew
    parcels    features and pictures on their way: which samples, not their bytes
    sent       samples that the host has, by level, under which label
    edits      of the label registry, as far as this device has followed it

What was READY may be replaced by something newer: the host has used nothing that was not committed. Key and
counters lie here too, not in `learner.db`: a restored backup must neither count anew nor be a second device.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge_cl.device.sync import following, history
from edge_cl.device.sync.history import Told
from edge_cl.device.sync.parcels import Parcel
from edge_cl.errors import MismatchError, ProtocolError, StoreDamagedError
from edge_cl.memory.database import lock_folder
from edge_cl.memory.disk import guarded, sync_folder
from edge_cl.wire import canonical
from edge_cl.wire.codec import canonical as canonical_frame
from edge_cl.wire.codec import content_id, decode, encode
from edge_cl.wire.fields import from_plain, to_plain
from edge_cl.wire.labels import Edit, Edits
from edge_cl.wire.messages import FEATURES, Statistics

FOLDER, DATABASE = "sync", "sync.db"
BUTTON = "sync-now"  # a file in the state folder: whoever makes it wants a round now
APPLICATION_ID = 0x45434C53  # "ECLS" in the file header
VERSION = 1
READY, COMMITTING, TOLD, FOLDED = "ready", "committing", "told", "folded"
PAST, PAST_FOLDED = "past", "past folded"  # told before all was told anew; a bundle may still have it
CHAIN = (COMMITTING, TOLD, FOLDED)
MAX_ROWS, FOLDED_ROWS = 128, 64  # statistics kept one by one; of more, so many stay, and the older become one
TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE told(number INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL,
        data BLOB NOT NULL)""",
    """CREATE TABLE parcels(id TEXT PRIMARY KEY, size INTEGER NOT NULL, state TEXT NOT NULL,
        level TEXT NOT NULL, edition INTEGER NOT NULL, samples TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE sent(level TEXT NOT NULL, sample INTEGER NOT NULL, label TEXT NOT NULL,
        PRIMARY KEY(level, sample)) WITHOUT ROWID""",
    "CREATE TABLE edits(version INTEGER PRIMARY KEY, data BLOB NOT NULL)",
)


class Enrolment(NamedTuple):
    """Where this device belongs.

    Attributes:
        url: of the host, ending in `/`.
        fingerprint: SHA-256 of its certificate, hex; "" for a host without TLS on this machine.
        device: this one's name there.
        key: that signs its requests, hex.
        model, channel: of the bundles that it gets.
        level: the most that the host wants.
    """

    url: str
    fingerprint: str
    device: str
    key: str
    model: str
    channel: str
    level: str


class Standing(NamedTuple):
    """Where the rounds stand.

    Attributes:
        counter: of signed requests; those below are used or given up.
        round: number of the last one.
        attempt: rounds cut or refused since something came through.
        due: Unix seconds before which the host is left alone.
        floor: the latest time that the host has told.
        blocked: why it talks no more with this device; "" while it does.
        synced_at: Unix seconds of the last round that was done; 0: none.
        samples, accuracy: of the learner then; per mille, -1 for unknown.
        space: of the features that were told.
        is_anew: the host knows something of this device that the device does not: all is told anew.
    """

    counter: int = 0
    round: int = 0
    attempt: int = 0
    due: int = 0
    floor: int = 0
    blocked: str = ""
    synced_at: int = 0
    samples: int = 0
    accuracy: int = -1
    space: str = ""
    is_anew: bool = False


class Sending(NamedTuple):
    """A parcel on its way: id and size of its content, and its state."""

    id: str
    size: int
    state: str
    parcel: Parcel


@contextlib.contextmanager
def open_outbox(state: Path) -> Iterator["Outbox"]:
    """Open the outbox of a state folder for writing; made when it is not there. One process at a time.

    Raises:
        StoreBusyError: another process syncs.
        StoreDamagedError: it does not read back.
        MismatchError: made by a newer edge-cl.
    """
    folder = state / FOLDER
    lock = lock_folder(folder)
    try:
        with contextlib.closing(Outbox(folder / DATABASE)) as outbox:
            yield outbox
    finally:
        os.close(lock)


@contextlib.contextmanager
def read_outbox(state: Path) -> Iterator["Outbox | None"]:
    """Open the outbox for reading only, beside a process that syncs; None where there is none."""
    path = state / FOLDER / DATABASE
    if not path.exists():
        yield None
        return
    with contextlib.closing(Outbox(path, read_only=True)) as outbox:
        yield outbox


def take_button(state: Path) -> bool:
    """Tell whether somebody has made the file BUTTON, and remove it."""
    path = state / BUTTON
    if not path.exists():
        return False
    with guarded("removing the button"):
        path.unlink(missing_ok=True)
    return True


class Outbox:
    """An open `sync.db`; made by `open_outbox` and `read_outbox`."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        with guarded("opening the outbox"):
            if not read_only:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it holds a key
            target = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
            self._connection = sqlite3.connect(target, uri=True, isolation_level=None)
        try:
            self._prepare(path, read_only)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    # -- who and where -----------------------------------------------------------------------------------

    def enrolment(self) -> Enrolment | None:
        """Return where this device is enrolled; None: nowhere."""
        found = self._meta("enrolment")
        with self._whole():
            return None if found is None else Enrolment(**_known(json.loads(found), Enrolment._fields))

    def enrol(self, enrolment: Enrolment, time: int) -> None:
        """Keep an enrolment, and the host's time.

        Under another name everything is told anew; under the old one the host knows what it was told.
        """
        before, standing = self.enrolment(), self.standing()
        standing = standing._replace(blocked="", attempt=0, due=0, floor=max(time, standing.floor))
        with self._transaction("keeping the enrolment"):
            if before is not None and before.device != enrolment.device:
                self._forget_told()
                self._connection.execute("DELETE FROM told")
                self._connection.execute("DELETE FROM sent")
            self._put("enrolment", json.dumps(enrolment._asdict()).encode())
            self._put_standing(standing)

    def set_level(self, level: str) -> None:
        """Keep the most that the host wants, which it may change."""
        enrolment = self.enrolment()
        assert enrolment is not None
        with self._transaction("keeping the enrolment"):
            self._put("enrolment", json.dumps(enrolment._replace(level=level)._asdict()).encode())

    def nonce(self, code: str) -> bytes | None:
        """Return the nonce that was drawn for a code, named by a hash of it."""
        found = self._meta("nonce")
        name, _, value = (found or b"").partition(b" ")
        return bytes.fromhex(value.decode()) if name == code.encode() else None

    def keep_nonce(self, code: str, nonce: bytes) -> None:
        """Keep the nonce drawn for a code, before the host hears of it."""
        with self._transaction("keeping the enrolment"):
            self._put("nonce", f"{code} {nonce.hex()}".encode())

    def standing(self) -> Standing:
        """Return where the rounds stand."""
        found = self._meta("standing")
        with self._whole():
            return Standing() if found is None else Standing(**_known(json.loads(found), Standing._fields))

    def write_standing(self, standing: Standing) -> None:
        """Keep where the rounds stand."""
        with self._transaction("keeping where the sync stands"):
            self._put_standing(standing)

    # -- what is known -----------------------------------------------------------------------------------

    def told(self, until: str | None = None) -> Told | None:
        """Return what was told, or may have been; with `until` what was told up to these statistics.

        None: nothing yet, or these statistics are not told apart here any more.
        """
        found = self._told_rows(*CHAIN, *((PAST, PAST_FOLDED) if until is not None else ()))
        names = [name for name, _, _ in found]
        if until is not None and until not in names:
            return None
        found = found if until is None else found[: names.index(until) + 1]
        # What is folded stands for all before it.
        first = max((at for at, row in enumerate(found) if row[1] in (FOLDED, PAST_FOLDED)), default=None)
        with self._whole():
            start = None if first is None else history.from_bytes(found[first][2])
            rest = found if first is None else found[first + 1 :]
            rows = [(name, _statistics(data)) for name, _, data in rest]
        return history.after(start, rows, self.edits())

    def ready(self) -> str | None:
        """Return the id of the statistics that wait to go."""
        return next((name for name, state in self._states() if state == READY), None)

    def outgoing(self) -> list[tuple[str, bytes]]:
        """Return the statistics that the host did not acknowledge: ids and canonical bytes, by number."""
        query = "SELECT id, data FROM told WHERE state IN (?, ?) ORDER BY number"
        with self._whole():
            found = self._connection.execute(query, (READY, COMMITTING)).fetchall()
            return [(name, canonical_frame(_statistics(data))) for name, data in found]

    def newest(self) -> str | None:
        """Return the id of the newest statistics that the host acknowledged; None: none."""
        return next((name for name, state in reversed(self._states()) if state in (TOLD, FOLDED)), None)

    def next_number(self) -> int:
        """Return the number of the next statistics that are made, those READY apart; numbers never fall."""
        query = "SELECT coalesce(max(number), 0) FROM told WHERE state <> ?"
        with self._whole():
            kept = self._connection.execute(query, (READY,)).fetchone()[0]
            return max(int(kept), int(self._meta("number") or b"0")) + 1

    def edits(self) -> Edits:
        """Return the edits of the label registry that were followed, in order."""
        with self._whole():
            found = self._connection.execute("SELECT data FROM edits ORDER BY version").fetchall()
            return tuple(from_plain(Edit, canonical.read(data)) for (data,) in found)

    def sent(self) -> dict[str, dict[int, str]]:
        """Return the samples that the host has: {level: {number: label}}."""
        found: dict[str, dict[int, str]] = {}
        with self._whole():
            for level, sample, label in self._connection.execute("SELECT level, sample, label FROM sent"):
                found.setdefault(level, {})[sample] = label
        return found

    def sending(self) -> list[Sending]:
        """Return the parcels on their way, in the order in which they go."""
        query = "SELECT id, size, state, level, edition, samples FROM parcels ORDER BY level, samples, id"
        with self._whole():
            return [
                Sending(name, size, state, Parcel(level, edition, _samples(samples)))
                for name, size, state, level, edition, samples in self._connection.execute(query)
            ]

    # -- what happens ------------------------------------------------------------------------------------

    def replace_ready(
        self, statistics: Statistics | None, parcels: Iterable[tuple[str, int, Parcel]], standing: Standing
    ) -> None:
        """Put what goes next into the place of what is READY: statistics, and parcels by id and size."""
        with self._transaction("keeping what goes to the host"):
            self._connection.execute("DELETE FROM told WHERE state = ?", (READY,))
            self._connection.execute("DELETE FROM parcels WHERE state = ?", (READY,))
            if statistics is not None:
                row = (statistics.number, content_id(statistics), READY, encode(statistics))
                self._connection.execute("INSERT INTO told VALUES (?, ?, ?, ?)", row)
            self._connection.executemany(
                "INSERT INTO parcels VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (name, size, READY, each.level, each.edition, json.dumps(each.samples))
                    for name, size, each in parcels
                ),
            )
            self._put_standing(standing)

    def drop(self, names: Iterable[str]) -> None:
        """Give up parcels that cannot be made any more."""
        with self._transaction("keeping what goes to the host"):
            self._connection.executemany("DELETE FROM parcels WHERE id = ?", ((name,) for name in names))

    def commit(self, names: Iterable[str]) -> None:
        """Note that the host may have these contents from now on."""
        rows = [(COMMITTING, name, READY) for name in names]
        with self._transaction("keeping what goes to the host"):
            for table in ("told", "parcels"):
                self._connection.executemany(f"UPDATE {table} SET state = ? WHERE id = ? AND state = ?", rows)

    def acknowledge(self, names: Iterable[str]) -> None:
        """Note that the host has these contents, and has destroyed what they take back."""
        wanted = set(names)
        done = [each for each in self.sending() if each.id in wanted]
        with self._whole():
            spoken = [_statistics(data) for name, _, data in self._told_rows(COMMITTING) if name in wanted]
        withdrawn = [int(sample) for each in spoken for sample in each.withdrawn]
        standing = self.standing()
        if any(each.since is None for each in spoken):
            standing = standing._replace(is_anew=False)
        with self._transaction("keeping what the host has"):
            self._connection.executemany("DELETE FROM sent WHERE sample = ?", ((each,) for each in withdrawn))
            self._connection.executemany(
                "INSERT OR REPLACE INTO sent VALUES (?, ?, ?)",
                ((each.parcel.level, *pair) for each in done for pair in each.parcel.samples),
            )
            self._connection.executemany("DELETE FROM parcels WHERE id = ?", ((each.id,) for each in done))
            self._connection.executemany(
                "UPDATE told SET state = ? WHERE id = ?", ((TOLD, name) for name in wanted)
            )
            self._put_standing(standing)

    def follow(self, edit: Edit, device: str) -> None:
        """Note that an edit of the label registry was followed here; the host follows it by itself."""
        moved = {
            level: following.sent_now(samples, (edit,), device) for level, samples in self.sent().items()
        }
        with self._transaction("keeping the names of classes"):
            self._connection.execute(
                "INSERT OR REPLACE INTO edits VALUES (?, ?)", (edit.version, canonical.write(to_plain(edit)))
            )
            self._connection.executemany(
                "UPDATE sent SET label = ? WHERE level = ? AND sample = ?",
                ((label, level, sample) for level, found in moved.items() for sample, label in found.items()),
            )

    def start_anew(self, number: int = 0) -> None:
        """Forget what the host was told: it does not know it, or this device does not any more.

        Statistics are numbered above `number` from now on, and above all that had one here.
        """
        standing = self.standing()
        with self._transaction("starting anew"):
            self._forget_told(number)
            self._put_standing(standing._replace(is_anew=True))

    def enter_space(self, space: str) -> None:
        """Note that features are of another space from now on: those sent before are to be sent again."""
        standing = self.standing()
        with self._transaction("starting anew"):
            self._connection.execute("DELETE FROM parcels WHERE level = ?", (FEATURES,))
            self._connection.execute("UPDATE sent SET label = '' WHERE level = ?", (FEATURES,))
            self._put_standing(standing._replace(space=space))

    def shorten(self) -> None:
        """Make one of the oldest statistics when there are many; those before are not told apart any more."""
        names = [name for name, state in self._states() if state in (TOLD, FOLDED)]
        if len(names) <= MAX_ROWS:
            return
        folded = self.told(until=names[-FOLDED_ROWS - 1])
        assert folded is not None
        row = (folded.number, folded.id, FOLDED, history.to_bytes(folded))
        with self._transaction("shortening what was told"):
            self._connection.execute("DELETE FROM told WHERE number <= ?", (folded.number,))
            self._connection.execute("INSERT INTO told VALUES (?, ?, ?, ?)", row)

    # -- inside ------------------------------------------------------------------------------------------

    def _forget_told(self, number: int = 0) -> None:
        self._put("number", str(max(number, self.next_number())).encode())
        self._connection.execute("DELETE FROM told WHERE state = ?", (READY,))
        self._connection.execute("UPDATE told SET state = ? WHERE state = ?", (PAST_FOLDED, FOLDED))
        self._connection.execute("UPDATE told SET state = ? WHERE state <> ?", (PAST, PAST_FOLDED))
        self._connection.execute("DELETE FROM parcels")
        # Of samples the host may still hold what it had: they are sent again, and can be taken back.
        self._connection.execute("UPDATE sent SET label = ''")

    def _told_rows(self, *states: str) -> list[tuple[str, str, bytes]]:
        """Return (id, state, data) of statistics in some states, by number."""
        query = f"SELECT id, state, data FROM told WHERE state IN ({', '.join('?' * len(states))})"
        with self._whole():
            return self._connection.execute(f"{query} ORDER BY number", states).fetchall()

    def _states(self) -> list[tuple[str, str]]:
        with self._whole():
            return self._connection.execute("SELECT id, state FROM told ORDER BY number").fetchall()

    def _put_standing(self, standing: Standing) -> None:
        self._put("standing", json.dumps(standing._asdict()).encode())

    def _put(self, key: str, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _meta(self, key: str) -> bytes | None:
        with self._whole():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else bytes(row[0])

    @contextlib.contextmanager
    def _transaction(self, doing: str) -> Iterator[None]:
        try:
            with guarded(doing):
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _prepare(self, path: Path, read_only: bool) -> None:
        with self._whole():
            if not read_only:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
            owner = self._connection.execute("PRAGMA application_id").fetchone()[0]
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if owner == version == 0 and not read_only:
            self._create(path)
        elif owner == APPLICATION_ID and version > VERSION:
            raise MismatchError(f"{path} was made by a newer edge-cl: upgrade edge-cl")
        elif (owner, version) != (APPLICATION_ID, VERSION):
            raise StoreDamagedError(_damaged(path))

    def _create(self, path: Path) -> None:
        with self._transaction("making the outbox"):
            for statement in TABLES:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
        with guarded("making the outbox"):
            sync_folder(path.parent)
            sync_folder(path.parent.parent)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Say what to do about an outbox that does not read back: the host knows what it was told."""
        try:
            with guarded("reading the outbox"):
                yield
        except StoreDamagedError as error:
            raise StoreDamagedError(f"{error} (of the sync: {_ANEW})") from error
        except (ProtocolError, ValueError, TypeError, KeyError) as error:
            raise StoreDamagedError(
                f"what was told to the host does not read back ({error}): {_ANEW}"
            ) from error


_ANEW = f"remove the folder {FOLDER!r} of the state folder and enrol again"


def _damaged(path: Path) -> str:
    return f"{path} is no outbox of this edge-cl: {_ANEW}"


def _known(found: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Return what this version knows of a record that a later one may have extended."""
    return {name: value for name, value in found.items() if name in fields}


def _statistics(data: bytes) -> Statistics:
    found = decode(bytes(data), Statistics)
    assert isinstance(found, Statistics)
    return found


def _samples(text: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(sample), str(label)) for sample, label in json.loads(text))
