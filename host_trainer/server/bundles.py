"""Keeps which bundles there are, how far each is rolled out, and what each device made of them.

What exists is said by the signed repository, who gets it by these tables: they can hold a bundle back, or
    name one of those that are signed, and nothing else.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from tuf.api.metadata import TargetFile

from edge_cl.errors import EdgeError, ReleaseError
from edge_cl.wire import bundle as wire
from edge_cl.wire import canonical
from edge_cl.wire.fields import to_plain
from edge_cl.wire.messages import Offer, Status
from edge_cl.wire.release import Board, Facts, read_facts
from host_trainer.release.folder import RepositoryFolder
from host_trainer.server.rules.offer import Asker, Listed, chosen
from host_trainer.server.rules.rollout import Rollout, Tally, advanced, check, includes
from host_trainer.server.tables import (
    ACTIVE,
    FAILED,
    KEPT,
    RUNNING,
    STOPPED,
    TRYING,
    BundleRow,
    Device,
    Knowledge,
    RolloutRow,
    Trial,
)

FIRST_BYTES = wire.START.size + wire.MAX_MANIFEST_BYTES  # a manifest stands within them
INSTALLING = ("download", "verify", "staged", "shadow", "swap", "probation")
ROLLED_BACK = "rollback"
RECENT_S = 7 * 86_400  # a device that was not seen for so long is not waited for


class Adopted(NamedTuple):
    """What was found in the repository: paths of bundles that are new here, and of what is none, and why."""

    new: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


def manifest_digest(manifest: wire.Manifest) -> str:
    """Return the hash by which an offer names a bundle: that of its manifest's bytes."""
    return hashlib.sha256(canonical.write(to_plain(manifest))).hexdigest()


def adopt(session: Session, place: RepositoryFolder, now: int) -> Adopted:
    """Note the bundles that the repository lists and these tables do not, and those it lists no more.

    Raises:
        ReleaseError: the repository is not whole.
    """
    repository = place.read()
    listed = {
        path: target for role in repository.channels.values() for path, target in role.signed.targets.items()
    }
    known = set(session.scalars(select(BundleRow.path)))
    new, others = [], []
    for path in sorted(listed.keys() - known):
        try:
            session.add(_row(path, listed[path], place.target_file(listed[path]), now))
            new.append(path)
        except (EdgeError, OSError) as error:
            others.append((path, str(error)))
    gone = known - listed.keys()
    session.execute(
        update(BundleRow)
        .where(BundleRow.path.in_(gone))
        .values(withdrawn=True, reason="the repository lists it no more")
    )
    return Adopted(tuple(new), tuple(others))


def _row(path: str, target: TargetFile, file: Path, now: int) -> BundleRow:
    facts = read_facts(target.custom)
    with file.open("rb") as opened:
        manifest = wire.read_manifest(opened.read(FIRST_BYTES))[0]
    model, channel, _ = path.split("/", 2)
    if manifest.facts != facts or manifest.model != model:
        raise ReleaseError(f"{path} is not the bundle that the repository says it is")
    return BundleRow(
        path=path,
        model=model,
        channel=channel,
        number=facts.bundle,
        manifest=manifest_digest(manifest),
        file=target.hashes["sha256"],
        size=target.length,
        hardware=list(facts.hardware),
        runtime_from=facts.runtime_from,
        runtime_below=facts.runtime_below,
        parent=manifest.parent if any(not part.carried for part in manifest.parts) else 0,
        run=manifest.run,
        labels=list(manifest.labels),
        space=manifest.space.id,
        published_at=now,
    )


def know(session: Session, model: str, number: int, taken: Mapping[str, str]) -> None:
    """Note which newest statistics of each device a bundle's head contains: {device: content}."""
    for device, content in taken.items():
        session.merge(Knowledge(model=model, number=number, device=device, content=content))


def withdraw(session: Session, model: str, number: int, reason: str) -> int:
    """Offer a bundle no more, in any channel; return how many listings that were.

    Devices that run it go on: they take nothing older. Publish what should take its place.
    """
    where = (BundleRow.model == model, BundleRow.number == number, ~BundleRow.withdrawn)
    found = session.scalars(select(BundleRow).where(*where)).all()
    for row in found:
        row.withdrawn, row.reason = True, reason[:200]
    return len(found)


