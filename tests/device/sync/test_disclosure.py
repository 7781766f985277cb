"""What of the statistics may leave: enough samples mixed, nothing of private classes, no wrong length."""

import numpy as np
import pytest

from edge_cl.config import LEVELS
from edge_cl.device.sync.disclosure import (
    ENOUGH_TOLD,
    PRIVATE,
    TAKEN_BACK,
    TOLD,
    TOO_FEW,
    UNCHANGED,
    WAITS,
    judged,
    level_of,
    shown,
    telling,
)
from edge_cl.learning import increment, named
from edge_cl.learning.base import Base
from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.named import Named, on
from edge_cl.learning.statistics import Statistics

SIZE, VIEWS = 48, 2
STATISTICS = level_of({}, "statistics", "images", LEVELS)


def rows(label: str, count: int, seed: int = 0) -> np.ndarray:
    """Embeddings (n, V, D) of a class."""
    rng = np.random.default_rng((seed, *label.encode()))
    values = rng.normal(0, 40, (1, 1, SIZE)) + rng.normal(0, 30, (count, VIEWS, SIZE))
    return embed(np.clip(np.rint(values), -128, 127).astype(np.int8), 0)


def taught(**counts: int) -> tuple[Named, dict[str, np.ndarray]]:
    """Statistics of so many samples of each class, and the samples."""
    base, live = Base(SIZE), {label: rows(label, count) for label, count in counts.items()}
    for number, found in enumerate(live.values()):
        base.add_class()
        for each in found:
            base.update(each, number)
    return Named(tuple(counts), base.statistics), live


def words(own: Named, told: Named, rule=STATISTICS, minimum: int = 3) -> dict[str, str]:
    return {each.label: each.word for each in judged(own, told, rule, minimum)}


def told_after(own: Named, told: Named, rule=STATISTICS, live=None, minimum: int = 3) -> Named:
    """What the host knows after statistics of `own` came."""
    verdicts = judged(own, told, rule, minimum)
    target = shown(own, told, verdicts, lambda: live or {}, rule("face") == "never")
    found = telling(target, told, verdicts, minimum)
    if found is None:
        return told
    assert found.fault == ""
    return named.grown(told, found.labels, found.more)


NOTHING = named.nothing(SIZE)
COARSE = 0.2  # untold where every direction goes, rounded to four bits


def test_a_class_is_told_once_it_hides_its_samples():
    own, _ = taught(mug=3, fork=2)
    assert words(own, NOTHING) == {"mug": TOLD, "fork": TOO_FEW}
    assert words(own, NOTHING, minimum=1) == {"mug": TOLD, "fork": TOLD}
    assert words(own, NOTHING, minimum=4) == {"mug": TOO_FEW, "fork": TOO_FEW}


def test_what_was_told_waits_until_enough_have_joined():
    before, _ = taught(mug=5)
    told = told_after(before, NOTHING)
    for count, word in ((5, UNCHANGED), (6, WAITS), (7, WAITS), (8, TOLD), (4, TOLD), (2, TAKEN_BACK)):
        assert words(taught(mug=count)[0], told) == {"mug": word}, count
    assert words(named.nothing(SIZE), told) == {"mug": TAKEN_BACK}


def test_levels_decide_by_class_whatever_the_spelling_and_never_above_the_hosts():
    rule = level_of({"MUG": "never", "fork": "images"}, "features", "features", LEVELS)
    assert [rule(label) for label in ("mug", "fork", "lamp")] == ["never", "features", "features"]
    assert words(taught(mug=9, fork=1, lamp=1)[0], NOTHING, rule) == {
        "mug": PRIVATE,
        "fork": TOLD,  # its samples leave anyhow
        "lamp": TOLD,
    }


def test_everything_is_told_exactly_where_nothing_is_hidden():
    own, live = taught(mug=6, fork=4)
    told = told_after(own, NOTHING, live=live)
    assert told.statistics.counts.tolist() == own.statistics.counts.tolist()
    assert np.array_equal(told.statistics.sums, own.statistics.sums)
    assert increment.untold(own.statistics, told.statistics) < COARSE


def with_secret(seed: int) -> tuple[Named, dict[str, np.ndarray]]:
    """The same mugs and forks, beside a private class that depends on the seed."""
    base, live = Base(SIZE), {"mug": rows("mug", 6), "fork": rows("fork", 5), "face": rows("face", 4, seed)}
    for number, found in enumerate(live.values()):
        base.add_class()
        for each in found:
            base.update(each, number)
    return Named(tuple(live), base.statistics), live


