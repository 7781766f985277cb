"""Decides what of the statistics may leave: pure, from what was taught here and what was told so far.

Sums over few samples show them, and so does the growth of a sum by few. So a class is told only once it has a
least number of samples, and again only once that many have joined it; the spread is told only together with
that of as many. What is taken back is told at once, although that shows what it was. A private class is in
nothing that leaves, not even in the spread, which is pooled over all classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.config import NEVER
from edge_cl.learning import increment
from edge_cl.learning.base import SAMPLE_WEIGHT, Statistics
from edge_cl.learning.embedding import UNIT
from edge_cl.learning.increment import Increment
from edge_cl.learning.named import Named, on
from edge_cl.sample import label_key
from edge_cl.wire.messages import MAX_CLASSES, STATISTICS

# What becomes of a class in the next statistics.
TOLD, UNCHANGED, WAITS, TOO_FEW, PRIVATE, TAKEN_BACK = (
    "told",
    "unchanged",
    "waits",
    "too few",
    "private",
    "taken back",
)
HIDDEN = (TOO_FEW, PRIVATE, TAKEN_BACK)  # the host has nothing of it afterwards
SCATTER_BYTES = 22 << 10  # for the spread, when there is something new (measured: benchmarks/sync.py)
ENOUGH_TOLD = 0.05  # share of the spread that may stay untold for good

LevelOf = Callable[[str], str]
Rows = NDArray[np.float64]


class Verdict(NamedTuple):
    """What becomes of a class in the next statistics, and why.

    Attributes:
        label: its name.
        level: that applies to it.
        samples: it has here.
        told: of these the host was told of before; more than `samples` when some were forgotten.
        word: TOLD, UNCHANGED, WAITS, TOO_FEW, PRIVATE or TAKEN_BACK.
    """

    label: str
    level: str
    samples: int
    told: int
    word: str


class Telling(NamedTuple):
    """Statistics that are ready to be told.

    Attributes:
        labels: of the classes that change, C.
        more: their increment.
        untold: share of the spread that stays untold after it.
    """

    labels: tuple[str, ...]
    more: Increment
    untold: float


def judged(own: Named, told: Named, level_of: LevelOf, minimum: int) -> list[Verdict]:
    """Return what becomes of each class that was taught here or told before, in the order of `own`."""
    labels = increment.union(own.labels, told.labels)
    mine, theirs = on(own, labels), on(told, labels)
    found = []
    for number, label in enumerate(labels):
        samples, before = (max(0, int(each.counts[number])) // SAMPLE_WEIGHT for each in (mine, theirs))
        is_same = mine.counts[number] == theirs.counts[number]
        is_same = bool(is_same and (mine.sums[number] == theirs.sums[number]).all())
        level = level_of(label)
        word = _word(samples, before, is_same, level, minimum)
        if samples or before:
            found.append(Verdict(label, level, samples, before, word))
    return found


def _word(samples: int, before: int, is_same: bool, level: str, minimum: int) -> str:
    least = minimum if level == STATISTICS else 1  # at the other levels the samples themselves leave
    if level == NEVER or samples < least:
        hidden = PRIVATE if level == NEVER else TOO_FEW
        return TAKEN_BACK if before else hidden
    if is_same:
        return UNCHANGED
    return WAITS if 0 < samples - before < least else TOLD


def shown(
    own: Named,
    told: Named,
    verdicts: Sequence[Verdict],
    live: Callable[[], Mapping[str, Rows]],
    has_secrets: bool = False,
) -> Named:
    """Return the statistics that the host may know now, of the classes of `own` and then of `told`.

    Args:
        own: taught here.
        told: before.
        verdicts: of `judged`.
        live: returns {label: (n, V, D) embeddings} of the samples in memory that count in `own`.
        has_secrets: some classes are private, also forgotten ones, whose spread is in the residue.
    """
    labels = increment.union(own.labels, told.labels)
    mine, theirs, words = on(own, labels), on(told, labels), {each.label: each.word for each in verdicts}
    counts, sums = np.zeros_like(mine.counts), np.zeros_like(mine.sums)
    for number, label in enumerate(labels):
        word = words.get(label, TOO_FEW)
        if word not in HIDDEN:
            source = theirs if word == WAITS else mine
            counts[number], sums[number] = source.counts[number], source.sums[number]
    is_whole = np.array_equal(counts, mine.counts) and np.array_equal(sums, mine.sums)
    guards_residue = has_secrets and mine.residue != 0
    if is_whole and not guards_residue:
        return Named(labels, mine)
    return Named(labels, _with_scatter(mine, counts, sums, labels, words, live(), guards_residue))


def _with_scatter(
    mine: Statistics,
    counts: NDArray[np.int64],
    sums: Rows,
    labels: tuple[str, ...],
    words: Mapping[str, str],
    live: Mapping[str, Rows],
    guards_residue: bool,
) -> Statistics:
    """Return counts and sums that may be told, with a spread that has nothing of who is hidden.

    The spread of hidden classes is taken out exactly while all their samples are in memory; once some have
    left, the spread is made of the samples in memory of the other classes alone. It is brought to the trace
    that counts and sums ask for: every embedding has length UNIT.
    """
    hidden = [label for label in labels if words.get(label, TOO_FEW) in HIDDEN]
    is_exact = not guards_residue and all(
        int(mine.counts[labels.index(label)]) == SAMPLE_WEIGHT * len(live.get(label, ())) for label in hidden
    )
    residue = mine.residue if is_exact else 0
    if is_exact:
        pool = mine.moment - increment.between(mine.counts, mine.sums)
        for label in hidden:
            pool -= _scatter_of(live.get(label))
        extra = float(np.trace(mine.moment)) - UNIT * UNIT * int(mine.counts.sum())  # of the residue
    else:
        pool, extra = np.zeros_like(mine.moment), 0.0
        for number, label in enumerate(labels):
            if counts[number] > 0 and len(live.get(label, ())):
                seen = _scatter_of(live[label])
                pool += seen * (_trace(mine.counts[number], mine.sums[number]) / max(np.trace(seen), 1.0))
    wanted = sum(_trace(count, total) for count, total in zip(counts, sums, strict=True)) + extra
    have = float(np.trace(pool))
    pool = np.rint(pool * (wanted / have)) if have > 0 and wanted > 0 else np.zeros_like(pool)
    return Statistics(counts, sums, pool + increment.between(counts, sums), residue)


def _trace(count: int, total: Rows) -> float:
    """Return the trace of the scatter of embeddings of length UNIT, by their weight and sum."""
    return UNIT * UNIT * float(count) - float(total @ total) / float(count) if count > 0 else 0.0


def _scatter_of(rows: Rows | None) -> Rows:
    """Return the (D, D) scatter of (n, V, D) embeddings about their mean, each sample of SAMPLE_WEIGHT."""
    if rows is None or not len(rows):
        return np.zeros((1, 1))
    weight, flat = SAMPLE_WEIGHT // rows.shape[1], rows.reshape(-1, rows.shape[-1])
    total = weight * flat.sum(axis=0)
    return weight * (flat.T @ flat) - np.outer(total, total) / (weight * len(flat))


def telling(target: Named, told: Named, verdicts: Sequence[Verdict], minimum: int) -> Telling | None:
    """Return what brings the host from what was told to what it may know; None when that is near enough.

    `target` is of `shown`, its classes include those of `told`.
    """
    now, before = target.statistics, on(told, target.labels)
    come = sum(abs(each.samples - each.told) for each in verdicts if each.word == TOLD)
    gone = sum(each.told for each in verdicts if each.word == TAKEN_BACK)
    is_open = any(each.word == TOLD and each.level != STATISTICS for each in verdicts)
    changed = (now.counts != before.counts) | (now.sums != before.sums).any(axis=1)
    if changed.sum() > MAX_CLASSES:  # the rest waits for the next statistics
        changed &= np.cumsum(changed) <= MAX_CLASSES
        now = _only(now, before, changed)
    if come + gone >= minimum or is_open:
        rank, is_flat = increment.affordable_rank(SCATTER_BYTES, now.sums.shape[1]), False
    elif changed.any() or now.residue != before.residue:
        rank, is_flat = 0, True  # too few: of the spread only its trace, which keeps to the counts
    elif any(each.word == WAITS for each in verdicts) or increment.untold(now, before) <= ENOUGH_TOLD:
        return None
    else:
        rank, is_flat = 1, True
    more = increment.compress(now, before, rank, is_flat)
    after = increment.advance(before, more)
    labels = tuple(label for label, is_new in zip(target.labels, changed, strict=True) if is_new)
    kept = more._replace(counts=more.counts[changed], sums=more.sums[changed])
    return Telling(labels, kept, min(1.0, increment.untold(now, after)))


def _only(now: Statistics, before: Statistics, changed: NDArray[np.bool_]) -> Statistics:
    """Return statistics in which only some classes have changed; the scatter stays that of `now`."""
    counts = np.where(changed, now.counts, before.counts)
    sums = np.where(changed[:, None], now.sums, before.sums)
    scatter = now.moment - increment.between(now.counts, now.sums)
    return Statistics(counts, sums, scatter + increment.between(counts, sums), now.residue)


def level_of(levels: Mapping[str, str], default: str, most: str, order: Sequence[str]) -> LevelOf:
    """Return the rule that gives a class its level: its own or the device's, but never above the host's.

    Args:
        levels: {class: level}, whatever the spelling.
        default: of classes without one.
        most: that the host wants.
        order: of the levels, rising.
    """
    own = {label_key(label): level for label, level in levels.items()}

    def found(label: str) -> str:
        return min(own.get(label_key(label), default), most, key=order.index)

    return found
