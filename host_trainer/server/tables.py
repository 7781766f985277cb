"""The tables of a fleet, the same on SQLite and PostgreSQL; times are Unix seconds of the host's clock."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, MetaData, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Where a device stands.
ACTIVE, REVOKED = "active", "revoked"
# Where a content stands. What was committed is there for retraining; what was taken is in some bundle.
RECEIVING, COMMITTED, TAKEN, QUARANTINED, WITHDRAWN = (
    "receiving",
    "committed",
    "taken",
    "quarantined",
    "withdrawn",  # the device had all of its samples destroyed
)
# How a device fared with a bundle.
TRYING, KEPT, FAILED = "trying", "kept", "failed"
# Where a rollout stands.
RUNNING, STOPPED = "running", "stopped"
# Where a job stands.
QUEUED, LEASED, DONE, GIVEN_UP = "queued", "leased", "done", "given up"

Seconds = BigInteger
Key = String(64)  # SHA-256, hex
Name = String(64)
Words = String(200)


class Base(DeclarativeBase):
    """What all tables share: constraints have names, so that a migration can speak of them anywhere."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Device(Base):
    """A device of the fleet.

    Attributes:
        name: given at enrolment, never to another device at the same time.
        key: 32 bytes, with which its requests are signed.
        hardware, runtime: what it said it can run, the preferred class first, and its edge-cl.
        model, channel, level: which bundles it gets, and the most that the host wants of it.
        state: ACTIVE or REVOKED.
        enrolled_at, seen_at: None before its first signed request.
        counter, window: of its requests, as `wire.signing.Window`; the window in hexadecimal.
        clock_offset: seconds by which its clock was ahead at its last request.
        space, edition, asked: features that it learns from, version of the label registry that it follows,
            the most that it tells.
        last: its newest statistics that go on from the ones before, or began anew.
        day, day_bytes: what it sent on the last day, counted in days since 1970, on which it sent something.
        reported_at, bundle, install, tried, reason, accuracy, samples, suspects, latency: its last status.
    """

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)
    hardware: Mapped[list[str]] = mapped_column(JSON)
    runtime: Mapped[str] = mapped_column(Name)
    model: Mapped[str] = mapped_column(Name)
    channel: Mapped[str] = mapped_column(Name)
    level: Mapped[str] = mapped_column(Name)
    state: Mapped[str] = mapped_column(Name, default=ACTIVE)
    enrolled_at: Mapped[int] = mapped_column(Seconds)
    seen_at: Mapped[int | None] = mapped_column(Seconds)
    counter: Mapped[int] = mapped_column(BigInteger, default=-1)
    window: Mapped[str] = mapped_column(String(16), default="0")
    clock_offset: Mapped[int] = mapped_column(BigInteger, default=0)
    space: Mapped[str] = mapped_column(String(16), default="")
    edition: Mapped[int] = mapped_column(BigInteger, default=0)
    asked: Mapped[str] = mapped_column(Name, default="")
    last: Mapped[str | None] = mapped_column(Key)
    day: Mapped[int] = mapped_column(BigInteger, default=0)
    day_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    reported_at: Mapped[int | None] = mapped_column(Seconds)
    bundle: Mapped[int] = mapped_column(BigInteger, default=0)
    install: Mapped[str] = mapped_column(Name, default="idle")
    tried: Mapped[int] = mapped_column(BigInteger, default=0)
    reason: Mapped[str] = mapped_column(Words, default="")
    accuracy: Mapped[int | None]
    samples: Mapped[int] = mapped_column(BigInteger, default=0)
    suspects: Mapped[int] = mapped_column(BigInteger, default=0)
    latency: Mapped[int] = mapped_column(BigInteger, default=0)

    __table_args__ = (Index(None, "model", "channel"),)


class Code(Base):
    """A one-time code, by the hash of its token: whoever reads the database cannot enrol with it.

    Attributes:
        device: name that the code is for; of a code for several, where their names begin.
        uses: devices that it still lets in.
        many: whether it was made for several.
    """

    __tablename__ = "codes"

    token: Mapped[str] = mapped_column(Key, primary_key=True)
    device: Mapped[str] = mapped_column(Name)
    model: Mapped[str] = mapped_column(Name)
    channel: Mapped[str] = mapped_column(Name)
    level: Mapped[str] = mapped_column(Name)
    uses: Mapped[int]
    many: Mapped[bool]
    made_at: Mapped[int] = mapped_column(Seconds)
    expires_at: Mapped[int] = mapped_column(Seconds)


