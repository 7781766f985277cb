"""Drives a round with the host: what goes up, the names of classes, what is offered, how this device fares.

Every step is noted in the outbox before the host can have acted on it, and every answer before the next
question: killed or cut off anywhere, the next round goes on, and the host counts everything once.
"""

import logging
from typing import NamedTuple

from edge_cl.config import SyncSettings
from edge_cl.device.sync import loading
from edge_cl.device.sync.knowledge import Knowledge
from edge_cl.device.sync.line import RUNTIME, STALE, Line
from edge_cl.device.sync.loading import Load, Who
from edge_cl.device.sync.outbox import Enrolment, Outbox
from edge_cl.errors import ConfigError, EdgeError, MismatchError, ProtocolError, TransportError
from edge_cl.wire import round as rounds
from edge_cl.wire.labels import Edits, check_order
from edge_cl.wire.messages import (
    MAX_CHUNK_BYTES,
    STATISTICS,
    Acknowledgement,
    Chunk,
    Commit,
    Content,
    Greet,
    Message,
    Offer,
    Receipt,
    Refusal,
    Status,
    Welcome,
)
from edge_cl.wire.round import Round, advance

MAX_GREETINGS = 4  # of one sync: what is told changes with what the host says, but not for ever
MAX_PAGES = 64  # of the registry, in one sync
logger = logging.getLogger(__name__)


class Board(NamedTuple):
    """What this device is and runs: hardware classes, the best first; number of its bundle; its space."""

    hardware: tuple[str, ...]
    bundle: int
    space: str


class Fare(NamedTuple):
    """How this device fares, for `messages.Status`: where an installation stands, and why it was undone."""

    install: str = "idle"
    bundle: int = 0
    tried: int = 0
    reason: str = ""
    latency_us: int = 0


class Sent(NamedTuple):
    """What a sync told the host: contents, their bytes before packing, and samples of a later round."""

    contents: tuple[Content, ...]
    waiting: int


