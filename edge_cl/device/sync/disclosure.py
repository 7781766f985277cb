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
from edge_cl.learning.embedding import UNIT
from edge_cl.learning.increment import Increment
from edge_cl.learning.named import Named, on
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics
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
        fault: why what is told then could not be true, for all that was rounded; "" when it could.
    """

    labels: tuple[str, ...]
    more: Increment
    untold: float
    fault: str = ""


def judged(own: Named, told: Named, level_of: LevelOf, minimum: int) -> list[Verdict]:
    """Return what becomes of each class that was taught here or told before, in the order of `own`."""
    labels = increment.union(own.labels, told.labels)
    mine, theirs = on(own, labels), on(told, labels)
    found, room = [], MAX_CLASSES
    for number, label in enumerate(labels):
        samples, before = (max(0, int(each.counts[number])) // SAMPLE_WEIGHT for each in (mine, theirs))
        is_same = mine.counts[number] == theirs.counts[number]
        is_same = bool(is_same and (mine.sums[number] == theirs.sums[number]).all())
        level = level_of(label)
        word = _word(samples, before, is_same, level, minimum)
        if word in (TOLD, TAKEN_BACK):
            room -= 1
            word = word if room >= 0 else WAITS  # for the next statistics
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
    target = Statistics(counts, sums, np.zeros((0, 0)), 0)
    return Named(labels, _with_scatter(mine, target, labels, words, live(), guards_residue))


def _with_scatter(
    mine: Statistics,
    target: Statistics,
    labels: tuple[str, ...],
    words: Mapping[str, str],
    live: Mapping[str, Rows],
    guards_residue: bool,
) -> Statistics:
    """Return a target's counts and sums with a spread that has nothing of who is hidden.

    The samples of hidden classes are taken out exactly while all of them are in memory: what is left is what
    would be here without them, bit for bit. Once some have left, or a private class was forgotten, the spread
    is made of the samples in memory of the other classes alone. Where it is not that of counts and sums, it
    is brought to the trace that they ask for: every embedding has length UNIT.
    """
    is_hidden = np.array([words.get(label, TOO_FEW) in HIDDEN for label in labels], bool)
    hidden = [label for label, is_one in zip(labels, is_hidden, strict=True) if is_one]
    samples = [len(live.get(label, ())) for label in hidden]
    is_exact = not guards_residue and mine.counts[is_hidden].tolist() == [SAMPLE_WEIGHT * n for n in samples]
    counts, sums = mine.counts[~is_hidden], mine.sums[~is_hidden]
    extra = 0.0  # trace of the residue
    if is_exact:
        rest = mine.moment - sum(_moment_of(live[label]) for label in hidden if len(live.get(label, ())))
        pool = rest - increment.between(counts, sums)
        extra = float(np.trace(rest)) - UNIT * UNIT * int(counts.sum())
    else:
        open_ones = [label for label, is_one in zip(labels, is_hidden, strict=True) if not is_one]
        pool = _estimated(counts, sums, [live.get(label) for label in open_ones])
    if not is_exact or not np.array_equal(target.counts[~is_hidden], counts):
        found = zip(target.counts, target.sums, strict=True)
        wanted, have = sum(_trace(count, total) for count, total in found) + extra, float(np.trace(pool))
        pool = np.rint(pool * (wanted / have)) if have > 0 and wanted > 0 else np.zeros_like(pool)
    moment = pool + increment.between(target.counts, target.sums)
    return target._replace(moment=moment, residue=mine.residue if is_exact else 0)


def _estimated(counts: NDArray[np.int64], sums: Rows, live: Sequence[Rows | None]) -> Rows:
    """Return the (D, D) scatter of classes as that of their samples in memory suggests."""
    pool = np.zeros((sums.shape[1],) * 2)
    for count, total, rows in zip(counts, sums, live, strict=True):
        if count > 0 and rows is not None and len(rows):
            weight = SAMPLE_WEIGHT * len(rows)
            mean = (SAMPLE_WEIGHT // rows.shape[1]) * rows.sum(axis=(0, 1)) / weight
            seen = _moment_of(rows) - weight * np.outer(mean, mean)
            pool += seen * (_trace(count, total) / max(float(np.trace(seen)), 1.0))
    return pool


def _trace(count: int, total: Rows) -> float:
    """Return the trace of the scatter of embeddings of length UNIT, by their weight and sum."""
    return UNIT * UNIT * float(count) - float(total @ total) / float(count) if count > 0 else 0.0


def _moment_of(rows: Rows) -> Rows:
    """Return the (D, D) moment of (n, V, D) embeddings, each sample of SAMPLE_WEIGHT; whole."""
    flat = rows.reshape(-1, rows.shape[-1])
    return (SAMPLE_WEIGHT // rows.shape[1]) * (flat.T @ flat)


def telling(target: Named, told: Named, verdicts: Sequence[Verdict], minimum: int) -> Telling | None:
    """Return what brings the host from what was told to what it may know; None when that is near enough.

    `target` is of `shown`, its classes include those of `told`.
    """
    now, before = target.statistics, on(told, target.labels)
    come = sum(abs(each.samples - each.told) for each in verdicts if each.word == TOLD)
    gone = sum(each.told for each in verdicts if each.word == TAKEN_BACK)
    new = [each for each in verdicts if each.word == TOLD]
    is_open = any(each.level != STATISTICS for each in new)
    rank, factor, is_flat = 1, increment.FACTOR, False
    is_first = not (before.counts.any() or before.residue)
    changed = (now.counts != before.counts) | (now.sums != before.sums).any(axis=1)
    if come + gone >= minimum or is_open or (is_first and now.counts.any()):
        classes = sum(not each.told for each in new)
        all_open = bool(new) and all(each.level != STATISTICS for each in new)
        rank, factor = increment.fineness(now.sums.shape[1], come + gone, classes, all_open)
    elif changed.any() or now.residue != before.residue:
        rank, is_flat = 0, True  # too few: of the spread only its trace, which keeps to the counts
    elif any(each.word == WAITS for each in verdicts) or increment.untold(now, before) <= ENOUGH_TOLD:
        return None
    else:
        factor, is_flat = increment.QUIET_FACTOR, True
    more = increment.compress(now, before, rank, is_flat, factor)
    after = increment.advance(before, more)
    labels = tuple(label for label, is_new in zip(target.labels, changed, strict=True) if is_new)
    kept = more._replace(counts=more.counts[changed], sums=more.sums[changed])
    return Telling(labels, kept, min(1.0, increment.untold(now, after)), increment.fault(after))


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
