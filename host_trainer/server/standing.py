"""Keeps where each device's round stands: `wire.round.Round` as rows, so that a restart is not noticed."""

from collections.abc import Iterable
from types import MappingProxyType

from sqlalchemy.orm import Session

from edge_cl.errors import ProtocolError
from edge_cl.wire import routes
from edge_cl.wire.messages import Content, Message
from edge_cl.wire.round import Round, advance
from host_trainer.server.contents import rows_of
from host_trainer.server.refusal import RefusedError
from host_trainer.server.tables import RoundRow


def load(session: Session, device: str) -> Round:
    """Return where a device's round stands; what is received of each content is what `contents` holds."""
    row = session.get(RoundRow, device)
    if row is None:
        return Round()
    wanted, unwanted = _contents(row.contents), _contents(row.unwanted)
    rows = rows_of(session, device, [each.id for each in wanted])
    received = {name: row.received for name, row in rows.items()}
    received |= {each.id: each.size for each in unwanted}
    announced = {each.id: each for each in (*wanted, *unwanted)}
    return Round(
        row.state,
        row.number,
        MappingProxyType(announced),
        MappingProxyType(received),
        row.bundle,
    )


def save(session: Session, device: str, state: Round, unwanted: Iterable[str], now: int) -> None:
    """Keep where a device's round stands; `unwanted` are the contents that the host does not take."""
    left_out = frozenset(unwanted)
    session.merge(
        RoundRow(
            device=device,
            state=state.state,
            number=state.number,
            contents=[list(_plain(each)) for name, each in state.contents.items() if name not in left_out],
            unwanted=[list(_plain(each)) for name, each in state.contents.items() if name in left_out],
            bundle=state.bundle,
            at=now,
        )
    )


def move(session: Session, device: str, state: Round, now: int) -> None:
    """Keep what changed of a round whose contents are as they were."""
    row = session.get_one(RoundRow, device)
    row.state, row.bundle, row.at = state.state, state.bundle, now


def unwanted(session: Session, device: str) -> frozenset[str]:
    """Return the contents of a device's round that the host does not take."""
    row = session.get(RoundRow, device)
    return frozenset(each.id for each in _contents(row.unwanted)) if row else frozenset()


def advanced(state: Round, event: Message) -> Round:
    """Return the round after a message.

    Raises:
        RefusedError: it is out of its place; the answer names the round that the host is in.
    """
    try:
        return advance(state, event)
    except ProtocolError as error:
        headers = {routes.ROUND_NUMBER: str(state.number)}
        raise RefusedError("stale", str(error), headers=headers) from error


def _contents(plain: list[list[object]]) -> list[Content]:
    return [Content(*each) for each in plain]  # type: ignore[arg-type]


def _plain(content: Content) -> tuple[str, str, int]:
    return content.id, content.level, content.size