class Session:
    """One sync with one host, over several rounds where what the host says changes what is told.

    Args:
        line: to the host.
        outbox: of this device.
        settings: what may leave.
        known: what there is; None: nothing was taught here yet.
        board: what this device is.
    """

    def __init__(
        self, line: Line, outbox: Outbox, settings: SyncSettings, known: Knowledge | None, board: Board
    ) -> None:
        self._line, self._outbox, self._settings = line, outbox, settings
        self._known, self._board = known, board
        standing = outbox.standing()
        self._round = Round(number=standing.round, attempt=standing.attempt)
        self._load: Load | None = None
        enrolment = outbox.enrolment()
        if enrolment is None:
            raise ConfigError(
                "this device is not enrolled with a host: run `edge-cl init --host URL --code CODE`"
            )
        self._who: Enrolment = enrolment
        self.registry = 0  # newest version at the host

    @property
    def state(self) -> str:
        """Where the round stands."""
        return self._round.state

    @property
    def attempt(self) -> int:
        """Rounds cut or refused since something came through."""
        return self._round.attempt

    @property
    def wait(self) -> int:
        """Seconds that the host asked to be left alone."""
        return self._round.wait

    def tell(self) -> tuple[Sent, Offer]:
        """Bring the host up to date, and return what it was told and what it offers.

        Raises:
            RefusedError, RevokedError, MismatchError: the host does not go on; `wait` says for how long.
            TransportError, ProtocolError: the line was cut or the host breaks the rules; try again later.
            StoreError: the storage refuses.
        """
        most_bytes, has_tried = self._settings.most_bytes, 0
        while has_tried < MAX_GREETINGS:
            has_tried += 1
            load = self._prepared(most_bytes)
            try:
                welcome = self._greeted(load)
            except RefusedError as error:
                if error.reason != STALE or self._round.number >= self._line.now:
                    raise
                # An old copy of the outbox: the host has had rounds that are forgotten here. Seconds since
                # 1970 are beyond any number of rounds.
                self._round = self._round._replace(number=self._line.now)
                continue
            missing = sum(each.size - self._round.received[each.id] for each in load.contents())
            if self._must_change(load, welcome):
                continue
            if missing > welcome.quota and load.fresh and has_tried < MAX_GREETINGS - 1:
                most_bytes = min(most_bytes // 2, welcome.quota)
                continue
            if not self._uploaded(load):
                continue
            waiting = sum(count for _, count in load.waiting)
            return Sent(load.contents(), waiting), self._committed(load)
        raise ProtocolError("the host changes its mind at every greeting: it is tried again later")

    def lacking_edits(self, version: int) -> Edits:
        """Return the edits of the label registry after a version, all that the host has."""
        found: Edits = ()
        for _ in range(MAX_PAGES):
            newest = found[-1].version if found else version
            if newest >= self.registry:
                break
            page = self._line.edits_after(newest).edits
            if not page:
                break
            check_order(page, newest)
            found += page
        return found

    def note(self, event: str) -> None:
        """Advance the round by something that this device does or finds by itself."""
        self._round = advance(self._round, event)

    def report(self, fare: Fare) -> None:
        """Tell how this device fares, which ends the round; errors as `tell`."""
        known = self._known
        status = Status(
            *(self._who.device, self._round.number, fare.bundle, fare.install, fare.tried),
            *(fare.reason, known.accuracy if known else None, known.samples if known else 0),
            *(known.suspects if known else 0, fare.latency_us),
        )
        self._asked(status, Acknowledgement)

    def cut(self) -> None:
        """Note that the line was cut; nothing where no round is under way."""
        if rounds.CUT in rounds.NEXT[self._round.state]:
            self.note(rounds.CUT)

    # -- the steps ---------------------------------------------------------------------------------------

    def _prepared(self, most_bytes: int) -> Load:
        """Decide what goes, and keep it with the number of the round before the host hears of either."""
        standing = self._outbox.standing()._replace(round=self._round.number + 1)
        if self._known is None:
            self._outbox.write_standing(standing)
            return Load((), None, (), (), (), (), min(STATISTICS, self._who.level))
        who = Who(self._who.device, self._who.level, self._edition())
        load = loading.load(self._outbox, self._known, self._settings, who, most_bytes)
        self._outbox.replace_ready(load.statistics, load.fresh, standing)
        return load

    def _greeted(self, load: Load) -> Welcome:
        board = self._board
        self.cut()
        greet = Greet(
            *(self._who.device, self._round.number + 1, RUNTIME, board.hardware, board.bundle, board.space),
            *(self._edition(), load.level, self._outbox.newest(), load.contents()),
        )
        found = self._asked(greet, Welcome)
        assert isinstance(found, Welcome)
        self.registry = found.registry
        return found

    def _must_change(self, load: Load, welcome: Welcome) -> bool:
        """Take in what the host says of itself; True when other contents are to be announced."""
        if welcome.level != self._who.level:
            self._who = self._who._replace(level=welcome.level)
            self._outbox.set_level(welcome.level)
            return True
        newest = self._outbox.newest()
        mine = {newest, *(each.id for each in load.again if each.level == STATISTICS)}
        # Once all is told anew, the first statistics on their way replace all that the host has.
        is_replaced = newest is None and (self._known is None or self._outbox.standing().is_anew)
        if welcome.last in mine or is_replaced:
            return False
        logger.warning("the host has other statistics of this device than it was told: all is told anew")
        self._outbox.start_anew(
            self._line.now
        )  # seconds since 1970: above all numbers that are forgotten here
        return True

    def _uploaded(self, load: Load) -> bool:
        """Send what the host lacks; False when something of it cannot be made any more."""
        statistics = dict(self._outbox.outgoing())
        for content in load.contents():
            data = statistics.get(content.id)
            while content.id in self._round.missing():
                if data is None:
                    data = self._data_of(content)
                if data is None:
                    self._outbox.drop([content.id])
                    return False
                self._send_chunk(content, data)
        return True

    def _data_of(self, content: Content) -> bytes | None:
        parcel = next((each.parcel for each in self._outbox.sending() if each.id == content.id), None)
        if parcel is None or self._known is None:
            return None
        return loading.content(content.id, parcel, self._known, self._who.device)

    def _send_chunk(self, content: Content, data: bytes) -> None:
        offset = self._round.received[content.id]
        chunk = Chunk(content.id, offset, content.size, data[offset : offset + MAX_CHUNK_BYTES])
        found = self._asked(chunk, Receipt)
        assert isinstance(found, Receipt)
        if self._round.received[content.id] <= offset:
            raise ProtocolError("the host takes a chunk and says that nothing came")

    def _committed(self, load: Load) -> Offer:
        names = tuple(each.id for each in load.contents())
        if names:
            self._outbox.commit(names)
        found = self._asked(Commit(self._who.device, self._round.number, names), Offer)
        assert isinstance(found, Offer)
        if names:
            self._outbox.acknowledge(names)
        return found

    def _asked(self, message: Message, wanted: type[Message]) -> Message:
        """Advance the round by a message and its answer."""
        self._round = advance(self._round, message)
        found = self._line.ask(message)
        if isinstance(found, Refusal):
            self._round = advance(self._round, found)
            raise refused(found)
        if not isinstance(found, wanted):
            raise ProtocolError(f"the host answers {type(message).__name__} with {type(found).__name__}")
        self._round = advance(self._round, found)
        return found

    def _edition(self) -> int:
        edits = self._outbox.edits()
        return edits[-1].version if edits else 0


class RefusedError(TransportError):
    """The host does not go on for now; later it may. `reason` is one of `messages.REFUSALS`."""

    reason = ""


class RevokedError(ConfigError):
    """The host does not know this device any more."""


def refused(refusal: Refusal) -> EdgeError:
    """Return what a refusal is to the person, by who must act."""
    words = refusal.words or refusal.reason
    if refusal.reason in ("revoked", "unknown-device"):
        return RevokedError(
            f"the host does not take this device ({words}): ask it for a new code, then"
            " `edge-cl init --host URL --code CODE`"
        )
    if refusal.reason == "version":
        return MismatchError(f"the host speaks another version ({words}): update edge-cl here or there")
    wait = f", in {refusal.wait} s" if refusal.wait else ""
    error = RefusedError(
        f"the host does not go on ({refusal.reason}: {words}): it is tried again later{wait}"
    )
    error.reason = refusal.reason
    return error
