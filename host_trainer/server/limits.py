"""What the server lets a peer do at most, and how long it waits for it."""

from dataclasses import dataclass, field

from host_trainer.server.rules.admission import Patience
from host_trainer.server.rules.retraining import Policy


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        quota_bytes: of contents, a device and day; pictures of a busy day are about 30 MB.
        wait_s: between two rounds of a device.
        busy_s: that a device is asked to wait when the host has no time.
        head_s: for a request's head; slowness is an attack that a signature does not stop.
        idle_s: between two requests of a connection.
        body_s: for its body, at most a chunk; a link of 6 kB/s is fast enough.
        slots: requests that are read and answered at once; the others wait.
        slot_s: that a request waits for a slot.
        connections: open at once.
        threads: that ask the database at once.
        patience: with wrong codes.
        status_days: that what devices said of themselves is kept.
        policy: when to train by itself.
    """

    quota_bytes: int = 256 << 20
    wait_s: int = 3600
    busy_s: int = 30
    head_s: float = 20.0
    idle_s: int = 15
    body_s: float = 60.0
    slots: int = 256
    slot_s: float = 30.0
    connections: int = 4096
    threads: int = 12
    patience: Patience = field(default_factory=Patience)
    status_days: int = 90
    policy: Policy = field(default_factory=Policy)
