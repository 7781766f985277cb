"""Keeps what devices sent: in pieces while it comes, whole in the store of objects, listed for retraining.

A content is of one device: two may send the same bytes and neither learns of the other. Its name is the hash
of what the device sent; its object is another one as soon as the device had samples in it destroyed.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from edge_cl.errors import ProtocolError, StoreDamagedError
from edge_cl.wire import codec
from edge_cl.wire.messages import (
    CONTENTS,
    FEATURES,
    IMAGES,
    LEVELS,
    STATISTICS,
    Features,
    Images,
    Message,
    Statistics,
)
from host_trainer.server.database import Database
from host_trainer.server.objects.store import ObjectStore
from host_trainer.server.tables import (
    COMMITTED,
    QUARANTINED,
    RECEIVING,
    TAKEN,
    WITHDRAWN,
    ContentRow,
    Device,
    Doomed,
    Piece,
)

USABLE = (COMMITTED, TAKEN)
ORPHAN_S = 86_400  # an object is written moments before its row; one without a row for a day gets none


class Held(NamedTuple):
    """A whole content; see `tables.ContentRow`."""

    device: str
    id: str
    level: str
    key: str
    state: str
    number: int
    since: str | None
    space: str
    edition: int
    samples: int
    committed_at: int


class Facts(NamedTuple):
    """What a content says of itself."""

    number: int = 0
    since: str | None = None
    space: str = ""
    edition: int = 0
    samples: int = 0


class Left(NamedTuple):
    """What is left of a content: the key of its bytes, the bytes, and how many samples."""

    key: str
    data: bytes
    samples: int


class Contents:
    """What the devices of a fleet sent, for who learns from it."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database, self._objects = database, objects

    def listed(self, model: str = "", states: Sequence[str] = USABLE) -> list[Held]:
        """Return what is committed, oldest first; of one model's devices, or of all."""
        query = select(ContentRow).where(ContentRow.state.in_(states), ContentRow.key.is_not(None))
        if model:
            query = query.join(Device).where(Device.model == model)
        order = (ContentRow.committed_at, ContentRow.device, ContentRow.number, ContentRow.id)
        with self._database.reading() as session:
            return [_held(row) for row in session.scalars(query.order_by(*order))]

    def told(self, device: str) -> list[Held]:
        """Return the statistics of a device whose sum is all that it tells, in their order.

        From the last one that began anew to the newest; none where one between was set aside, until the
        device has begun anew.
        """
        with self._database.reading() as session:
            owner = session.get(Device, device)
            found: list[Held] = []
            name = owner.last if owner else None
            while name is not None:
                row = session.get(ContentRow, (device, name))
                if row is None or row.key is None or row.state not in USABLE:
                    break
                found.append(_held(row))
                name = row.since
        return found[::-1] if name is None else []

    def read(self, held: Held) -> bytes:
        """Return a content's canonical bytes; StoreDamagedError when they are gone or changed."""
        return self._objects.get(held.key)

    def message(self, held: Held) -> Message:
        """Return a content, decoded; StoreDamagedError when it does not read."""
        try:
            return codec.decode(self.read(held), CONTENTS[held.level])
        except ProtocolError as error:
            raise StoreDamagedError(f"content {held.id} of {held.device} does not read ({error})") from error

    def take(self, contents: Iterable[Held]) -> None:
        """Note that some bundle has learned from these."""
        self._mark(contents, TAKEN, "")

    def quarantine(self, contents: Iterable[Held], reason: str) -> None:
        """Set contents aside, so that nobody learns from them; they stay for a person to look at.

        A device whose statistics are set aside begins anew at its next round: what goes on from them means
        nothing without them.
        """
        self._mark(contents, QUARANTINED, reason[:200])

    def _mark(self, contents: Iterable[Held], state: str, reason: str) -> None:
        with self._database.writing() as session:
            for each in contents:
                where = (ContentRow.device == each.device, ContentRow.id == each.id)
                session.execute(
                    update(ContentRow)
                    .where(*where, ContentRow.state.in_((*USABLE, QUARANTINED)))
                    .values(state=state, reason=reason)
                )
                if state == QUARANTINED and each.level == STATISTICS:
                    session.execute(update(Device).where(Device.name == each.device).values(last=None))


def _held(row: ContentRow) -> Held:
    return Held(
        row.device,
        row.id,
        row.level,
        row.key or "",
        row.state,
        row.number,
        row.since,
        row.space,
        row.edition,
        row.samples,
        row.committed_at or 0,
    )


