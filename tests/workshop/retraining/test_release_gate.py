"""The gate's answers, case by case: what is accepted, what is rejected, and in which words."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from edge_cl.evaluation.pairs import is_fall
from host_trainer.retraining.gate import HELD_OUT, Cost, Evidence, Policy, judge, verdict_of

OLD = ("can", "mug")
NEW = (*OLD, "jar")
FAIR = Cost(1_000_000, 10.0)


def evidence(
    counts: dict[str, tuple[int, int, int, int]], source: str = HELD_OUT, has_incumbent: bool = True
) -> Evidence:
    """Return answers by class: (right both times, lost, won, wrong both times)."""
    truth: list[str] = []
    before: list[str] = []
    after: list[str] = []
    for label, (both, lost, won, neither) in counts.items():
        truth += [label] * (both + lost + won + neither)
        before += [label] * (both + lost) + ["other"] * (won + neither)
        after += [label] * both + ["other"] * lost + [label] * won + ["other"] * neither
    return Evidence(source, tuple(truth), tuple(before) if has_incumbent else None, tuple(after))


class Case(NamedTuple):
    """What both answered, and the reasons that must be given; none: accepted."""

    evidence: Sequence[Evidence]
    reasons: tuple[str, ...] = ()
    new: tuple[str, ...] = NEW
    before: Cost | None = FAIR
    after: Cost = FAIR


CASES = {
    "as before, and a class more": Case(
        [evidence({"can": (90, 0, 0, 10), "mug": (80, 2, 2, 16), "jar": (0, 0, 18, 2)})]
    ),
    "better": Case([evidence({"can": (50, 0, 40, 10), "mug": (80, 0, 5, 15)})]),
    "a fall that is let pass": Case([evidence({"can": (95, 4, 0, 1), "mug": (80, 0, 4, 16)})]),
    "a class falls": Case(
        [evidence({"can": (60, 30, 2, 8), "mug": (60, 0, 39, 1)})],
        ("class can falls from 90.0% (90 of 100) to 62.0% (62 of 100)",),
    ),
    "few pictures, and luck": Case([evidence({"can": (2, 2, 0, 0), "mug": (40, 0, 3, 0)})]),
    "few pictures, all lost": Case(
        [evidence({"can": (0, 3, 0, 1), "mug": (40, 0, 3, 0)})],
        ("class can is lost: none of 4 unseen pictures is right any more",),
    ),
    "one picture says nothing": Case([evidence({"can": (0, 1, 0, 0), "mug": (40, 0, 3, 0)})]),
    "every class falls a little, all together too much": Case(
        [evidence({"can": (150, 12, 0, 38), "mug": (150, 12, 0, 38)})],
        ("all old classes together fall from 81.0% (324 of 400) to 75.0% (300 of 400)",),
    ),
    "an old class is gone": Case(
        [evidence({"can": (90, 0, 0, 10)})], ("class mug is known no more",), ("can", "jar")
    ),
    "a new class that is hardly ever right": Case(
        [evidence({"can": (9, 0, 0, 1), "jar": (0, 0, 2, 28)})],
        ("new class jar is right on 6.7% (2 of 30), less than 50%",),
    ),
    "a new class by its device's samples": Case(
        [evidence({"can": (9, 0, 0, 1)}), evidence({"jar": (0, 0, 0, 12)}, "device-1")],
        ("new class jar is right on 0.0% (0 of 12), less than 50%",),
    ),
    "a new class with two pictures": Case([evidence({"can": (9, 0, 0, 1), "jar": (0, 0, 0, 2)})]),
    "a device falls on its own samples": Case(
        [evidence({"can": (90, 0, 0, 10)}), evidence({"can": (10, 9, 0, 1)}, "device-1")],
        ("the held-back samples of device-1 fall from 95.0% (19 of 20) to 50.0% (10 of 20)",),
    ),
    "too many other answers": Case(
        [evidence({"can": (30, 25, 25, 20), "mug": (30, 20, 20, 30)})],
        ("22.5% (45 of 200) of the answers to old classes are others for nothing, more than 20%",),
    ),
    "too large": Case(
        [evidence({"can": (9, 0, 0, 1)})],
        ("the bundle has 1300000 bytes, more than 1250000",),
        after=Cost(1_300_000, 10.0),
    ),
    "too slow": Case(
        [evidence({"can": (9, 0, 0, 1)})],
        ("a picture takes 16.0 ms, more than 1.5 times the incumbent's 10.0",),
        after=Cost(1_000_000, 16.0),
    ),
    "large, and so was the one before": Case(
        [evidence({"can": (9, 0, 0, 1)})], before=Cost(4_000_000), after=Cost(4_100_000)
    ),
    "a large first release": Case(
        [evidence({"can": (0, 0, 30, 10)}, has_incumbent=False)], before=None, after=Cost(4_000_000)
    ),
    "a first release": Case([evidence({"can": (0, 0, 30, 10)}, has_incumbent=False)], before=None),
    "nothing to judge by": Case([]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gate_answers(case: Case) -> None:
    old = OLD if case.before else ()
    found = judge(case.evidence, old, case.new, case.before, case.after, Policy())
    assert found.reasons == case.reasons
    assert found.accepted == (not case.reasons)
    assert verdict_of(found.to_dict()) == found


def test_what_nobody_can_judge_is_said() -> None:
    held_out, device = evidence({"can": (9, 0, 0, 1)}), evidence({"jar": (0, 0, 9, 1)}, "device-1")
    assert judge([held_out, device], OLD, NEW, FAIR, FAIR, Policy()).notes == (
        "class mug is not in the data that no device supplied: it is judged by nobody",
        "class jar is not in the data that no device supplied: it is judged by its devices' held-back samples"
        " alone",
    )
    assert "--held-out" in judge([], OLD, NEW, FAIR, FAIR, Policy()).notes[0]


@pytest.mark.parametrize(
    ("lost", "won", "count", "is_one"),
    [(0, 0, 0, False), (1, 0, 1, False), (5, 0, 5, False), (6, 0, 6, True), (10, 0, 100, False),
     (11, 0, 100, True), (30, 20, 100, False), (60, 20, 400, True)],
)  # fmt: skip
def test_a_fall_is_one_only_when_it_is_not_luck(lost: int, won: int, count: int, is_one: bool) -> None:
    assert is_fall(lost, won, count, 0.05, 0.02) is is_one


def test_two_spellings_of_a_class_are_one() -> None:
    found = judge(
        [Evidence(HELD_OUT, ("Can",), ("can",), ("CAN",))], ("cAN",), ("Can",), FAIR, FAIR, Policy()
    )
    assert found.accepted and found.all_old.after == 1 and found.churn == 0.0
