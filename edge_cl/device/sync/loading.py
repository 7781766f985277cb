"""Decides what goes to the host next, and makes its bytes: statistics, then features, then pictures.

What was committed and not acknowledged goes again as it was; what was only ready is made anew when something
came in between, and is the same when nothing did, so that an upload goes on where it was cut.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from edge_cl.config import LEVELS, NEVER, SyncSettings
from edge_cl.device.sync import disclosure, history, parcels
from edge_cl.device.sync.disclosure import Telling, Verdict
from edge_cl.device.sync.knowledge import Knowledge, forgotten_ones_aside
from edge_cl.device.sync.outbox import COMMITTING, Outbox, Sending
from edge_cl.device.sync.parcels import Held, Parcel
from edge_cl.device.sync.pictures import bare
from edge_cl.errors import ImageError, StoreDamagedError
from edge_cl.learning import named
from edge_cl.learning.increment import Increment
from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.messages import (
    FEATURES,
    IMAGES,
    MAX_CONTENTS,
    STATISTICS,
    Content,
    Message,
    Statistics,
    narrowest,
)

Fresh = tuple[str, int, Parcel]  # a parcel that is to go, with the id and size of its content

logger = logging.getLogger(__name__)
NOBODY = "device"  # name in a dry run before enrolment: as long as names are


class Who(NamedTuple):
    """Who tells: name in the fleet, the most that the host wants, version of the label registry followed."""

    device: str = NOBODY
    most: str = IMAGES
    edition: int = 0


class Load(NamedTuple):
    """What goes next.

    Attributes:
        verdicts: what becomes of each class in the statistics.
        statistics: that are to be made; None: nothing to say.
        again: contents that the host may have already, without their acknowledgement.
        fresh: parcels that are to go, with id and size.
        waiting: (level, samples) that a later round takes.
        withdrawn: samples whose features and pictures the host is to destroy.
        level: the most that any class here tells.
    """

    verdicts: tuple[Verdict, ...]
    statistics: Statistics | None
    again: tuple[Content, ...]
    fresh: tuple[Fresh, ...]
    waiting: tuple[tuple[str, int], ...]
    withdrawn: tuple[int, ...]
    level: str

    def contents(self) -> tuple[Content, ...]:
        """Return what is to be announced, statistics first."""
        found = [*self.again]
        if self.statistics is not None:
            found.append(Content(content_id(self.statistics), STATISTICS, len(canonical(self.statistics))))
        found += [Content(name, each.level, size) for name, size, each in self.fresh]
        return tuple(sorted(found, key=lambda each: LEVELS.index(each.level)))


def load(outbox: Outbox | None, known: Knowledge, settings: SyncSettings, who: Who, most_bytes: int) -> Load:
    """Return what goes next; reads the outbox (None: nothing was ever told) and changes nothing.

    Args:
        outbox: what was told, and is on its way.
        known: what there is.
        settings: what may leave.
        who: tells.
        most_bytes: of contents that are made now; at least one is.
    """
    level_of = disclosure.level_of(settings.classes, settings.level, who.most, LEVELS)
    sent = {} if outbox is None else outbox.sent()
    labels = forgotten_ones_aside((sample for each in sent.values() for sample in each), known.labels)
    withdrawn = parcels.withdrawn(sent, labels, level_of)
    verdicts, statistics = _statistics(outbox, known, settings, who, level_of, withdrawn)
    again = () if outbox is None else tuple(_again(outbox))
    others = [each.size for each in again] + ([len(canonical(statistics))] if statistics else [])
    places = min(MAX_CONTENTS - len(others), parcels.MAX_SENDING)
    room = _Room(most_bytes - sum(others), places, not others)
    fresh, waiting = _parcels(outbox, known, who, level_of, room)
    wanted = [level_of(label) for label in known.own.labels] + [settings.level]
    level = max((each for each in wanted if each != NEVER), key=LEVELS.index, default=STATISTICS)
    level = min(level, who.most, key=LEVELS.index)
    return Load(verdicts, statistics, again, fresh, waiting, tuple(withdrawn), level)


def content(name: str, parcel: Parcel, known: Knowledge, device: str) -> bytes | None:
    """Return the canonical bytes of a parcel; None when they cannot be those of this id any more."""
    made = _message(parcel, known, device, _found(parcel, known))
    data = None if made is None else canonical(made)
    return data if made is not None and content_id(made) == name else None


# -- statistics ------------------------------------------------------------------------------------------


def _statistics(
    outbox: Outbox | None,
    known: Knowledge,
    settings: SyncSettings,
    who: Who,
    level_of: disclosure.LevelOf,
    withdrawn: list[int],
) -> tuple[tuple[Verdict, ...], Statistics | None]:
    size = known.own.statistics.sums.shape[1]
    before = None if outbox is None else outbox.told()
    is_new = before is None or before.space != known.space.id
    start = history.nothing(known.space.id, size, who.edition) if is_new or before is None else before
    start = start if outbox is None else history.moved(start, outbox.edits(), who.edition)
    told, last = start.named(), start.id
    del before, start  # each a (D, D) matrix: here memory is at its fullest
    verdicts = disclosure.judged(known.own, told, level_of, settings.minimum)
    has_secrets = NEVER in (settings.level, *settings.classes.values())
    target = disclosure.shown(known.own, told, verdicts, known.live, has_secrets)
    found = disclosure.telling(target, told, verdicts, settings.minimum)
    if found is not None and found.fault and not is_new:  # nearly all was taken back: the rest is told anew
        is_new, nothing = True, named.nothing(size)
        found = disclosure.telling(target, nothing, verdicts, settings.minimum) or _silence(size)
    if found is not None and found.fault:
        logger.warning("the statistics are not told, they would not be believed: %s", found.fault)
        found = None
    must_say = withdrawn or (outbox is not None and outbox.standing().is_anew and is_new)
    if found is None and must_say:
        found = _silence(size)
    if found is None or outbox is None and not verdicts:
        return tuple(verdicts), None
    number = 1 if outbox is None else outbox.next_number()
    since = None if is_new else last
    return tuple(verdicts), _spoken(who, number, since, known.space.id, found, withdrawn)


def _silence(size: int) -> Telling:
    """Return statistics that say nothing, to carry what has to be taken back."""
    nothing = Increment(
        np.zeros(0, np.int64),
        np.zeros((0, size), np.int64),
        0,
        np.zeros((0, size), np.int8),
        np.zeros(0, np.int64),
        np.zeros(size, np.int8),
        1,
    )
    return Telling((), nothing, 0.0)


def _spoken(
    who: Who, number: int, since: str | None, space: str, found: Telling, withdrawn: list[int]
) -> Statistics:
    more = found.more
    return Statistics(
        *(who.device, number, since, space, who.edition, found.labels, more.counts),
        *(more.sums.astype(narrowest(more.sums)), more.residue, more.factors, more.weights),
        *(more.spread, more.unit, min(1000, round(1000 * found.untold)), np.array(withdrawn, np.int64)),
    )


# -- samples ---------------------------------------------------------------------------------------------


def _again(outbox: Outbox) -> Iterator[Content]:
    ready = outbox.ready()
    yield from (Content(name, STATISTICS, len(data)) for name, data in outbox.outgoing() if name != ready)
    for each in outbox.sending():
        if each.state == COMMITTING:
            yield Content(each.id, each.parcel.level, each.size)


class _Room:
    """How much more goes in this round; what is larger than all of it goes where nothing else does."""

    def __init__(self, most_bytes: int, places: int, is_empty: bool) -> None:
        self._bytes, self._places, self._is_empty = most_bytes, places, is_empty

    def is_left(self) -> bool:
        """Tell whether anything fits."""
        return self._places > 0 and (self._bytes > 0 or self._is_empty)

    def takes(self, size: int) -> bool:
        """Take a content of a size, where it fits."""
        fits = self.is_left() and (size <= self._bytes or self._is_empty)
        if fits:
            self._bytes, self._places, self._is_empty = self._bytes - size, self._places - 1, False
        return fits


def _parcels(
    outbox: Outbox | None, known: Knowledge, who: Who, level_of: Callable[[str], str], room: _Room
) -> tuple[tuple[Fresh, ...], tuple[tuple[str, int], ...]]:
    """Return the parcels that go now, and how many samples of each level a later round takes."""
    sent = {} if outbox is None else outbox.sent()
    sending = [] if outbox is None else outbox.sending()
    fresh: list[Fresh] = []
    waiting: list[tuple[str, int]] = []
    for level in (FEATURES, IMAGES):
        missing = {each.sample: each for each in parcels.missing(known.held, sent, level_of, level)}
        kept = _kept(sending, missing, level, who.edition)
        going = [each for each in kept if room.takes(each[1])]
        left = sum(len(each[2].samples) for each in kept if each not in going)
        for parcel in parcels.packed(missing.values(), level, who.edition, _view_bytes(known)):
            made = _whole(parcel, known, who.device) if room.is_left() else None
            if made is not None and room.takes(made[1]):
                going.append(made)
            elif made is not None or not room.is_left():
                left += len(parcel.samples)
        fresh += going
        waiting += [(level, left)] if left else []
    return tuple(fresh), tuple(waiting)


def _kept(sending: list[Sending], missing: dict[int, Held], level: str, edition: int) -> list[Fresh]:
    """Return the ready parcels of a level that are still right; `missing` loses what is on its way."""
    kept = []
    for each in (one for one in sending if one.parcel.level == level):
        same = [s for s, label in each.parcel.samples if s in missing and missing[s].label == label]
        is_right = each.parcel.edition == edition and len(same) == len(each.parcel.samples)
        if each.state != COMMITTING and is_right:
            kept.append((each.id, each.size, each.parcel))
        if each.state == COMMITTING or is_right:
            for sample in same:
                del missing[sample]
    return kept


def _view_bytes(known: Knowledge) -> int:
    return known.space.size * np.dtype(known.space.dtype).itemsize


def _whole(parcel: Parcel, known: Knowledge, device: str) -> Fresh | None:
    """Return a parcel with id and size, without samples that cannot be read; None when none can."""
    found = _found(parcel, known)
    parcel = parcel._replace(samples=tuple(pair for pair in parcel.samples if pair[0] in found))
    made = _message(parcel, known, device, found) if parcel.samples else None
    return None if made is None else (content_id(made), len(canonical(made)), parcel)


def _found(parcel: Parcel, known: Knowledge) -> dict[int, Any]:
    """Return features or pictures of the samples of a parcel, those that are whole."""
    samples = [sample for sample, _ in parcel.samples]
    if parcel.level == FEATURES:
        return known.features(samples)
    found = {sample: _picture(sample, known) for sample in samples}
    return {sample: data for sample, data in found.items() if data}


def _picture(sample: int, known: Knowledge) -> bytes:
    """Return a kept picture as it leaves; empty when it is not there, or cannot be read."""
    try:
        data = known.picture(sample)
        return b"" if data is None else bare(data, f"the picture of sample {sample}")
    except (ImageError, StoreDamagedError) as error:
        logger.warning("%s; it is not sent", error)
        return b""


def _message(parcel: Parcel, known: Knowledge, device: str, found: dict[int, Any]) -> Message | None:
    if parcel.level == FEATURES:
        return parcels.features(device, known.space.id, parcel, found)
    return parcels.images(device, parcel, found)