def inspect(data: bytes, name: str, level: str, device: str) -> Facts:
    """Return what a whole content says of itself.

    Raises:
        ProtocolError: it is not what was announced, or another device's.
    """
    if hashlib.sha256(data).hexdigest() != name:
        raise ProtocolError("the content is not what its name says: send it again")
    found = codec.decode(data, CONTENTS[level])
    if codec.canonical(found) != data:
        raise ProtocolError("the content is not in its one form")
    if getattr(found, "device", None) != device:
        raise ProtocolError("the content is another device's")
    if isinstance(found, Statistics):
        return Facts(found.number, found.since, found.space, found.registry)
    if isinstance(found, Features):
        return Facts(0, None, found.space, found.registry, len(found.samples))
    if isinstance(found, Images):
        return Facts(0, None, "", found.registry, len(found.samples))
    raise ValueError(f"{level} is no level")


def without(data: bytes, level: str, samples: frozenset[int]) -> Left | None:
    """Return what is left of features or images without some samples; None when no sample is left."""
    found = codec.decode(data, CONTENTS[level])
    if not isinstance(found, (Features, Images)):
        raise ValueError(f"{level} are not made of samples")
    kept = np.array([number not in samples for number in found.samples.tolist()], bool)
    if not kept.any():
        return None
    changed = {**vars(found), "samples": found.samples[kept], "numbers": found.numbers[kept]}
    if isinstance(found, Features):
        changed["features"] = found.features[kept]
    else:
        files = [each for each, keep in zip(found.files(), kept, strict=True) if keep]
        changed["sizes"] = found.sizes[kept]
        changed["pictures"] = np.frombuffer(b"".join(files), np.uint8)
    thinned = codec.canonical(type(found)(**changed))
    return Left(hashlib.sha256(thinned).hexdigest(), thinned, int(kept.sum()))


def rows_of(session: Session, device: str, names: Iterable[str]) -> dict[str, ContentRow]:
    """Return the rows of a device's contents, by name; those that are not there yet are left out."""
    query = select(ContentRow).where(ContentRow.device == device, ContentRow.id.in_(tuple(names)))
    return {row.id: row for row in session.scalars(query)}


def drop_unfinished(session: Session, device: str, kept: Iterable[str]) -> None:
    """Remove what a device began to send and announces no more."""
    other = ContentRow.id.not_in(tuple(kept))
    where = (ContentRow.device == device, ContentRow.state == RECEIVING, other)
    names = select(ContentRow.id).where(*where)
    session.execute(delete(Piece).where(Piece.device == device, Piece.content.in_(names)))
    for row in session.scalars(select(ContentRow).where(*where)):
        if row.key is not None:
            doom(session, row.key)
        session.delete(row)


def doom(session: Session, key: str) -> None:
    """Note that an object is to be destroyed."""
    session.merge(Doomed(key=key))


def destroy_doomed(database: Database, objects: ObjectStore) -> int:
    """Destroy what was given up and return how many objects that were; interrupted, the next call ends it."""
    with database.reading() as session:
        keys = list(session.scalars(select(Doomed.key)))
    for key in keys:
        with database.reading() as session:
            is_used = session.scalars(select(ContentRow.id).where(ContentRow.key == key)).first()
        if is_used is None:
            objects.remove(key)
        with database.writing() as session:
            session.execute(delete(Doomed).where(Doomed.key == key))
    return len(keys)


def sweep(database: Database, objects: ObjectStore, now: int) -> int:
    """Destroy objects that no row speaks of, as a crash between both leaves them; return how many."""
    with database.reading() as session:
        used = set(session.scalars(select(ContentRow.key).where(ContentRow.key.is_not(None))))
    return objects.sweep(frozenset(key for key in used if key), now - ORPHAN_S)


def holdings(session: Session, device: str) -> list[ContentRow]:
    """Return what is held of a device that is made of samples: features and images that have an object."""
    query = select(ContentRow).where(
        ContentRow.device == device,
        ContentRow.level.in_((FEATURES, IMAGES)),
        ContentRow.key.is_not(None),
    )
    return list(session.scalars(query))


def is_more(level: str, than: str) -> bool:
    """Tell whether a level tells more than another."""
    return LEVELS.index(level) > LEVELS.index(than)


def emptied(row: ContentRow) -> None:
    """Note that a content has no samples left."""
    row.key, row.samples, row.state, row.reason = None, 0, WITHDRAWN, "the device had it destroyed"