class Admission(Base):
    """A device that a code let in, by the hash of its nonce: who asks again gets the same answer.

    Attributes:
        key: hash of the key that it got; once the device has another one, this admission is void.
    """

    __tablename__ = "admissions"

    token: Mapped[str] = mapped_column(Key, ForeignKey("codes.token", ondelete="CASCADE"), primary_key=True)
    nonce: Mapped[str] = mapped_column(Key, primary_key=True)
    device: Mapped[str] = mapped_column(Name)
    key: Mapped[str] = mapped_column(Key)
    at: Mapped[int] = mapped_column(Seconds)


class RoundRow(Base):
    """Where a device's round stands; `wire.round.Round` but for the bytes received, which `contents` has.

    Attributes:
        contents: announced and wanted: [[id, level, size], ...]; `unwanted` likewise, counted as if received.
    """

    __tablename__ = "rounds"

    device: Mapped[str] = mapped_column(
        Name, ForeignKey("devices.name", ondelete="CASCADE"), primary_key=True
    )
    state: Mapped[str] = mapped_column(Name)
    number: Mapped[int] = mapped_column(BigInteger)
    contents: Mapped[list[Any]] = mapped_column(JSON)
    unwanted: Mapped[list[Any]] = mapped_column(JSON)
    bundle: Mapped[int] = mapped_column(BigInteger, default=0)
    at: Mapped[int] = mapped_column(Seconds)