def roll_out(session: Session, model: str, channel: str, number: int, rollout: Rollout, now: int) -> None:
    """Set how far a bundle is rolled out in a channel; begun anew where it was stopped.

    Raises:
        ConfigError: the rollout makes no sense.
    """
    check(rollout)
    session.merge(
        RolloutRow(
            model=model,
            channel=channel,
            number=number,
            share=rollout.share,
            steps=list(rollout.steps),
            success=rollout.success,
            error=rollout.error,
            state=STOPPED if rollout.reason else RUNNING,
            reason=rollout.reason,
            at=now,
        )
    )


def rollouts(session: Session, model: str, channel: str) -> dict[int, Rollout]:
    """Return the rollouts of a channel by bundle number."""
    query = select(RolloutRow).where(RolloutRow.model == model, RolloutRow.channel == channel)
    return {row.number: _rollout(row) for row in session.scalars(query)}


def _rollout(row: RolloutRow) -> Rollout:
    return Rollout(row.share, tuple(row.steps), row.success, row.error, row.reason)


def offered(session: Session, device: Device, round_number: int) -> Offer:
    """Return what a device is to run, for the commit of a round."""
    query = select(BundleRow).where(
        BundleRow.model == device.model, BundleRow.channel == device.channel, ~BundleRow.withdrawn
    )
    listed = [_listed(row) for row in session.scalars(query)]
    asker = Asker(device.name, device.model, Board(tuple(device.hardware), device.runtime), device.bundle)
    found = chosen(listed, rollouts(session, device.model, device.channel), asker)
    if found is None:
        return Offer(round_number, 0, None, 0, None)
    number = found.facts.bundle
    known = session.get(Knowledge, (device.model, number, device.name))
    return Offer(round_number, number, found.manifest, found.size, known.content if known else None)


def _listed(row: BundleRow) -> Listed:
    facts = Facts(row.number, tuple(row.hardware), row.runtime_from, row.runtime_below)
    return Listed(row.path, row.size, row.file, facts, row.manifest, row.parent)


def note_trial(session: Session, device: Device, status: Status, now: int) -> None:
    """Note how a device fares with a bundle; a failure may stop its rollout at once.

    Successes are counted by `upkeep` now and then: counting a fleet of thousands for each would keep others
    from writing.
    """
    number, outcome, reason = _outcome(status)
    if not number:
        return
    trial = session.get(Trial, (device.name, device.model, number))
    if trial is not None and (trial.outcome, trial.reason) == (outcome, reason):
        return
    session.merge(
        Trial(device=device.name, model=device.model, number=number, outcome=outcome, reason=reason, at=now)
    )
    if outcome == FAILED:
        session.flush()
        judge(session, device.model, device.channel, number, now)


def _outcome(status: Status) -> tuple[int, str, str]:
    """Return the bundle that a status speaks of, 0 for none, how the device fares with it, and why."""
    if status.install == ROLLED_BACK and status.tried:
        return status.tried, FAILED, status.reason
    if status.install in INSTALLING and status.tried:
        return status.tried, TRYING, ""
    return status.bundle, KEPT, ""


def judge(session: Session, model: str, channel: str, number: int, now: int) -> Rollout | None:
    """Let a rollout go one step on, or stop, by how its group fares; None where there is none."""
    row = session.get(RolloutRow, (model, channel, number), with_for_update=True)
    if row is None:
        return None
    before = _rollout(row)
    after = advanced(before, tally(session, model, channel, number, before, now))
    if after != before:
        roll_out(session, model, channel, number, after, now)
    return after


def tally(session: Session, model: str, channel: str, number: int, rollout: Rollout, now: int) -> Tally:
    """Count how the devices that are offered a bundle fare; those not seen for RECENT_S are left out."""
    names = session.scalars(
        select(Device.name).where(
            Device.model == model,
            Device.channel == channel,
            Device.state == ACTIVE,
            Device.seen_at >= now - RECENT_S,
        )
    )
    group = {name for name in names if includes(rollout, name, model, number)}
    outcomes = session.execute(
        select(Trial.device, Trial.outcome).where(Trial.model == model, Trial.number == number)
    ).all()
    count = {KEPT: 0, FAILED: 0, TRYING: 0}
    for name, outcome in outcomes:
        count[outcome] += name in group
    return Tally(len(group), count[KEPT], count[FAILED])


def open_rollouts(session: Session) -> list[tuple[str, str, int]]:
    """Return (model, channel, number) of the rollouts that may still go on or stop."""
    query = select(RolloutRow).where(RolloutRow.state == RUNNING)
    return [(row.model, row.channel, row.number) for row in session.scalars(query)]
