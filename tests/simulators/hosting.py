"""A real server of a fleet on this machine, in this process: its database, its objects, its socket.

with hosting(folder) as host:                 # plain HTTP; hosting(folder, tls=True) for TLS
    code = host.code("pi-1")                  # what `host-trainer enroll pi-1` prints
    requests to host.url ...
    host.contents.listed()                    # what the fleet knows
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_cl.wire.enrolment import Code, write_code
from host_trainer.server import devices
from host_trainer.server.certificate import Certificate, certificate_of
from host_trainer.server.contents import Contents
from host_trainer.server.devices import Terms
from host_trainer.server.fleet import Address, Fleet, open_fleet
from host_trainer.server.limits import Limits
from host_trainer.server.web.app import make_app
from host_trainer.server.web.process import listening, running, server_of

TTL_S = 3600


class Hosted:
    """A server that runs.

    Attributes:
        url: where, without a slash at its end.
        fleet: what it keeps; may be read and changed while it runs.
        certificate: of a server with TLS.
    """

    def __init__(
        self, url: str, fleet: Fleet, certificate: Certificate | None, clock: Callable[[], float]
    ) -> None:
        self.url, self.fleet, self.certificate, self._clock = url, fleet, certificate, clock
        self.contents = Contents(fleet.database, fleet.objects)

    def token(
        self,
        device: str,
        model: str = "waste",
        channel: str = "canary",
        level: str = "images",
        uses: int = 1,
        ttl_s: int = TTL_S,
    ) -> bytes:
        """Make a one-time code and return its token."""
        with self.fleet.database.writing() as session:
            terms = Terms(device, model, channel, level)
            return devices.make_code(session, terms, int(self._clock()), ttl_s, uses)

    def code(self, device: str, **terms: object) -> str:
        """Make a one-time code as a person copies it; `terms` as for `token`."""
        fingerprint = b"" if self.certificate is None else self.certificate.fingerprint
        return write_code(Code(self.token(device, **terms), fingerprint))  # type: ignore[arg-type]


@contextlib.contextmanager
def hosting(
    folder: Path,
    address: Address = Address(),  # noqa: B008 - a constant
    *,
    limits: Limits = Limits(),  # noqa: B008 - a constant
    clock: Callable[[], float] = time.time,
    tls: bool = False,
    port: int = 0,
) -> Iterator[Hosted]:
    """Serve a fleet's folder, as `host-trainer init` made it, until the block ends."""
    certificate = certificate_of(folder) if tls else None
    with open_fleet(folder, address) as fleet:
        found = listening("127.0.0.1", port)
        url = f"http{'s' if tls else ''}://127.0.0.1:{found.getsockname()[1]}"
        with running(server_of(make_app(fleet, limits, clock), limits, certificate), found):
            yield Hosted(url, fleet, certificate, clock)
