"""Takes the action of each state of an installation, and persists the next one before that is acted upon."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_cl.config import Settings
from edge_cl.device import install
from edge_cl.device.agent import Agent
from edge_cl.device.installation import (
    candidate,
    probation,
    records,
    reembedding,
    released,
    shadow,
    swapping,
    unpacking,
)
from edge_cl.device.installation.candidate import Candidate, Told
from edge_cl.device.installation.released import Release
from edge_cl.device.installation.states import (
    ACCEPTED,
    COMMIT,
    DEATHS,
    FAILED,
    FAILURES,
    PASSED,
    PROBATION,
    RESTING,
    ROLLBACK,
    SHADOW,
    STAGED,
    STORED,
    SWAP,
    SWAPPED,
    VERIFIED,
    VERIFY,
    Record,
    advance,
    considered,
)
from edge_cl.device.opening import has_log, open_agent
from edge_cl.device.staged import open_staged, settings_of
from edge_cl.errors import (
    EdgeError,
    ProtocolError,
    ReleaseError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
)
from edge_cl.learning import head
from edge_cl.learning.named import Named
from edge_cl.memory.database import lock_folder
from edge_cl.memory.disk import guarded
from edge_cl.sample import FeatureSpace, Prediction
from edge_cl.vision.backbone import Backbone
from edge_cl.vision.preprocess import prepare
from edge_cl.wire import bundle as bundles
from edge_cl.wire.bundle import START, read_manifest
from edge_cl.wire.release import Board

MANIFEST_BYTES = START.size + bundles.MAX_MANIFEST_BYTES  # of a file, that its manifest is within
Frames = Sequence[NDArray[np.uint8]]  # (H, W, 3) each, of any size


class InUse(NamedTuple):
    """The release in use: its number, 0 for none, and the newest statistics of this device that it has."""

    bundle: int = 0
    taken: str | None = None


def nothing_told(content: str) -> Named | None:
    """Say that nothing is known to have been told."""
    return None


class Installation:
    """The installation of releases on one state folder.

    Args:
        folder: the state folder.
        board: what this board is.
        told: what was told up to some statistics, by their id; None where that is not known here.
    """

    def __init__(self, folder: Path, board: Board, told: Told = nothing_told) -> None:
        self._folder, self._board, self._told = folder, board, told

    # -- where it stands ---------------------------------------------------------------------------------

    def standing(self) -> Record:
        """Return where the installation stands; reads only."""
        return records.read(self._folder)

    def running(self) -> InUse:
        """Return the release in use.

        Raises:
            StoreDamagedError: it does not read back.
        """
        release = released.running(self._folder)
        if release is None:
            return InUse()
        loaded = install.load_checkpoint(self._folder)
        return InUse(release.manifest.bundle, loaded.header.get("taken") if loaded else None)

    # -- going on ----------------------------------------------------------------------------------------

    def consider(self, file: Path, manifest: str, taken: str | None, now: datetime) -> None:
        """Take up a release whose file was fetched, and look whether it may be tried at all.

        Args:
            file: as the repository has signed it; it may stay for a later try.
            manifest: hash of its manifest.
            taken: the newest statistics of this device that its head has.
            now: the time.

        Raises:
            ReleaseError: it may not; the reason is on record where that is the release's own.
            StoreError: the storage refuses.
        """
        number = _number(file)
        record = considered(
            self._ended(now),
            number,
            self.running().bundle,
            file=str(file.absolute()),
            manifest=manifest,
            taken=taken,
        )
        records.write(self._folder, record)
        record = self._step(record, now)
        if record.state == ROLLBACK:
            raise ReleaseError(record.reason)

    def advance(self, now: datetime, frames: Frames = ()) -> Record:
        """Go on as far as possible, and return where it stands then: at rest, or on probation.

        Args:
            now: the time.
            frames: live ones, on which a release is tried as well.

        Raises:
            StoreBusyError: another process works in the state folder; later it goes on.
            StoreError: the storage refuses; what runs goes on, and the same call tries again.
        """
        records.tidy(records.place(self._folder))
        record = self.standing()
        while True:
            following = self._step(record, now, frames)
            if following == record:
                return record
            record = following

    def _ended(self, now: datetime) -> Record:
        """Return where it stands, with the last release out of the way if it is at its end."""
        record = self.standing()
        try:
            return self._step(record, now) if record.state in RESTING else record
        except StoreBusyError as error:
            raise ReleaseError("the last release is not out of the way yet: sync again later") from error

    def _step(self, record: Record, now: datetime, frames: Frames = ()) -> Record:
        """Take the action of a state; return the same record when there is nothing to do."""
        if record.state == PROBATION:
            return self._watched(record, now)
        if record.state == COMMIT:
            return self._kept(record)
        if record.state == ROLLBACK:
            return self._undone(record)
        actions: dict[str, Callable[[Record], Record]] = {
            VERIFY: self._verified,
            STAGED: self._stored,
            SHADOW: lambda found: self._tried(found, frames),
            SWAP: lambda found: self._swapped(found, now),
        }
        return self._acted(record, actions[record.state]) if record.state in actions else record

    def _acted(self, record: Record, action: Callable[[Record], Record]) -> Record:
        """Persist that an action begins, take it, persist what came of it."""
        if record.begun >= DEATHS:
            words = f"the program died {record.begun} times at it ({record.state})"
            return self._write(advance(record, FAILED, reason=words))
        begun = self._write(record._replace(begun=record.begun + 1))
        try:
            with _solvable():
                following = action(begun)
            return self._write(following)
        except (StoreError, KeyboardInterrupt):
            with contextlib.suppress(StoreError):  # neither the storage nor a person is the release's fault
                records.write(self._folder, record)
            raise
        except EdgeError as error:
            return self._write(advance(begun, FAILED, reason=str(error)))

    def _write(self, record: Record) -> Record:
        records.write(self._folder, record)
        return record

    # -- the actions -------------------------------------------------------------------------------------

    def _verified(self, record: Record) -> Record:
        self._parcel(record)
        return advance(record, VERIFIED)

    def _stored(self, record: Record) -> Record:
        parcel = self._parcel(record)
        with _locked(self._folder):
            return advance(record, STORED, staged=unpacking.stage(self._folder, parcel))

    def _parcel(self, record: Record) -> unpacking.Parcel:
        engine = settings_of(self._folder).engine
        return unpacking.verify(self._folder, Path(record.file), record.manifest, self._board, engine)

    def _tried(self, record: Record, frames: Frames) -> Record:
        """Shadow: what it does on this board, and how it answers beside what runs."""
        settings, release = settings_of(self._folder), self._release(record)
        bundle, gates, budget = (
            released.read_bundle(self._folder, release),
            release.manifest.gates,
            shadow.Budget(settings.installation.latency_ms, settings.installation.memory_mb),
        )
        with shadow.opened(self._folder, settings, release.staged) as backbone:
            golden, space = bundles.golden(bundle), release.manifest.space
            facts = shadow.check_backbone(backbone, golden, space, gates, budget)
            with self._agent() as agent:
                self._see_again(agent, backbone, release, settings)
                made = self._candidate(agent, release, backbone.space, record)
                compared = shadow.compare(agent.learner, made.learner)
                shadow.check_compared(compared, gates)
                facts |= self._check_frames(agent, made, backbone, frames)
        facts |= {"held_back": compared._asdict(), "space": list(backbone.space)}
        return advance(record, ACCEPTED, facts=facts)

    def _check_frames(
        self, agent: Agent, made: Candidate, backbone: Backbone, frames: Frames
    ) -> dict[str, object]:
        if not frames:
            return {}
        after = [_answer(made.learner.predict_one, backbone, frame) for frame in frames]
        if agent.space.id == backbone.space.id:
            before = [_answer(agent.learner.predict_one, backbone, frame) for frame in frames]
        else:
            with open_staged(self._folder, agent.settings) as old:
                before = [_answer(agent.learner.predict_one, old, frame) for frame in frames]
        return shadow.check_frames(before, after)

    def _swapped(self, record: Record, now: datetime) -> Record:
        """Swap: one pointer; what is taught from then on is kept in both spaces."""
        current = install.read_current(self._folder)
        if current.bundle == record.staged and current.fallback is not None:
            return advance(record, SWAPPED, old=current.fallback.bundle or "", since=_seconds(now))
        settings, release = settings_of(self._folder), self._release(record)
        space = FeatureSpace(*record.facts["space"])
        with contextlib.closing(self._agent()) as agent:
            if space.id != agent.space.id:
                with shadow.opened(self._folder, settings, release.staged) as backbone:
                    self._see_again(agent, backbone, release, settings)
            made = self._candidate(agent, release, space, record)
            kept = agent.store.other_samples()
            again = (
                candidate.retaught(agent.learner, made.learner, kept) if space.id != agent.space.id else {}
            )
            before = _expected(agent.report_before_learning(), record.facts.get("held_back", {}))
            # On record before the pointer moves: whoever finds it moved has to know this.
            record = self._write(record._replace(retaught=again, before=before))
            swapping.swap(self._folder, agent, release.staged, made)
        return advance(record, SWAPPED, old=current.bundle or "", since=_seconds(now))

    def _watched(self, record: Record, now: datetime) -> Record:
        """Probation: undo it, keep it, or go on watching."""
        if record.since > _seconds(now):  # the clock was set back: the time counts from now
            record = self._write(record._replace(since=_seconds(now)))
        found = probation.look(self._folder, record, settings_of(self._folder).installation, _seconds(now))
        if found.event == FAILED:
            return probation.fail(self._folder, record, found.reason)
        return self._write(advance(record, PASSED)) if found.event == PASSED else record

    def _kept(self, record: Record) -> Record:
        if not record.old:
            return record
        swapping.keep(self._folder, record.old)
        released.forget_statistics(self._folder, self.running().bundle)
        _remove_file(record)
        return self._write(record._replace(old=""))

    def _undone(self, record: Record) -> Record:
        if record.failures >= FAILURES:
            _remove_file(record)
        if not record.staged:
            return record
        swapping.undo(self._folder, record.staged)
        released.forget_statistics(self._folder, self.running().bundle)
        return self._write(record._replace(staged="", old=""))

    # -- inside ------------------------------------------------------------------------------------------

    def _release(self, record: Record) -> Release:
        """Return what was staged; where that is not whole any more it has failed, and is fetched again."""
        try:
            install.check_bundle(self._folder, record.staged)
            release = released.read_release(self._folder, record.staged)
        except StoreDamagedError as error:
            raise ReleaseError("its files here are damaged: it is fetched again") from error
        if release is None:
            raise ReleaseError("its files here are gone: it is fetched again")
        return release

    def _agent(self) -> Agent:
        """Open what runs; where nothing was taught yet, its backbone says of which space the database is."""
        return open_agent(self._folder, with_backbone=not has_log(self._folder))

    def _see_again(self, agent: Agent, backbone: Backbone, release: Release, settings: Settings) -> None:
        if backbone.space.id != agent.space.id:
            reembedding.see_again(agent, backbone, release.manifest.input.mirror and settings.teaching.mirror)

    def _candidate(self, agent: Agent, release: Release, space: FeatureSpace, record: Record) -> Candidate:
        made = candidate.make(self._folder, agent, release, space, record.taken, self._told)
        tensors = bundles.head(released.read_bundle(self._folder, release))
        parent = head.parent_of(tensors)
        if parent:
            known = head.to_statistics(tensors, released.head_statistics(self._folder, parent))
            released.keep_statistics(self._folder, record.bundle, known)
        return made


def _number(file: Path) -> int:
    """Return the number of the release in a file; ReleaseError when it is none."""
    try:
        with file.open("rb") as opened:
            return read_manifest(opened.read(MANIFEST_BYTES))[0].bundle
    except OSError as error:
        raise ReleaseError(f"the release's file cannot be read ({error.strerror}): sync again") from error
    except ProtocolError as error:
        raise ReleaseError(f"the file is no release ({error}): left") from error


def _answer(
    predict: Callable[[NDArray], Prediction], backbone: Backbone, frame: NDArray[np.uint8]
) -> Prediction:
    pixels = prepare(Image.fromarray(frame), backbone.input_size, backbone.policy)
    return predict(backbone.embed(pixels)[None])


@contextlib.contextmanager
def _solvable() -> Iterator[None]:
    """Say of a release whose numbers fit no samples that it is the release's fault."""
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise ReleaseError("its head and what was taught here make no sense together") from error


def _expected(before: float, found: Mapping[str, int]) -> float:
    """Return the share of right answers before learning to expect under a release; -1: unknown.

    With more classes there is more to confuse: it need not be better than the release was in the shadow.
    """
    count = found.get("samples", 0)
    return min(before, found["after_all"] / count) if before >= 0 and count else before


def _seconds(now: datetime) -> int:
    return int(now.timestamp())


def _remove_file(record: Record) -> None:
    with guarded("removing a release's file"):
        if record.file:
            Path(record.file).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = lock_folder(folder)
    try:
        yield
    finally:
        os.close(lock)
