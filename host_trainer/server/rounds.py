"""Drives the host's end of a round: one signed message in, one out, its effects on the disk before that.

Each request is one writing transaction, which locks its device, counts the request, and advances the round by
the table that the device uses, too (`wire.round`). A request that is refused leaves only its count. Objects
are written before the transaction that speaks of them and destroyed after the one that gives them up, so a
crash leaves at worst an object that nobody speaks of.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edge_cl.errors import ProtocolError
from edge_cl.wire import codec
from edge_cl.wire.messages import (
    STATISTICS,
    Acknowledgement,
    Chunk,
    Commit,
    Content,
    Greet,
    Message,
    Offer,
    Progress,
    Receipt,
    Renaming,
    Statistics,
    Status,
    Welcome,
)
from host_trainer.server import bundles, classes, contents, devices, standing
from host_trainer.server.contents import Facts
from host_trainer.server.devices import Asked
from host_trainer.server.fleet import Fleet
from host_trainer.server.limits import Limits
from host_trainer.server.refusal import RefusedError
from host_trainer.server.rules import quota
from host_trainer.server.rules.quota import Spent
from host_trainer.server.tables import (
    COMMITTED,
    QUARANTINED,
    RECEIVING,
    ContentRow,
    Device,
    Piece,
    StatusRow,
)

EXPECTED = (Greet, Chunk, Commit, Status)
NO_PARENT = "it continues statistics that the host does not have"
IN_BETWEEN = "another request of this device came in between: send this one again"

Handle = Callable[[Session, Device], Message]


class Whole(NamedTuple):
    """A content that a chunk completes; its object is kept already.

    Attributes:
        before: bytes of it that were there before the chunk.
        facts: what it says of itself; None where it is not what was announced, and `fault` says why.
    """

    before: int
    facts: Facts | None
    fault: str = ""


class Thinned(NamedTuple):
    """A content in which samples are to be destroyed: its object, and the one without them."""

    id: str
    old: str
    left: contents.Left | None


class Rounds:
    """The host's end of all devices' rounds."""

    def __init__(self, fleet: Fleet, limits: Limits) -> None:
        self._database, self._objects, self._limits = fleet.database, fleet.objects, limits

    def answer(self, asked: Asked, body: bytes, now: int) -> Message:
        """Return the answer to a message of a round.

        Args:
            asked: the request as it is signed, its body's hash included.
            body: the message.
            now: Unix seconds.

        Raises:
            RefusedError: the request is not genuine, not in its place, or more than may be.
            StoreError: database or objects refuse; nothing is changed then.
        """
        with self._database.reading() as session:
            name = devices.genuine(session, asked, now).name
        message = read_message(body)
        answer = self._counted(asked, now, self._handler(name, message, now))
        if isinstance(message, (Greet, Commit)):
            contents.destroy_doomed(self._database, self._objects)
        return answer

    def registry(self, asked: Asked, since: int, now: int) -> Message:
        """Return the edits of the label registry that a device lacks; errors as `answer`."""
        with self._database.reading() as session:
            devices.genuine(session, asked, now)
        return self._counted(asked, now, lambda session, _: Renaming(classes.lacking(session, since)))

    def _counted(self, asked: Asked, now: int, handle: Handle) -> Message:
        """Count a request, and handle it; of one that is refused only the count stays."""
        with self._database.writing() as session:
            device = devices.counted(session, asked, now)
            session.flush()
            try:
                with session.begin_nested():
                    return handle(session, device)
            except RefusedError as error:
                refused = error
        raise refused

    def _handler(self, name: str, message: Message, now: int) -> Handle:
        """Return what handles a message inside the transaction, once its objects are kept."""
        if isinstance(message, Greet):
            return partial(self._greet, message, now)
        if isinstance(message, Chunk):
            return partial(self._chunk, message, self._whole(name, message, now), now)
        if isinstance(message, Commit):
            return partial(self._commit, message, self._thinned(name, message), now)
        if isinstance(message, Status):
            return partial(self._status, message, now)
        raise RuntimeError(f"{type(message).__name__} is not among those expected")

    def _greet(self, greet: Greet, now: int, session: Session, device: Device) -> Welcome:
        _need_owner(device, greet.device)
        state = standing.advanced(standing.load(session, device.name), greet)
        is_over = frozenset(each.id for each in greet.contents if contents.is_more(each.level, device.level))
        _note_greeting(device, greet)
        wanted = [each for each in greet.contents if each.id not in is_over]
        contents.drop_unfinished(session, device.name, [each.id for each in wanted])
        held = {name: row.received for name, row in _known(session, device.name, wanted).items()}
        welcome = Welcome(
            greet.round,
            classes.newest(session),
            device.level,
            device.last,
            tuple(
                Progress(each.id, held.get(each.id, 0)) for each in wanted if held.get(each.id, 0) < each.size
            ),
            quota.left(_spent(device), now, self._limits.quota_bytes),
        )
        standing.save(session, device.name, standing.advanced(state, welcome), is_over, now)
        return welcome

    def _whole(self, name: str, chunk: Chunk, now: int) -> Whole | None:
        """Keep the object of a content that this chunk completes; None when it does not."""
        with self._database.reading() as session:
            device = session.get_one(Device, name)
            state = standing.advanced(standing.load(session, name), chunk)
            before = state.received.get(chunk.content, 0)
            fresh = _fresh(chunk, before)
            if not fresh or before + len(fresh) < chunk.size:
                return None
            self._need_quota(device, len(fresh), now)
            data = b"".join((*_pieces(session, name, chunk.content), fresh))
            level = state.contents[chunk.content].level
        try:
            facts = contents.inspect(data, chunk.content, level, name)
        except ProtocolError as error:
            return Whole(before, None, str(error))
        self._objects.put(chunk.content, data)
        return Whole(before, facts)

    def _chunk(
        self, chunk: Chunk, whole: Whole | None, now: int, session: Session, device: Device
    ) -> Message:
        state = standing.advanced(standing.load(session, device.name), chunk)
        before = state.received.get(chunk.content, 0)
        fresh = _fresh(chunk, before)
        if (whole is not None and whole.before != before) or (
            whole is None and fresh and before + len(fresh) == chunk.size
        ):
            raise RefusedError("busy", IN_BETWEEN, wait=1)
        if fresh:
            self._need_quota(device, len(fresh), now)
            row = session.get(ContentRow, (device.name, chunk.content))
            if row is None:
                row = _new_row(device.name, state.contents[chunk.content], now)
                session.add(row)
            if whole is not None and whole.facts is None:
                _drop(session, row)
                return RefusedError("malformed", whole.fault).message  # what was dropped stays so
            spent = quota.after(_spent(device), now, len(fresh))
            device.day, device.day_bytes = spent.day, spent.bytes
            _keep(session, row, fresh, whole)
        received = before + len(fresh)
        receipt = Receipt(chunk.content, received, received == chunk.size)
        standing.move(session, device.name, standing.advanced(state, receipt), now)
        return receipt

    def _need_quota(self, device: Device, count: int, now: int) -> None:
        if count > quota.left(_spent(device), now, self._limits.quota_bytes):
            words = f"a day's {self._limits.quota_bytes} bytes are used up: go on tomorrow (UTC)"
            raise RefusedError("quota", words, wait=quota.wait_s(now))

    def _thinned(self, name: str, commit: Commit) -> tuple[Thinned, ...]:
        """Keep objects without the samples that new statistics ask to destroy."""
        with self._database.reading() as session:
            rows = contents.rows_of(session, name, commit.contents)
            news = [
                row.key
                for row in rows.values()
                if row.key and row.level == STATISTICS and row.state == RECEIVING
            ]
            held = [(row.id, row.level, row.key) for row in contents.holdings(session, name) if row.key]
        samples = frozenset(number for key in news for number in self._withdrawn(key))
        found = (self._thin(*each, samples) for each in held) if samples else ()
        return tuple(each for each in found if each is not None)

    def _withdrawn(self, key: str) -> list[int]:
        message = codec.decode(self._objects.get(key), Statistics)
        return message.withdrawn.tolist() if isinstance(message, Statistics) else []

    def _thin(self, name: str, level: str, key: str, samples: frozenset[int]) -> Thinned | None:
        left = contents.without(self._objects.get(key), level, samples)
        if left is None:
            return Thinned(name, key, None)
        if left.key == key:
            return None
        self._objects.put(left.key, left.data)
        return Thinned(name, key, left)

    def _commit(
        self,
        commit: Commit,
        thinned: tuple[Thinned, ...],
        now: int,
        session: Session,
        device: Device,
    ) -> Offer:
        _need_owner(device, commit.device)
        state = standing.advanced(standing.load(session, device.name), commit)
        names = set(commit.contents) - standing.unwanted(session, device.name)
        rows = contents.rows_of(session, device.name, names)
        for row in sorted(rows.values(), key=lambda row: (row.number, row.id)):
            if row.state == RECEIVING:
                _take_in(device, row, now)
        for each in thinned:
            _replace(session, device.name, each)
        offer = bundles.offered(session, device, commit.round)
        standing.move(session, device.name, standing.advanced(state, offer), now)
        return offer

    def _status(self, status: Status, now: int, session: Session, device: Device) -> Acknowledgement:
        _need_owner(device, status.device)
        state = standing.advanced(standing.load(session, device.name), status)
        told = {
            name: getattr(status, name)
            for name in (
                *("bundle", "install", "tried", "reason"),
                *("accuracy", "samples", "suspects", "latency"),
            )
        }
        session.merge(StatusRow(device=device.name, round=status.round, at=now, **told))
        device.reported_at = now
        for name, value in told.items():
            setattr(device, name, value)
        bundles.note_trial(session, device, status, now)
        acknowledgement = Acknowledgement(status.round, self._limits.wait_s)
        standing.move(session, device.name, standing.advanced(state, acknowledgement), now)
        return acknowledgement


def read_message(body: bytes) -> Message:
    """Return the message of a request's body; RefusedError for what is none, or none that a device sends."""
    try:
        return codec.decode(body, EXPECTED)
    except ProtocolError as error:
        is_other = body[:4] == codec.MAGIC and body[4:5] not in (b"", bytes([codec.VERSION]))
        raise RefusedError("version" if is_other else "malformed", str(error)) from error


