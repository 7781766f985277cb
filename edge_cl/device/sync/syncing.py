"""Brings a device and its host together once: tells, follows the names of classes, fetches what is offered.

The learner is only read, and may go on learning meanwhile; only following the names of classes needs it for
itself, and waits for the next time when somebody else has it.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_cl.config import LEVELS, NEVER, SyncSettings
from edge_cl.device.agent import Agent
from edge_cl.device.installation.installation import Installation, InUse
from edge_cl.device.installation.states import FAILURES, RESTING
from edge_cl.device.opening import has_log, open_agent
from edge_cl.device.releases.client import open_releases
from edge_cl.device.staged import settings_of
from edge_cl.device.sync import disclosure, history
from edge_cl.device.sync.following import Known, steps
from edge_cl.device.sync.knowledge import Knowledge, knowledge
from edge_cl.device.sync.line import RUNTIME, Line, Traffic
from edge_cl.device.sync.loading import Load, Who, load
from edge_cl.device.sync.outbox import Enrolment, Outbox, Standing, open_outbox
from edge_cl.device.sync.session import Board, Fare, RevokedError, Sent, Session
from edge_cl.device.transport import Transport
from edge_cl.errors import (
    ConfigError,
    EdgeError,
    ProtocolError,
    ReleaseError,
    StoreBusyError,
    TransportError,
)
from edge_cl.learning.named import Named
from edge_cl.wire import release
from edge_cl.wire import round as rounds
from edge_cl.wire.labels import Edit, Edits
from edge_cl.wire.messages import INSTALLS, Offer
from edge_cl.wire.round import delay_s
from edge_cl.wire.routes import REPOSITORY

logger = logging.getLogger(__name__)
MAX_WORDS = 200  # of a reason, as `messages.Status` takes it
NO_SPACE = "0" * 16  # before anything was taught
REGISTRY = "registry"  # who relabels, in the log


class Synced(NamedTuple):
    """What a sync did.

    Attributes:
        round: its number.
        sent: what the host was told.
        traffic: bytes of messages up and down.
        offered: number of the bundle that the host offers; 0: none.
        fetched: whether a release file was fetched and given to the installation.
        installed: where the installation stands, a state of `installation.states`; "" where there is none.
        followed: edits of the label registry that were followed.
        wait_s: until the next one is welcome.
        notes: for the person, a line each.
    """

    round: int
    sent: Sent
    traffic: Traffic
    offered: int
    fetched: bool
    installed: str
    followed: int
    wait_s: int
    notes: tuple[str, ...]


def sync(
    state: Path,
    now: datetime,
    transport: Callable[[bytes], Transport] = lambda pin: Transport(fingerprint=pin),
) -> Synced:
    """Have one sync with the host of a state folder, whatever was agreed about when.

    Args:
        state: the state folder.
        now: the time, as this board believes.
        transport: makes the network, given the fingerprint of the host's certificate.

    Raises:
        ConfigError: not enrolled, or taken out of the fleet.
        StoreBusyError: another process syncs.
        TransportError, ProtocolError: cut off, or refused for now; what came through counts.
        EdgeError: and its other kinds, for storage and learner.
    """
    settings = settings_of(state)
    with open_outbox(state) as outbox:
        enrolment = enrolled(outbox)
        network = transport(bytes.fromhex(enrolment.fingerprint))
        kinds = hardware(settings.engine.delegate)
        installation = Installation(state, release.Board(kinds, RUNTIME), partial(told_by, outbox))
        with network.talk(enrolment.url) as talk:
            line = Line(talk, outbox, enrolment, int(now.timestamp()))
            return Meeting(state, settings.sync, kinds, outbox, line, now).run(network, installation)


def enrolled(outbox: Outbox) -> Enrolment:
    """Return the enrolment that may be used.

    Raises:
        ConfigError: there is none, or the host has taken it back.
    """
    enrolment, blocked = outbox.enrolment(), outbox.standing().blocked
    if enrolment is None:
        raise ConfigError(
            "this device is not enrolled with a host: run `edge-cl init --host URL --code CODE`"
        )
    if blocked:
        raise RevokedError(blocked)
    return enrolment


def hardware(delegate: str) -> tuple[str, ...]:
    """Return the classes of bundles that a board can run, the best first, by its accelerator."""
    kinds = {"edgetpu": "edgetpu", "tensorrt": "tensorrt"}
    return (*(name for word, name in kinds.items() if delegate.startswith(word)), "cpu")


def told_by(outbox: Outbox, content: str) -> Named | None:
    """Return what was told up to some statistics, classes called as they are here; None: not known here."""
    told, edits = outbox.told(content), outbox.edits()
    return None if told is None else history.moved(told, edits, edits[-1].version if edits else 0).named()


def loaded(outbox: Outbox | None, known: Knowledge, settings: SyncSettings, most_bytes: int) -> Load:
    """Return what would go to the host next; changes nothing."""
    enrolment = None if outbox is None else outbox.enrolment()
    if outbox is None or enrolment is None:
        return load(outbox, known, settings, Who(), most_bytes)
    edits = outbox.edits()
    who = Who(enrolment.device, enrolment.level, edits[-1].version if edits else 0)
    return load(outbox, known, settings, who, most_bytes)


def fare(installation: Installation | None) -> Fare:
    """Return where an installation stands, as the host is told."""
    if installation is None:
        return Fare()
    record = installation.standing()
    state = record.state if record.state in INSTALLS else "idle"
    is_tried = state in INSTALLS[1:] and state != "commit"
    words = "".join(c if " " <= c <= "~" else "?" for c in record.reason)[:MAX_WORDS]
    latency = record.facts.get("latency_us", 0)
    tried = record.bundle if is_tried else 0
    return Fare(state, installation.running().bundle, tried, words, int(latency))


class Meeting:
    """One sync over a line to the host; `sync` opens all that it takes."""

    def __init__(
        self,
        state: Path,
        settings: SyncSettings,
        hardware: tuple[str, ...],
        outbox: Outbox,
        line: Line,
        now: datetime,
    ) -> None:
        self._state, self._settings, self._hardware = state, settings, hardware
        self._outbox, self._line = outbox, line
        self._now = int(now.timestamp())  # by this board's clock, as whoever asks again will count
        self._who = enrolled(outbox)
        self._notes: list[str] = []
        self._followed = 0

    def run(self, network: Transport | None = None, installation: Installation | None = None) -> Synced:
        """Tell, fetch, report, follow, install; errors as `sync`. Without a network no bundle is fetched."""
        self._settled(installation)
        running = InUse() if installation is None else installation.running()
        with self._knowledge() as known:
            space = NO_SPACE if known is None else known.space.id
            board = Board(self._hardware, running.bundle, space)
            session = Session(self._line, self._outbox, self._settings, known, board)
            try:
                sent, offer = session.tell()
                edits = self._edits(session)
                fetched = self._fetched(session, offer, running, network, installation)
                session.report(fare(installation))
            except EdgeError as error:
                self._failed(session, error)
                raise
            self._done(session, known)
        self._follow(edits)
        installed = self._installed(session, installation)
        return Synced(
            self._outbox.standing().round,
            sent,
            self._line.traffic,
            offer.bundle,
            fetched,
            installed,
            self._followed,
            session.wait,
            tuple(self._notes),
        )

    @contextlib.contextmanager
    def _knowledge(self) -> Iterator[Knowledge | None]:
        if not has_log(self._state):
            yield None
            return
        with open_agent(self._state, read_only=True) as agent:
            self._notes += agent.notes
            if self._outbox.standing().space != agent.space.id:
                self._outbox.enter_space(agent.space.id)
            yield knowledge(agent)

    def _settled(self, installation: Installation | None) -> None:
        """End what can be ended, as a probation that was passed: a newer bundle is not taken up before."""
        if installation is not None:
            with contextlib.suppress(StoreBusyError):
                installation.advance(self._time())

    def _installed(self, session: Session, installation: Installation | None) -> str:
        """Go on with an installation, and tell the host where it stands now; "" where there is none."""
        if installation is None:
            return ""
        before = installation.standing()
        try:
            record = installation.advance(self._time())
        except StoreBusyError:
            self._notes.append("a bundle waits to be installed: it is, when nobody else uses the learner")
            return before.state
        if record.state in RESTING:
            self._outbox.shorten()
        if record != before:
            self._notes += [f"bundle {record.bundle}: {record.reason}"] if record.reason else []
            try:
                session.report(fare(installation))
            except (TransportError, ProtocolError) as error:  # the round was done: the next one tells it
                logger.info("%s", error)
        return record.state

    # -- the names of classes ----------------------------------------------------------------------------

    def _edits(self, session: Session) -> Edits:
        known = self._outbox.edits()
        version = known[-1].version if known else 0
        return session.lacking_edits(version) if session.registry > version else ()

    def _follow(self, edits: Edits) -> None:
        """Call classes here as the fleet does; the next round tells what that changes."""
        if not edits:
            return
        if not has_log(self._state):
            for edit in edits:
                self._outbox.follow(edit, self._who.device)
            self._followed = len(edits)
            return
        try:
            with open_agent(self._state) as agent:
                for edit in edits:
                    self._apply(agent, edit)
                    self._outbox.follow(edit, self._who.device)
                    self._followed += 1
        except StoreBusyError:
            self._notes.append(
                "the fleet calls classes otherwise: followed when nobody else uses the learner"
            )

    def _apply(self, agent: Agent, edit: Edit) -> None:
        level_of = disclosure.level_of(self._settings.classes, self._settings.level, self._who.level, LEVELS)
        known = {
            shown.sample: Known(shown.label, shown.is_live and not agent.is_corrected(shown.sample))
            for shown in agent.samples()
        }
        labels = agent.learner.labels
        wanted = steps(edit, self._who.device, labels, known, lambda label: level_of(label) == NEVER)
        for sample, label in wanted.first.items():
            agent.relabel(sample, label, by=REGISTRY)
        for old, new in wanted.classes.items():
            agent.rename_class(old, new)
        for sample, label in wanted.last.items():
            agent.relabel(sample, label, by=REGISTRY)

    # -- bundles -----------------------------------------------------------------------------------------

    def _fetched(
        self,
        session: Session,
        offer: Offer,
        running: InUse,
        network: Transport | None,
        installation: Installation | None,
    ) -> bool:
        """Fetch what is offered where it is newer, and hand it over; a release that is refused is a note."""
        if network is None or installation is None:
            return False
        record = installation.standing()
        is_known = record.bundle == offer.bundle and (
            record.state not in RESTING or record.failures >= FAILURES
        )
        if offer.manifest is None or offer.bundle <= running.bundle or is_known:
            return False
        if offer.taken is not None and self._outbox.told(offer.taken) is None:
            self._notes.append("the bundle offered holds what this device does not know to have told: left")
            return False
        board, when = release.Board(self._hardware, RUNTIME), self._time()
        with open_releases(self._state, f"{self._who.url.rstrip('/')}{REPOSITORY}/", network) as releases:
            try:
                wanted = (offer.bundle, offer.size)
                answer = releases.ask(self._who.model, self._who.channel, board, when, *wanted)
                self._notes += [answer.warning] if answer.warning else []
                if answer.offer is None or answer.offer.facts.bundle != offer.bundle:
                    raise ReleaseError(
                        f"the host offers bundle {offer.bundle}, which its signed list does not have for this"
                        " device: left"
                    )
            except ReleaseError as error:
                self._notes.append(str(error))
                return False
            session.note(rounds.DOWNLOAD)
            try:
                file = releases.fetch(answer.offer)
                session.note(rounds.FETCHED)
                installation.consider(file, offer.manifest, offer.taken, when)
            except ReleaseError as error:
                self._notes.append(str(error))
                self._judged(session, rounds.REJECTED)
                return False
        self._judged(session, rounds.VERIFIED)
        return True

    def _judged(self, session: Session, word: str) -> None:
        if session.state == rounds.DOWNLOADING:
            session.note(rounds.FETCHED)
        session.note(word)

    def _time(self) -> datetime:
        return datetime.fromtimestamp(max(self._line.now, self._outbox.standing().floor), timezone.utc)

    # -- the end -----------------------------------------------------------------------------------------

    def _done(self, session: Session, known: Knowledge | None) -> None:
        standing = self._outbox.standing()
        accuracy = None if known is None else known.accuracy
        self._outbox.write_standing(
            standing._replace(
                attempt=0,
                due=self._now + session.wait,
                floor=max(standing.floor, self._line.heard),
                synced_at=self._now,
                samples=0 if known is None else known.samples,
                accuracy=-1 if accuracy is None else accuracy,
            )
        )

    def _failed(self, session: Session, error: EdgeError) -> None:
        """Note for how long the host is to be left alone, or that it is for ever."""
        session.cut()
        standing: Standing = self._outbox.standing()
        if isinstance(error, RevokedError):
            self._outbox.write_standing(standing._replace(blocked=str(error)))
            return
        seed = int.from_bytes(hashlib.sha256(self._who.device.encode()).digest()[:4], "big")
        wait = delay_s(seed, session.attempt, session.wait)
        self._outbox.write_standing(
            standing._replace(
                attempt=session.attempt,
                due=int(self._now + wait),
                floor=max(standing.floor, self._line.heard),
            )
        )
