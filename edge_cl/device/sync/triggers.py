"""Decides when a round is due: for the time, new samples, a fall of the accuracy, or somebody at a button."""

from typing import NamedTuple

from edge_cl.config import SyncSettings
from edge_cl.device.sync.outbox import Standing

PER_MILLE = 1000
FUTURE_S = 7 * 86_400  # a due time further ahead than any host asks for: the clock was set back meanwhile


class Look(NamedTuple):
    """How a learner stands: samples taught, and its accuracy before learning, per mille, -1 for unknown."""

    samples: int = 0
    accuracy: int = -1


def reason(settings: SyncSettings, standing: Standing, look: Look, now: int, is_pressed: bool) -> str:
    """Return why a round is due now, in a word or two; "" while none is.

    A button does not wait. All else waits as long as the host asked for, or as the last failure cost.

    Args:
        settings: of [sync].
        standing: after the last round.
        look: at the learner, now.
        now: Unix seconds.
        is_pressed: somebody wants it now.
    """
    if is_pressed:
        return "button"
    if now < standing.due < now + FUTURE_S:
        return ""
    if standing.attempt:
        return "again"
    if not standing.synced_at or not 0 <= now - standing.synced_at < settings.interval_s:
        return "time"
    if settings.samples and look.samples - standing.samples >= settings.samples:
        return "new samples"
    fall = standing.accuracy - look.accuracy
    if settings.fall and min(look.accuracy, standing.accuracy) >= 0 and fall >= settings.fall * PER_MILLE:
        return "accuracy fell"
    return ""
