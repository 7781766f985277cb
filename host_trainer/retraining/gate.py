"""Decides whether a candidate may take the incumbent's place: accept, or reject with reasons for a person.

Both answered the same samples, so what counts are those that one got right and the other did not (McNemar
1947). A fall beyond what the policy lets pass is a reason only when it is not luck: a sign test on the pairs
beyond it, so that a class of four pictures is not judged like one of four hundred.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from edge_cl.evaluation.pairs import at_least, is_fall
from edge_cl.sample import label_key

HELD_OUT = ""  # the source of samples that no device supplied
LEAST_LOST = 3  # samples of a class, all answered wrong, by which it is lost


@dataclass(frozen=True)
class Policy:
    """What is let pass.

    Attributes:
        class_fall: of an old class's accuracy, as a fraction.
        fall: of the accuracy on all old classes, and on a device's own samples.
        luck: probability by which a fall that is none may be called one.
        new: accuracy that a new class reaches.
        churn: share of answers to samples of old classes that may be others without being right.
        churn_samples: below so many, churn is no reason.
        size_bytes: of a whole bundle, or ...
        growth: ... as a multiple of the incumbent's, where that is more.
        latency: of a picture, as a multiple of the incumbent's.
    """

    class_fall: float = 0.05
    fall: float = 0.01
    luck: float = 0.02
    new: float = 0.5
    churn: float = 0.2
    churn_samples: int = 30
    size_bytes: int = 1_200_000
    growth: float = 1.25
    latency: float = 1.5


class Evidence(NamedTuple):
    """What both answered to n samples; `before` is None where there is no incumbent.

    Attributes:
        source: HELD_OUT, or the device whose held-back samples these are.
        truth: (n,) their classes.
        before: (n,) the incumbent's answers.
        after: (n,) the candidate's.
    """

    source: str
    truth: tuple[str, ...]
    before: tuple[str, ...] | None
    after: tuple[str, ...]


class Cost(NamedTuple):
    """Bytes of the whole bundle; milliseconds of a picture, 0 where they are the incumbent's."""

    size_bytes: int
    latency_ms: float = 0.0


class Pairs(NamedTuple):
    """Of n samples: how many each got right, right only before, right only now, and answered otherwise."""

    samples: int
    before: int
    after: int
    lost: int
    won: int
    changed: int

    @property
    def accuracy(self) -> float | None:
        """The candidate's; None of no samples."""
        return self.after / self.samples if self.samples else None

    @property
    def accuracy_before(self) -> float | None:
        """The incumbent's; None of no samples."""
        return self.before / self.samples if self.samples else None


class Line(NamedTuple):
    """What was found of one class, on one source's samples."""

    source: str
    label: str
    is_new: bool
    pairs: Pairs


class Verdict(NamedTuple):
    """The gate's answer.

    Attributes:
        accepted: the candidate may be published.
        reasons: why not.
        notes: what could not be judged.
        lines: by source and class.
        all_old: old classes on data of nobody.
        churn: share of answers to old classes that changed, there; None of no samples.
    """

    accepted: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    lines: tuple[Line, ...]
    all_old: Pairs
    churn: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "accepted": self.accepted,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "classes": [{**line._asdict(), "pairs": line.pairs._asdict()} for line in self.lines],
            "all_old": self.all_old._asdict(),
            "churn": self.churn,
        }


def verdict_of(facts: dict[str, Any]) -> Verdict:
    """Return the verdict of `to_dict`."""
    lines = tuple(
        Line(each["source"], each["label"], each["is_new"], Pairs(**each["pairs"]))
        for each in facts["classes"]
    )
    reasons, notes = tuple(facts["reasons"]), tuple(facts["notes"])
    return Verdict(facts["accepted"], reasons, notes, lines, Pairs(**facts["all_old"]), facts["churn"])


def judge(
    evidence: Sequence[Evidence],
    old: Sequence[str],
    new: Sequence[str],
    before: Cost | None,
    after: Cost,
    policy: Policy,
) -> Verdict:
    """Hold a candidate against the incumbent.

    Args:
        evidence: of data that no device supplied, and of each device.
        old: classes of the incumbent.
        new: classes of the candidate.
        before, after: what each costs; `before` is None where there is no incumbent.
        policy: what is let pass.
    """
    known = {label_key(label) for label in old}
    lines = tuple(line for each in evidence for line in _lines(each, known))
    here = [line for line in lines if line.source == HELD_OUT]
    all_old = _sum(line.pairs for line in here if not line.is_new)
    churn = all_old.changed / all_old.samples if all_old.samples and before is not None else None
    reasons = [
        *_gone(old, new),
        *(_fallen(line, policy) for line in here if not line.is_new),
        _fell_together("all old classes together", all_old, policy),
        *(
            _fell_together(f"the held-back samples of {source}", _of_device(lines, source), policy)
            for source in dict.fromkeys(line.source for line in lines if line.source != HELD_OUT)
        ),
        *(_missed(label, lines, policy) for label in new if label_key(label) not in known),
        _churned(all_old, policy) if before is not None else "",
        *_costs(before, after, policy),
    ]
    found = tuple(reason for reason in reasons if reason)
    return Verdict(not found, found, tuple(_notes(here, lines, old, new)), lines, all_old, churn)