@pytest.mark.parametrize("level", ["never", "statistics"])
@pytest.mark.parametrize("is_in_memory", [True, False])
def test_what_leaves_says_nothing_of_a_hidden_class(level, is_in_memory):
    """Another private class leads to the very same bytes: whoever reads them learns nothing of it."""
    rule = level_of({"face": level}, "statistics", "images", LEVELS)
    found = []
    for seed in (1, 2):
        own, live = with_secret(seed)
        if not is_in_memory:
            live = {**live, "face": live["face"][:2]}  # the others have left the memory
        minimum = 5 if level == "statistics" else 3  # four faces are too few then
        verdicts = judged(own, NOTHING, rule, minimum)
        target = shown(own, NOTHING, verdicts, lambda live=live: live, True)
        found.append(telling(target, NOTHING, verdicts, minimum))
    first, second = found
    assert first.labels == second.labels == ("mug", "fork")
    for mine, theirs in zip(first.more, second.more, strict=True):
        assert np.array_equal(mine, theirs)


def test_a_class_that_becomes_private_is_taken_back_with_its_spread():
    own, live = taught(mug=6, face=6)
    told = told_after(own, NOTHING)
    rule = level_of({"face": "never"}, "statistics", "images", LEVELS)
    after = told_after(own, told, rule, live)
    alone, _ = taught(mug=6)
    assert after.statistics.counts.tolist() == [72, 0]
    assert not after.statistics.sums[1].any()
    gone = increment.untold(on(alone, after.labels), after.statistics)
    assert gone < COARSE


def test_the_spread_of_a_forgotten_private_class_stays_here():
    own, live = with_secret(1)
    forgotten = named.without(own, ["face"])  # as after its samples had left the memory
    assert forgotten.statistics.residue
    live.pop("face")
    rule = level_of({"face": "never"}, "statistics", "images", LEVELS)
    told = told_after(forgotten, NOTHING, rule, live)
    assert told.statistics.residue == 0
    alone, _ = taught(mug=6, fork=5)
    assert increment.untold(on(alone, told.labels), told.statistics) < COARSE


def length(told: Named) -> float:
    """Mean squared length of the embeddings that were told."""
    weight = told.statistics.counts.sum() + told.statistics.residue
    return float(np.trace(told.statistics.moment)) / (UNIT * UNIT * weight)


@pytest.mark.parametrize("second", [{"mug": 7}, {"mug": 12}, {"mug": 5, "fork": 2}, {"mug": 4, "fork": 9}])
def test_what_was_told_keeps_the_length_that_embeddings_have(second):
    told = told_after(taught(mug=5)[0], NOTHING)
    own, live = taught(**second)
    told = told_after(own, told, live=live)
    assert length(told) == pytest.approx(1, abs=0.02)


def test_few_that_leave_show_no_direction_of_the_spread():
    own, _ = taught(mug=9)
    told = told_after(own, NOTHING)
    fewer, _ = taught(mug=8)
    verdicts = judged(fewer, told, STATISTICS, 3)
    found = telling(shown(fewer, told, verdicts, dict), told, verdicts, 3)
    assert len(found.more.factors) == 0
    assert len(set(found.more.spread.tolist())) == 1


def test_nothing_is_said_while_some_wait():
    told = told_after(taught(mug=9)[0], NOTHING)
    assert told_after(taught(mug=10)[0], told) is told


def test_the_rest_of_the_spread_is_told_bit_by_bit_until_it_is_little():
    own, _ = taught(mug=9, fork=7)
    told = told_after(own, NOTHING)
    untold = [increment.untold(own.statistics, told.statistics)]
    while (after := told_after(own, told)) is not told:
        told = after
        untold.append(increment.untold(own.statistics, told.statistics))
    assert untold[-1] <= ENOUGH_TOLD < untold[-2]
    assert untold == sorted(untold, reverse=True)
    assert len(untold) < SIZE


def test_more_classes_than_fit_into_one_message_take_two(monkeypatch):
    monkeypatch.setattr("edge_cl.device.sync.disclosure.MAX_CLASSES", 2)
    own, _ = taught(mug=3, fork=3, lamp=3)
    told = told_after(own, NOTHING)
    assert sorted(told.statistics.counts.tolist()) in ([36, 36], [0, 36, 36])
    told = told_after(own, told)
    assert on(told, own.labels).counts.tolist() == [36, 36, 36]
    assert np.array_equal(on(told, own.labels).sums, own.statistics.sums)
    found = Statistics(*on(told, own.labels))
    assert increment.untold(own.statistics, found) < COARSE
