"""Makes the page of a fleet: one document that runs no program, and says first what needs a person."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from edge_cl import __version__
from host_trainer.server import overview, words
from host_trainer.server.bundles import RECENT_S, ROLLED_BACK
from host_trainer.server.fleet import Fleet
from host_trainer.server.jobs import RETRAIN
from host_trainer.server.overview import Count, Rolled, Seen, Work
from host_trainer.server.tables import ACTIVE, GIVEN_UP
from host_trainer.server.upkeep import Upkeep

STYLE = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
A_PAGE = 100  # devices
CLOCK_S = 120  # a clock that is off by more is told
MOST_NOTES = 12


class Note(NamedTuple):
    """Something that needs a person: about what, and what is the matter."""

    about: str
    words: str


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("host_trainer.server.web", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = words.percent
    made.filters["size"] = words.size
    return made


class Page:
    """The page of a fleet, read anew for each who asks."""

    def __init__(self, fleet: Fleet, upkeep: Upkeep | None, clock: Callable[[], float]) -> None:
        self._fleet, self._upkeep, self._clock = fleet, upkeep, clock
        self._template = _environment().get_template("fleet.html")

    def text(self, number: int = 1) -> str:
        """Return the document with the devices of the `number`-th page; StoreError as ever."""
        now = int(self._clock())
        with self._fleet.database.reading() as session:
            count = overview.count(session, now)
            known = count.active + count.revoked
            pages = max(1, -(-known // A_PAGE))
            number = min(max(number, 1), pages)
            shown: dict[str, Any] = {
                "name": self._fleet.folder.resolve().name,
                "version": __version__,
                "count": count,
                "devices": overview.devices(session, (number - 1) * A_PAGE, A_PAGE),
                "page": number,
                "pages": pages,
                "rollouts": overview.rollouts(session, now),
                "releases": overview.releases(session),
                "contents": overview.contents(session),
                "jobs": overview.jobs(session),
                "quarantined": overview.quarantined(session),
            }
        everyone = shown["devices"] if pages == 1 else []
        shown["notes"] = list(self._notes(shown, everyone, now))[:MOST_NOTES]
        shown["ago"] = lambda at: words.ago(at, now)
        return self._template.render(shown)

    def _notes(self, shown: dict[str, Any], devices: list[Seen], now: int) -> Iterator[Note]:
        for duty, fault in (self._upkeep.faults if self._upkeep else {}).items():
            yield Note("This host", f"cannot {duty}: {fault}")
        yield from _of_rollouts(shown["rollouts"])
        yield from _of_jobs(shown["jobs"])
        for device, reason, number in shown["quarantined"]:
            yield Note(device, f"{number} of its contents set aside: {reason}")
        for each in devices:
            yield from _of_device(each, now)
        yield from _of_all(shown["count"], bool(devices))


def _of_rollouts(rollouts: list[Rolled]) -> Iterator[Note]:
    for each in rollouts:
        if each.reason:
            yield Note(f"Bundle {each.number}", f"stopped in {each.channel}: {each.reason}")


def _of_jobs(jobs: list[Work]) -> Iterator[Note]:
    newest = next((each for each in jobs if each.kind == RETRAIN), None)
    if newest is not None and newest.state == GIVEN_UP:
        yield Note(f"Training of {newest.subject}", f"was given up: {newest.words}")


def _of_device(device: Seen, now: int) -> Iterator[Note]:
    if device.state != ACTIVE:
        return
    if device.install == ROLLED_BACK:
        yield Note(device.name, f"rolled bundle {device.tried} back: {device.reason or 'no reason given'}")
    if device.seen_at is None:
        yield Note(device.name, "was enrolled and has not been heard of since")
    elif device.seen_at < now - RECENT_S:
        yield Note(device.name, f"was last seen {words.ago(device.seen_at, now)}")
    elif abs(device.clock_offset) > CLOCK_S:
        way = "ahead" if device.clock_offset > 0 else "behind"
        yield Note(device.name, f"has a clock {words.lasting(abs(device.clock_offset))} {way}")
    if device.suspects:
        plural = "" if device.suspects == 1 else "s"
        yield Note(device.name, f"has {device.suspects} sample{plural} whose label looks wrong")


def _of_all(count: Count, is_told: bool) -> Iterator[Note]:
    """Yield what is told of a fleet too large to name each device."""
    if is_told:
        return
    if count.rolled_back:
        yield Note("Fleet", f"{count.rolled_back} devices rolled a bundle back")
    if count.active > count.recent:
        yield Note("Fleet", f"{count.active - count.recent} devices were not seen for a day")
    if count.suspects:
        yield Note("Fleet", f"{count.suspects} samples have a label that looks wrong")