def _need_owner(device: Device, name: str) -> None:
    if name != device.name:
        raise RefusedError("malformed", f"a message of {name}, signed by {device.name}")


def _note_greeting(device: Device, greet: Greet) -> None:
    device.hardware, device.runtime, device.bundle = list(greet.hardware), greet.runtime, greet.bundle
    device.space, device.edition, device.asked = greet.space, greet.registry, greet.level


def _known(session: Session, device: str, wanted: list[Content]) -> dict[str, ContentRow]:
    """Return what is held of what is announced; RefusedError where it was whole, and is told otherwise."""
    rows = contents.rows_of(session, device, [each.id for each in wanted])
    for each in wanted:
        row = rows.get(each.id)
        if row is None or (row.size, row.level) == (each.size, each.level):
            continue
        if row.key is not None:
            raise RefusedError("malformed", "a content is announced otherwise than it came before")
        _drop(session, rows.pop(each.id))
    return rows


def _spent(device: Device) -> Spent:
    return Spent(device.day, device.day_bytes)


def _fresh(chunk: Chunk, before: int) -> bytes:
    """Return what of a chunk's bytes was not there before; its offset is not beyond that (`wire.round`)."""
    return chunk.data[before - chunk.offset :]


def _pieces(session: Session, device: str, content: str) -> list[bytes]:
    query = select(Piece.data).where(Piece.device == device, Piece.content == content)
    return list(session.scalars(query.order_by(Piece.start)))


