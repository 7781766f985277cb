"""Keeps the fleet's registry of classes: which names became which (`wire.labels`)."""

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_cl.errors import ConfigError
from edge_cl.wire import canonical
from edge_cl.wire.fields import from_plain, to_plain
from edge_cl.wire.labels import MAX_EDITS, Assigned, Edit, Edits
from host_trainer.server.tables import EditRow


def newest(session: Session) -> int:
    """Return the version of the registry; 0 before the first edit."""
    return session.scalar(select(func.max(EditRow.version))) or 0


def edits(session: Session, since: int = 0, most: int = 0) -> Edits:
    """Return the edits later than a version, in order; `most` of them, 0 for all."""
    query = select(EditRow.text).where(EditRow.version > since).order_by(EditRow.version)
    found = session.scalars(query.limit(most) if most else query)
    return tuple(from_plain(Edit, canonical.read(text.encode("utf-8"))) for text in found)


def lacking(session: Session, since: int) -> Edits:
    """Return the edits that a device lacks, as many as one answer holds."""
    return edits(session, since, MAX_EDITS)


def edit(
    session: Session, sources: Sequence[str], into: str, now: int, assigned: Iterable[Assigned] = ()
) -> Edit:
    """Let every sample of the sources be one of `into` from now on, except those assigned one by one.

    Raises:
        ConfigError: such an edit makes no sense.
    """
    try:
        made = Edit(newest(session) + 1, tuple(sources), into, tuple(assigned))
    except ValueError as error:
        raise ConfigError(f"the classes cannot be changed so ({error})") from error
    session.add(EditRow(version=made.version, text=canonical.write(to_plain(made)).decode("utf-8"), at=now))
    return made
