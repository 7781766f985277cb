"""Reads what there is to know about a fleet at one moment, for people, for programs, and for monitoring."""

from typing import NamedTuple

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from host_trainer.server import bundles, classes
from host_trainer.server.rules.quota import DAY_S
from host_trainer.server.tables import (
    ACTIVE,
    FAILED,
    QUARANTINED,
    BundleRow,
    ContentRow,
    Device,
    JobRow,
    RolloutRow,
    Trial,
)

LAST_JOBS = 10
LAST_BUNDLES = 20


class Seen(NamedTuple):
    """A device as it was last seen; see `tables.Device`."""

    name: str
    state: str
    model: str
    channel: str
    level: str
    runtime: str
    hardware: tuple[str, ...]
    seen_at: int | None
    clock_offset: int
    bundle: int
    install: str
    tried: int
    reason: str
    accuracy: int | None
    samples: int
    suspects: int
    latency: int


class Rolled(NamedTuple):
    """A rollout: how far it is, and how its group fares. Shares are whole per mille."""

    model: str
    channel: str
    number: int
    share: int
    steps: tuple[int, ...]
    group: int
    kept: int
    failed: int
    reason: str


class Release(NamedTuple):
    """A bundle in a channel, how many devices run it, and how many rolled it back."""

    model: str
    channel: str
    number: int
    published_at: int
    classes: int
    withdrawn: bool
    reason: str
    running: int
    failed: int


class Kept(NamedTuple):
    """Contents of one level and state: how many, and how many bytes."""

    level: str
    state: str
    number: int
    bytes: int


class Work(NamedTuple):
    """A job of the queue; see `tables.JobRow`."""

    id: int
    kind: str
    subject: str
    state: str
    attempts: int
    worker: str
    made_at: int
    ended_at: int | None
    words: str


class Count(NamedTuple):
    """The fleet in a few numbers.

    Attributes:
        active, revoked: devices.
        recent: of the active ones, seen within a day.
        accuracy: mean of the active ones' running accuracy, per mille; None before there is one.
        samples, suspects: of the active ones, together.
        rolled_back: active devices whose last word was that they rolled a bundle back.
        registry: version of the label registry.
    """

    active: int
    revoked: int
    recent: int
    accuracy: int | None
    samples: int
    suspects: int
    rolled_back: int
    registry: int


def count(session: Session, now: int) -> Count:
    """Return the fleet in a few numbers."""
    is_active = Device.state == ACTIVE
    row = session.execute(
        select(
            func.count(case((is_active, 1))),
            func.count(case((~is_active, 1))),
            func.count(case((is_active & (Device.seen_at > now - DAY_S), 1))),
            func.avg(case((is_active, Device.accuracy))),
            func.sum(case((is_active, Device.samples))),
            func.sum(case((is_active, Device.suspects))),
            func.count(case((is_active & (Device.install == bundles.ROLLED_BACK), 1))),
        )
    ).one()
    active, revoked, recent, accuracy, samples, suspects, rolled_back = row
    return Count(
        active,
        revoked,
        recent,
        None if accuracy is None else round(float(accuracy)),
        int(samples or 0),
        int(suspects or 0),
        rolled_back,
        classes.newest(session),
    )


def devices(session: Session, first: int = 0, most: int = 0) -> list[Seen]:
    """Return the devices by name, from the `first` on; `most` of them, 0 for all."""
    query = select(Device).order_by(Device.name).offset(first)
    found = session.scalars(query.limit(most) if most else query)
    return [
        Seen(**{name: getattr(row, name) for name in Seen._fields})._replace(hardware=tuple(row.hardware))
        for row in found
    ]


def rollouts(session: Session, now: int) -> list[Rolled]:
    """Return the rollouts, the newest first."""
    found = []
    for row in session.scalars(select(RolloutRow).order_by(RolloutRow.at.desc(), RolloutRow.number.desc())):
        rollout = bundles.rollouts(session, row.model, row.channel)[row.number]
        tally = bundles.tally(session, row.model, row.channel, row.number, rollout, now)
        found.append(
            Rolled(row.model, row.channel, row.number, rollout.share, rollout.steps, *tally, rollout.reason)
        )
    return found


def releases(session: Session, most: int = LAST_BUNDLES) -> list[Release]:
    """Return the newest bundles of all channels, the newest first; kinds for several boards count once."""
    running = _counted(
        session, select(Device.model, Device.bundle, func.count()).where(Device.state == ACTIVE)
    )
    failed = _counted(session, select(Trial.model, Trial.number, func.count()).where(Trial.outcome == FAILED))
    rows: dict[tuple[str, str, int], BundleRow] = {}
    for row in session.scalars(
        select(BundleRow).order_by(BundleRow.published_at.desc(), BundleRow.number.desc())
    ):
        rows.setdefault((row.model, row.channel, row.number), row)
    return [
        Release(
            row.model,
            row.channel,
            row.number,
            row.published_at,
            len(row.labels),
            row.withdrawn,
            row.reason,
            running.get((row.model, row.number), 0),
            failed.get((row.model, row.number), 0),
        )
        for row in list(rows.values())[:most]
    ]


def _counted(session: Session, query: Select[str, int, int]) -> dict[tuple[str, int], int]:
    columns = list(query.selected_columns)[:2]
    return {(model, number): found for model, number, found in session.execute(query.group_by(*columns))}


def labels(session: Session) -> dict[str, list[str]]:
    """Return {model: classes of its newest bundle}."""
    query = select(BundleRow.model, BundleRow.labels).where(~BundleRow.withdrawn).order_by(BundleRow.number)
    return {model: list(names) for model, names in session.execute(query)}


def contents(session: Session) -> list[Kept]:
    """Return what is held, by level and state."""
    query = (
        select(ContentRow.level, ContentRow.state, func.count(), func.sum(ContentRow.size))
        .group_by(ContentRow.level, ContentRow.state)
        .order_by(ContentRow.level, ContentRow.state)
    )
    return [Kept(level, state, found, int(size or 0)) for level, state, found, size in session.execute(query)]


def quarantined(session: Session) -> list[tuple[str, str, int]]:
    """Return (device, reason, contents) of what was set aside."""
    query = (
        select(ContentRow.device, ContentRow.reason, func.count())
        .where(ContentRow.state == QUARANTINED)
        .group_by(ContentRow.device, ContentRow.reason)
        .order_by(ContentRow.device)
    )
    return [(device, reason, found) for device, reason, found in session.execute(query)]


def jobs(session: Session, most: int = LAST_JOBS) -> list[Work]:
    """Return the last jobs, the newest first."""
    found = session.scalars(select(JobRow).order_by(JobRow.id.desc()).limit(most))
    return [Work(*(getattr(row, name) for name in Work._fields)) for row in found]