def _new_row(device: str, content: Content, now: int) -> ContentRow:
    return ContentRow(
        device=device,
        id=content.id,
        level=content.level,
        size=content.size,
        received=0,
        state=RECEIVING,
        arrived_at=now,
    )


def _keep(session: Session, row: ContentRow, fresh: bytes, whole: Whole | None) -> None:
    """Keep the bytes that came: as one more piece, or as the last one of an object that is there already."""
    if whole is None or whole.facts is None:
        session.add(Piece(device=row.device, content=row.id, start=row.received, data=fresh))
        row.received += len(fresh)
        return
    _drop_pieces(session, row)
    row.received, row.key = row.size, row.id
    row.number, row.since, row.space, row.edition, row.samples = whole.facts


def _drop(session: Session, row: ContentRow) -> None:
    _drop_pieces(session, row)
    if row in session.new:
        session.expunge(row)
    else:
        session.delete(row)


def _drop_pieces(session: Session, row: ContentRow) -> None:
    session.execute(delete(Piece).where(Piece.device == row.device, Piece.content == row.id))


def _take_in(device: Device, row: ContentRow, now: int) -> None:
    """Commit a content; statistics that continue what is not there are set aside, and asked for anew."""
    row.committed_at = now
    if row.level == STATISTICS and row.since not in (None, device.last):
        row.state, row.reason = QUARANTINED, NO_PARENT
        return
    row.state = COMMITTED
    if row.level == STATISTICS:
        device.last = row.id


def _replace(session: Session, device: str, thinned: Thinned) -> None:
    row = session.get(ContentRow, (device, thinned.id))
    if row is None or row.key != thinned.old:
        raise RefusedError("busy", IN_BETWEEN, wait=1)
    contents.doom(session, thinned.old)
    if thinned.left is None:
        contents.emptied(row)
    else:
        row.key, row.samples = thinned.left.key, thinned.left.samples
