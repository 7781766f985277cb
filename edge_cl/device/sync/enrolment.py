"""Lets a state folder into a fleet: one question with a one-time code, one answer, kept in one step.

The nonce of the question is kept before it is asked: when the answer is lost, asking again with the same code
brings the same answer, and the code is not used up for nothing.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from edge_cl.device.releases import client
from edge_cl.device.sync.line import MAX_ANSWER_BYTES, OK, RUNTIME
from edge_cl.device.sync.outbox import Enrolment, Outbox, open_outbox
from edge_cl.device.transport import Answer, Question, Transport, checked_url
from edge_cl.errors import ConfigError, ProtocolError, TransportError
from edge_cl.wire import canonical, enrolment, routes
from edge_cl.wire.enrolment import Code, Enrol, Enrolled
from edge_cl.wire.fields import NAME, from_plain
from edge_cl.wire.messages import Refusal


def enrol(
    state: Path,
    url: str,
    code: str,
    hardware: tuple[str, ...],
    name: str = "",
    transport: Callable[[bytes], Transport] = lambda pin: Transport(fingerprint=pin),
) -> Enrolment:
    """Enrol a state folder with a host, or let it in again; return what was agreed.

    Args:
        state: the state folder.
        url: of the host.
        code: as the person typed it.
        hardware: classes of bundles that this board can run, the best first.
        name: that the device would like; "" leaves it to the host.
        transport: makes the network, given the fingerprint of the host's certificate.

    Raises:
        ConfigError: an address or code that cannot be, a code that lets nobody in, or another host than this
            folder is enrolled with.
        TransportError: no answer, or not the host that the code is of.
        StoreError: the storage refuses; asking again with the same code goes on.
    """
    address, read = checked(url, code, name)
    with open_outbox(state) as outbox:
        before = outbox.enrolment()
        if before is not None and before.fingerprint != read.fingerprint.hex():
            raise ConfigError(
                f"{state} is enrolled with another host ({before.url}): to leave it, remove its folders"
                " `sync` and `tuf`, then enrol again"
            )
        answer = _asked(outbox, transport(read.fingerprint), address, read, hardware, name)
        found = Enrolment(
            address,
            read.fingerprint.hex(),
            answer.device,
            answer.key.hex(),
            answer.model,
            answer.channel,
            answer.level,
        )
        client.enrol(state, answer.root)
        outbox.enrol(found, answer.time)
    return found


def checked(url: str, code: str, name: str) -> tuple[str, Code]:
    """Return the host's address and the code, as far as they can be checked without asking.

    Raises:
        ConfigError: one of them, or the name, cannot be, or they do not go together.
    """
    place = checked_url(url)
    try:
        read = enrolment.read_code(code)
    except ProtocolError as error:
        raise ConfigError(f"this is not a code of a host: {error}") from error
    if (place.scheme == "https") != bool(read.fingerprint):
        kind = "with TLS: give its https address" if read.fingerprint else "without TLS, on this machine"
        raise ConfigError(f"{url} does not go with this code, which is of a host {kind}")
    if name and not re.fullmatch(NAME, name, re.ASCII):
        raise ConfigError(f"{name!r} cannot be a device's name: use up to 64 of a-z, 0-9, `.`, `_` and `-`")
    return str(place._replace(path=None, query=None, fragment=None)), read


def _asked(
    outbox: Outbox, network: Transport, address: str, code: Code, hardware: tuple[str, ...], name: str
) -> Enrolled:
    known_as = hashlib.sha256(code.token).hexdigest()
    nonce = outbox.nonce(known_as)
    if nonce is None:
        nonce = secrets.token_bytes(enrolment.NONCE_BYTES)
        outbox.keep_nonce(known_as, nonce)
    body = enrolment.write(Enrol(code.token, nonce, name, hardware, RUNTIME))
    with network.talk(address) as talk:
        headers = {"Content-Type": routes.JSON}
        answer = talk.ask(Question("POST", routes.ENROLMENT, body, headers), MAX_ANSWER_BYTES)
    if answer.status == OK:
        return enrolment.read_enrolled(answer.body)
    raise _refused(answer)


def _refused(answer: Answer) -> ConfigError | TransportError:
    try:
        refusal = from_plain(Refusal, canonical.read(answer.body))
    except ProtocolError:
        return TransportError(
            f"the host answers with status {answer.status}, and not as a host does: look at its address"
        )
    if refusal.reason in ("code", "version", "malformed") and not refusal.wait:
        return ConfigError(f"the host does not let this device in: {refusal.words or refusal.reason}")
    wait = f" ({refusal.wait} s)" if refusal.wait else ""
    return TransportError(f"the host does not let this device in for now: {refusal.words}{wait}")
