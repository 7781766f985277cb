"""Does what nobody asks for: renews the repository, takes in new bundles, moves rollouts, asks for training.

Each duty stands for itself: one that fails is told, and is tried again with the next turn, and the others go
on.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from sqlalchemy import delete, func, select

from edge_cl.errors import EdgeError
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import renew
from host_trainer.server import bundles, contents
from host_trainer.server.fleet import Fleet
from host_trainer.server.jobs import RETRAIN, Jobs
from host_trainer.server.limits import Limits
from host_trainer.server.rules.quota import DAY_S
from host_trainer.server.rules.retraining import is_due
from host_trainer.server.tables import COMMITTED, Code, ContentRow, Device, StatusRow

PERIOD_S = 20.0
LOOK_S = 1.0  # between two looks whether something was published
STAMP_LEFT = timedelta(hours=12)  # the timestamp lives for a day: enough left for a night without this server

logger = logging.getLogger(__name__)


class Upkeep:
    """What keeps a fleet going.

    Attributes:
        faults: {duty: what went wrong the last time}; empty while all is well.
        notes: {path: why} of what the repository lists and is no bundle.
    """

    def __init__(self, fleet: Fleet, limits: Limits, clock: Callable[[], float]) -> None:
        self._fleet, self._limits, self._clock = fleet, limits, clock
        self.faults: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self._swept_at = 0
        self._duties: dict[str, Callable[[int], None]] = {
            "renew the repository": self._renew,
            "take in new bundles": self._adopt,
            "move the rollouts": self._judge,
            "ask for training": self._ask_for_training,
            "destroy what was given up": self._destroy,
            "forget what is old": self._forget,
            "sweep the store": self._sweep,
        }

    def turn(self) -> None:
        """Do each duty once."""
        now = int(self._clock())
        for name, duty in self._duties.items():
            try:
                duty(now)
            except EdgeError as error:
                if self.faults.get(name) != str(error):
                    logger.warning("cannot %s: %s", name, error)
                self.faults[name] = str(error)
            else:
                if self.faults.pop(name, None):
                    logger.info("can %s again", name)

    def run(self, stop: threading.Event, period_s: float = PERIOD_S) -> None:
        """Take turns until `stop` is set; one at once when something was published."""
        while not stop.is_set():
            seen, left_s = self._published(), period_s
            self.turn()
            while left_s > 0 and not stop.wait(min(LOOK_S, left_s)) and self._published() == seen:
                left_s -= LOOK_S

    def _published(self) -> int:
        """Return what changes with every publication: when the repository's timestamp was written."""
        try:
            return (self._fleet.place.metadata / "timestamp.json").stat().st_mtime_ns
        except OSError:
            return 0

    def _renew(self, now: int) -> None:
        time = datetime.fromtimestamp(now, timezone.utc)
        place = self._fleet.place
        expires = place.read().timestamp.signed.expires
        if expires.replace(tzinfo=timezone.utc) - time > STAMP_LEFT:
            return
        found = renew(place, Keyring(place.key_folders(), _nobody), time)
        logger.info("renewed %s", ", ".join(role for role, _ in found.renewed))
        for role, until in found.waiting:
            logger.warning(
                "%s expires on %s and lacks its keys: host-trainer renew --keys DIR", role, until.date()
            )

    def _adopt(self, now: int) -> None:
        with self._fleet.database.writing() as session:
            found = bundles.adopt(session, self._fleet.place, now)
        for path in found.new:
            logger.info("took in %s", path)
        for path, why in found.others:
            if path not in self.notes:
                logger.info("%s is offered to nobody: %s", path, why)
        self.notes = dict(found.others)

    def _judge(self, now: int) -> None:
        with self._fleet.database.writing() as session:
            for model, channel, number in bundles.open_rollouts(session):
                after = bundles.judge(session, model, channel, number, now)
                if after is not None and after.reason:
                    logger.warning("bundle %d of %s-%s is stopped: %s", number, model, channel, after.reason)

    def _ask_for_training(self, now: int) -> None:
        with self._fleet.database.reading() as session:
            query = (
                select(Device.model, func.count(), func.min(ContentRow.committed_at))
                .join(Device, Device.name == ContentRow.device)
                .where(ContentRow.state == COMMITTED)
                .group_by(Device.model)
            )
            waiting = session.execute(query).all()
        for model, count, oldest in waiting:
            if is_due(self._limits.policy, count, now - (oldest or now)):
                Jobs(self._fleet.database).put(RETRAIN, model, {"why": "policy", "waiting": count}, now)

    def _destroy(self, now: int) -> None:
        contents.destroy_doomed(self._fleet.database, self._fleet.objects)

    def _sweep(self, now: int) -> None:
        if now - self._swept_at >= DAY_S:
            count = contents.sweep(self._fleet.database, self._fleet.objects, now)
            self._swept_at = now
            if count:
                logger.info("destroyed %d objects that nobody speaks of", count)

    def _forget(self, now: int) -> None:
        with self._fleet.database.writing() as session:
            session.execute(delete(StatusRow).where(StatusRow.at < now - self._limits.status_days * DAY_S))
            session.execute(delete(Code).where(Code.expires_at < now - DAY_S))


def _nobody(words: str) -> bytes:
    """Answer that there is no passphrase: nobody sits at a server, and its keys are under none."""
    return b""