def policy_facts(policy: Policy) -> dict[str, Any]:
    """Return a policy as plain JSON values."""
    return asdict(policy)


def _lines(evidence: Evidence, known: set[str]) -> list[Line]:
    by_class: dict[str, list[int]] = {}
    for place, label in enumerate(evidence.truth):
        by_class.setdefault(label_key(label), []).append(place)
    return [
        Line(evidence.source, evidence.truth[places[0]], key not in known, _pairs(evidence, places))
        for key, places in sorted(by_class.items())
    ]


def _pairs(evidence: Evidence, places: Sequence[int]) -> Pairs:
    truth = [label_key(evidence.truth[i]) for i in places]
    after = [label_key(evidence.after[i]) for i in places]
    before = after if evidence.before is None else [label_key(evidence.before[i]) for i in places]
    right_before = [one == other for one, other in zip(before, truth, strict=True)]
    right_after = [one == other for one, other in zip(after, truth, strict=True)]
    return Pairs(
        len(places),
        sum(right_before),
        sum(right_after),
        sum(was and not now for was, now in zip(right_before, right_after, strict=True)),
        sum(now and not was for was, now in zip(right_before, right_after, strict=True)),
        sum(one != other for one, other in zip(before, after, strict=True)),
    )


def _sum(pairs: Iterable[Pairs]) -> Pairs:
    return Pairs(*(sum(values) for values in zip(Pairs(0, 0, 0, 0, 0, 0), *pairs, strict=True)))


def _of_device(lines: Iterable[Line], source: str) -> Pairs:
    return _sum(line.pairs for line in lines if line.source == source and not line.is_new)


def _gone(old: Sequence[str], new: Sequence[str]) -> list[str]:
    known = {label_key(label) for label in new}
    return [f"class {label} is known no more" for label in old if label_key(label) not in known]


def _fallen(line: Line, policy: Policy) -> str:
    pairs = line.pairs
    if pairs.samples >= LEAST_LOST and pairs.after == 0 and 2 * pairs.before > pairs.samples:
        return f"class {line.label} is lost: none of {pairs.samples} unseen pictures is right any more"
    if not is_fall(pairs.lost, pairs.won, pairs.samples, policy.class_fall, policy.luck):
        return ""
    return f"class {line.label} falls from {_share(pairs.before, pairs)} to {_share(pairs.after, pairs)}"


def _fell_together(what: str, pairs: Pairs, policy: Policy) -> str:
    if not is_fall(pairs.lost, pairs.won, pairs.samples, policy.fall, policy.luck):
        return ""
    return f"{what} fall from {_share(pairs.before, pairs)} to {_share(pairs.after, pairs)}"


def _missed(label: str, lines: Sequence[Line], policy: Policy) -> str:
    """Return why a new class is not good enough; its devices' samples speak where there are no others."""
    own = [line for line in lines if label_key(line.label) == label_key(label)]
    pairs = _sum(line.pairs for line in own if line.source == HELD_OUT) if own else Pairs(0, 0, 0, 0, 0, 0)
    pairs = pairs if pairs.samples else _sum(line.pairs for line in own)
    if (
        not pairs.samples
        or at_least(pairs.samples - pairs.after, pairs.samples, 1 - policy.new) > policy.luck
    ):
        return ""
    return f"new class {label} is right on {_share(pairs.after, pairs)}, less than {policy.new:.0%}"


def _churned(pairs: Pairs, policy: Policy) -> str:
    """Return why too many answers are others; those that are right now are welcome."""
    needless = pairs.changed - pairs.won
    if pairs.samples < policy.churn_samples or needless <= policy.churn * pairs.samples:
        return ""
    return (
        f"{_share(needless, pairs)} of the answers to old classes are others for nothing,"
        f" more than {policy.churn:.0%}"
    )


def _costs(before: Cost | None, after: Cost, policy: Policy) -> list[str]:
    reasons: list[str] = []
    if before is None:
        return reasons  # whoever chose the first backbone chose its cost
    most = max(policy.size_bytes, int(policy.growth * before.size_bytes))
    if after.size_bytes > most:
        reasons.append(f"the bundle has {after.size_bytes} bytes, more than {most}")
    if before.latency_ms and after.latency_ms > policy.latency * before.latency_ms:
        reasons.append(
            f"a picture takes {after.latency_ms:.1f} ms, more than {policy.latency:g} times the incumbent's"
            f" {before.latency_ms:.1f}"
        )
    return reasons


def _notes(
    here: Sequence[Line], lines: Sequence[Line], old: Sequence[str], new: Sequence[str]
) -> Iterable[str]:
    if not here:
        yield "no data that no device supplied: give --held-out DIR, or old classes are judged by nobody"
        return
    asked = {label_key(line.label) for line in here}
    anywhere = {label_key(line.label) for line in lines}
    for label in dict.fromkeys([*old, *new]):
        if label_key(label) not in asked:
            by = "by its devices' held-back samples alone" if label_key(label) in anywhere else "by nobody"
            yield f"class {label} is not in the data that no device supplied: it is judged {by}"


def _share(right: int, pairs: Pairs) -> str:
    return f"{right / pairs.samples:.1%} ({right} of {pairs.samples})"