class ContentRow(Base):
    """A content of a device.

    Attributes:
        device, id: whose, and the SHA-256 of its canonical bytes.
        level, size: as announced.
        received: bytes held from its start; it is whole when `key` names its object.
        key: in the object store; another than `id` once samples were taken out; None: no object.
        state: RECEIVING, COMMITTED, TAKEN, QUARANTINED or WITHDRAWN; `reason` says why of the last two.
        number, since: of statistics.
        space: of statistics and features.
        edition: of the label registry that its labels follow.
        samples: in features and images.
        committed_at: when the device said that all was there.
    """

    __tablename__ = "contents"

    device: Mapped[str] = mapped_column(
        Name, ForeignKey("devices.name", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[str] = mapped_column(Key, primary_key=True)
    level: Mapped[str] = mapped_column(Name)
    size: Mapped[int]
    received: Mapped[int] = mapped_column(default=0)
    key: Mapped[str | None] = mapped_column(Key)
    state: Mapped[str] = mapped_column(Name, default=RECEIVING)
    reason: Mapped[str] = mapped_column(Words, default="")
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    since: Mapped[str | None] = mapped_column(Key)
    space: Mapped[str] = mapped_column(String(16), default="")
    edition: Mapped[int] = mapped_column(BigInteger, default=0)
    samples: Mapped[int] = mapped_column(default=0)
    arrived_at: Mapped[int] = mapped_column(Seconds)
    committed_at: Mapped[int | None] = mapped_column(Seconds)

    __table_args__ = (Index(None, "state", "committed_at"),)


class Piece(Base):
    """A chunk of a content that is not whole yet; gone when it is."""

    __tablename__ = "pieces"

    device: Mapped[str] = mapped_column(
        Name, ForeignKey("devices.name", ondelete="CASCADE"), primary_key=True
    )
    content: Mapped[str] = mapped_column(Key, primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Doomed(Base):
    """An object to destroy: noted in the transaction that gives it up, so that no crash spares it."""

    __tablename__ = "doomed"

    key: Mapped[str] = mapped_column(Key, primary_key=True)


class StatusRow(Base):
    """What a device said of itself at the end of a round; see `wire.messages.Status`."""

    __tablename__ = "statuses"

    device: Mapped[str] = mapped_column(
        Name, ForeignKey("devices.name", ondelete="CASCADE"), primary_key=True
    )
    round: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[int] = mapped_column(Seconds)
    bundle: Mapped[int] = mapped_column(BigInteger)
    install: Mapped[str] = mapped_column(Name)
    tried: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Words)
    accuracy: Mapped[int | None]
    samples: Mapped[int] = mapped_column(BigInteger)
    suspects: Mapped[int] = mapped_column(BigInteger)
    latency: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(None, "at"),)


class Trial(Base):
    """How a device fared with a bundle: TRYING, KEPT or FAILED, and why it failed."""

    __tablename__ = "trials"

    device: Mapped[str] = mapped_column(
        Name, ForeignKey("devices.name", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(Name, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    outcome: Mapped[str] = mapped_column(Name)
    reason: Mapped[str] = mapped_column(Words, default="")
    at: Mapped[int] = mapped_column(Seconds)

    __table_args__ = (Index(None, "model", "number", "outcome"),)


class EditRow(Base):
    """An edit of the label registry, as the canonical JSON of `wire.labels.Edit`."""

    __tablename__ = "edits"

    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[int] = mapped_column(Seconds)


class BundleRow(Base):
    """A bundle that a channel of the signed repository lists.

    Attributes:
        path: its target, `<model>/<channel>/<name>`; the same bundle has one row in each channel.
        number: of the bundle; rows for several kinds of hardware may share it.
        manifest, file, size: hashes of its manifest and of its file, and the file's bytes.
        hardware, runtime_from, runtime_below: what can run it.
        parent, run: the bundle whose parts it leaves out (0: none), and the training that made it.
        labels: in the head's order.
        space: of its features.
        published_at: when the host first saw it listed.
        withdrawn: not offered any more; `reason` says why.
    """

    __tablename__ = "bundles"

    path: Mapped[str] = mapped_column(String(200), primary_key=True)
    model: Mapped[str] = mapped_column(Name)
    channel: Mapped[str] = mapped_column(Name)
    number: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[str] = mapped_column(Key)
    file: Mapped[str] = mapped_column(Key)
    size: Mapped[int] = mapped_column(BigInteger)
    hardware: Mapped[list[str]] = mapped_column(JSON)
    runtime_from: Mapped[str] = mapped_column(Name)
    runtime_below: Mapped[str] = mapped_column(Name)
    parent: Mapped[int] = mapped_column(BigInteger)
    run: Mapped[str] = mapped_column(Name)
    labels: Mapped[list[str]] = mapped_column(JSON)
    space: Mapped[str] = mapped_column(String(16))
    published_at: Mapped[int] = mapped_column(Seconds)
    withdrawn: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Words, default="")

    __table_args__ = (Index(None, "model", "channel", "number"),)


class Knowledge(Base):
    """The newest statistics of a device that a bundle's head contains."""

    __tablename__ = "knowledge"

    model: Mapped[str] = mapped_column(Name, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    device: Mapped[str] = mapped_column(Name, primary_key=True)
    content: Mapped[str] = mapped_column(Key)


class RolloutRow(Base):
    """How far a bundle is rolled out in a channel; see `rules.rollout.Rollout`."""

    __tablename__ = "rollouts"

    model: Mapped[str] = mapped_column(Name, primary_key=True)
    channel: Mapped[str] = mapped_column(Name, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    share: Mapped[int]
    steps: Mapped[list[int]] = mapped_column(JSON)
    success: Mapped[int]
    error: Mapped[int]
    state: Mapped[str] = mapped_column(Name, default=RUNNING)
    reason: Mapped[str] = mapped_column(Words, default="")
    at: Mapped[int] = mapped_column(Seconds)


class JobRow(Base):
    """A job for a worker, leased for a while: who dies loses the lease, and another takes the job up.

    Attributes:
        kind, subject: what to do, and with what, such as a model; one open job of each pair at most.
        payload, result: JSON objects of the kind's own.
        state: QUEUED, LEASED, DONE or GIVEN_UP.
        attempts, most: how often it was begun, and may be.
        worker, lease_until, beat_at: who has it, until when, and when it was last heard of.
        due_at: not before.
        words: why the last attempt failed.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Name)
    subject: Mapped[str] = mapped_column(Name)
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(Name, default=QUEUED)
    attempts: Mapped[int] = mapped_column(default=0)
    most: Mapped[int]
    worker: Mapped[str] = mapped_column(String(200), default="")
    lease_until: Mapped[int] = mapped_column(Seconds, default=0)
    beat_at: Mapped[int | None] = mapped_column(Seconds)
    due_at: Mapped[int] = mapped_column(Seconds)
    made_at: Mapped[int] = mapped_column(Seconds)
    ended_at: Mapped[int | None] = mapped_column(Seconds)
    words: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = (
        Index(None, "state", "due_at"),
        Index(
            "ix_jobs_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text(f"state IN ('{QUEUED}', '{LEASED}')"),
            postgresql_where=text(f"state IN ('{QUEUED}', '{LEASED}')"),
        ),
    )
