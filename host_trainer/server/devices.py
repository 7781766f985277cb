"""Keeps the devices of a fleet: lets them in by a code, knows them by their signature, and shuts them out."""

import hashlib
import os
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edge_cl.errors import ConfigError, ProtocolError
from edge_cl.wire import routes, signing
from edge_cl.wire.enrolment import TOKEN_BYTES, Enrol
from edge_cl.wire.signing import KEY_BYTES, Signature, Window
from host_trainer.server.contents import USABLE
from host_trainer.server.refusal import RefusedError
from host_trainer.server.rules.admission import check_name, free_name
from host_trainer.server.tables import (
    ACTIVE,
    QUARANTINED,
    REVOKED,
    Admission,
    Code,
    ContentRow,
    Device,
    Piece,
    RoundRow,
)

NOBODY = bytes(KEY_BYTES)  # a key to compare with where there is no device, so that this takes as long
NO_CODE = "this code lets nobody in, it is used up or too old: make a new one with `host-trainer enroll`"
NO_DEVICE = "no device of this name has this key: enrol it again with a new code"
NO_MORE = "this device was revoked: it goes on by itself, and may be enrolled again"


class Terms(NamedTuple):
    """What a code gives to the device that comes with it."""

    device: str
    model: str
    channel: str
    level: str


class Asked(NamedTuple):
    """A request as far as it is signed: what it says of itself, its method, target, and its body's hash."""

    said: Signature
    method: str
    target: str
    body: str


def make_code(session: Session, terms: Terms, now: int, ttl_s: int, uses: int = 1) -> bytes:
    """Return the token of a new code, which only its hash is kept of.

    Raises:
        ConfigError: the device's name cannot be.
    """
    check_name(terms.device)
    token = os.urandom(TOKEN_BYTES)
    session.add(
        Code(
            token=_hashed(token),
            device=terms.device,
            model=terms.model,
            channel=terms.channel,
            level=terms.level,
            uses=uses,
            many=uses > 1,
            made_at=now,
            expires_at=now + ttl_s,
        )
    )
    return token


def enrol(session: Session, asked: Enrol, now: int) -> Device:
    """Let a device in, once; who asks again with the same nonce gets the same answer.

    A code for one device gives it the name that the code was made for: a device of that name that was there
    before is the same one, set up anew, and its old key ends here.

    Raises:
        RefusedError: the code lets nobody in, or the device was revoked since.
    """
    code = session.get(Code, _hashed(asked.token), with_for_update=True)
    if code is None or code.expires_at <= now:
        raise RefusedError("code", NO_CODE)
    before = session.get(Admission, (code.token, _hashed(asked.nonce)))
    if before is not None:
        return _admitted(session, before)
    if code.uses < 1:
        raise RefusedError("code", NO_CODE)
    code.uses -= 1
    device = _let_in(session, _name(session, code, asked.device), code, asked, now)
    session.add(
        Admission(
            token=code.token, nonce=_hashed(asked.nonce), device=device.name, key=_hashed(device.key), at=now
        )
    )
    session.flush()
    return device


def _admitted(session: Session, before: Admission) -> Device:
    device = session.get(Device, before.device)
    if device is None or _hashed(device.key) != before.key:  # set up anew with another code since
        raise RefusedError("code", NO_CODE)
    if device.state == REVOKED:
        raise RefusedError("revoked", NO_MORE)
    return device


def _name(session: Session, code: Code, wanted: str) -> str:
    if not code.many:
        return code.device
    return free_name(wanted or code.device, lambda name: session.get(Device, name) is not None)


def _let_in(session: Session, name: str, code: Code, asked: Enrol, now: int) -> Device:
    device = session.get(Device, name, with_for_update=True)
    if device is None:
        device = Device(name=name)
        session.add(device)
    else:  # its rounds and requests are counted anew
        for table in (RoundRow, Piece):
            for row in session.scalars(select(table).where(table.device == name)):
                session.delete(row)
    device.key, device.state, device.enrolled_at = os.urandom(KEY_BYTES), ACTIVE, now
    device.counter, device.window = Window().highest, "0"
    device.hardware, device.runtime = list(asked.hardware), asked.runtime
    device.model, device.channel, device.level = code.model, code.channel, code.level
    return device


def genuine(session: Session, asked: Asked, now: int) -> Device:
    """Return the device that signed a request.

    Raises:
        RefusedError: nobody of the fleet signed this, the device was revoked, or its clock is wrong.
    """
    device = session.get(Device, asked.said.device)
    key = NOBODY if device is None else device.key
    is_signed = signing.is_genuine(key, asked.said, asked.method, asked.target, asked.body)
    if device is None or not is_signed:
        raise RefusedError("unknown-device", NO_DEVICE)
    if device.state != ACTIVE:
        raise RefusedError("revoked", NO_MORE)
    if not signing.is_timely(asked.said, now):
        offset = asked.said.time - now
        raise RefusedError(
            "stale", f"the device's clock is {abs(offset)} s {'ahead' if offset > 0 else 'behind'}: set it"
        )
    return device


def counted(session: Session, asked: Asked, now: int) -> Device:
    """Return the device of a genuine request once more, locked, with the request counted.

    Raises:
        RefusedError: the request came before; or the device was revoked, or got another key, just now.
    """
    device = session.get(Device, asked.said.device, with_for_update=True)
    if device is None or device.state != ACTIVE:
        raise RefusedError("revoked", NO_MORE)
    if not signing.is_genuine(device.key, asked.said, asked.method, asked.target, asked.body):
        raise RefusedError("unknown-device", NO_DEVICE)
    try:
        window = signing.counted(Window(device.counter, int(device.window, 16)), asked.said.counter)
    except ProtocolError as error:
        highest = {routes.COUNTER: str(device.counter)}
        raise RefusedError("stale", str(error), headers=highest) from error
    device.counter, device.window = window.highest, f"{window.seen:x}"
    device.seen_at, device.clock_offset = now, asked.said.time - now
    return device


def revoke(session: Session, name: str, discard: bool = False) -> Device:
    """Shut a device out, from its next request on.

    Args:
        session: of a writing transaction.
        name: of the device.
        discard: also set aside what it sent, so that nobody learns from it any more.

    Raises:
        ConfigError: there is no such device.
    """
    device = session.get(Device, name, with_for_update=True)
    if device is None:
        raise ConfigError(f"there is no device {name}: `host-trainer fleet` lists them")
    device.state = REVOKED
    if discard:
        session.execute(
            update(ContentRow)
            .where(ContentRow.device == name, ContentRow.state.in_(USABLE))
            .values(state=QUARANTINED, reason="the device was revoked")
        )
        device.last = None
    return device


def _hashed(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
