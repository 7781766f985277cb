"""Answers a device that comes with a code, and slows down who tries codes."""

import threading

from edge_cl.errors import ProtocolError
from edge_cl.wire.enrolment import Enrolled, read_enrol
from host_trainer.server import devices
from host_trainer.server.fleet import Fleet
from host_trainer.server.limits import Limits
from host_trainer.server.refusal import RefusedError
from host_trainer.server.rules.admission import Throttle

TOO_MANY = 429  # of RFC 6585


class Enrolment:
    """The door of a fleet."""

    def __init__(self, fleet: Fleet, limits: Limits) -> None:
        self._fleet = fleet
        self._throttle, self._lock = Throttle(limits.patience), threading.Lock()

    def answer(self, body: bytes, address: str, now: int) -> Enrolled:
        """Let a device in.

        Args:
            body: its question.
            address: where it comes from.
            now: Unix seconds.

        Raises:
            RefusedError: no question, a code that lets nobody in, or too many of those from this address.
            StoreError: the database refuses.
        """
        with self._lock:
            wait = int(self._throttle.wait_s(address, now) + 0.999)
        if wait:
            words = "too many wrong codes came from this address: wait, then try again"
            raise RefusedError("code", words, wait=wait, status=TOO_MANY)
        try:
            asked = read_enrol(body)
        except ProtocolError as error:
            raise RefusedError("malformed", str(error)) from error
        try:
            with self._fleet.database.writing() as session:
                device = devices.enrol(session, asked, now)
                told = (device.name, device.key, device.model, device.channel, device.level)
        except RefusedError:
            with self._lock:
                self._throttle.failed(address, now)
            raise
        return Enrolled(*told, self._fleet.place.trusted_root(), now)
