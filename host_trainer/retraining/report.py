"""Makes the report of one run: what was decided and why, who sent what, who is not believed, class by class.

One file that needs no other and fetches nothing, in the page of the workshop's trainings.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from host_trainer.pages.charts import Axis, bars, table
from host_trainer.pages.figures import NONE, percent, plain, shortened, size, text, whole_percent
from host_trainer.pages.page import card, headline, page, section
from host_trainer.retraining.gate import HELD_OUT, Line, Pairs, Verdict, verdict_of

Facts = Mapping[str, Any]
NAME_LENGTH = 28  # of a device or a class, where there is little room
ID_LENGTH = 12  # of a content's hash
SHOWN = 12  # bars of a chart, and devices with one
LISTED = 50  # rows of what is long; the facts of the stages have all


class Told(NamedTuple):
    """What a report tells of: the facts of a run's stages, and how the run ended."""

    number: int
    order: Facts
    intake: Facts
    update: Facts
    export: Facts
    head: Facts
    bundle: Facts
    gate: Facts
    result: Facts


def render(told: Told) -> str:
    """Return the report of a run as one HTML file."""
    verdict = verdict_of(dict(told.gate))
    return page(
        f"Run {told.number} of {told.order['model']}",
        [
            _opening(told, verdict),
            headline(_headline(told, verdict)),
            _reasons(verdict),
            section("Devices", [_senders(told), _suspects(told), _aside(told)]),
            section("Class by class", [_classes(verdict), _own_samples(verdict)]),
            section("Labels that look wrong", [_wrong_labels(told)]),
            section("How it was made", [_stages(told), _settings(told)]),
        ],
    )


def _opening(told: Told, verdict: Verdict) -> str:
    model = told.order["model"]
    decided = (
        f"Bundle {told.bundle['bundle']} is accepted and listed in canary"
        if verdict.accepted
        else "Rejected: nothing was published"
    )
    went_on = f"; before it bundle {told.order['incumbent']} was in use" if told.order["incumbent"] else ""
    return (
        f"<header><h1>{text(decided)}</h1>"
        f'<p class="soft">{text(f"run {told.number} of {model}{went_on}")}</p></header>'
    )


def _headline(told: Told, verdict: Verdict) -> list[tuple[str, str, str]]:
    here = [line.pairs for line in verdict.lines if line.source == HELD_OUT]
    right, asked = sum(pairs.after for pairs in here), sum(pairs.samples for pairs in here)
    old = verdict.all_old
    new = len([label for label in told.head["labels"] if label not in _old(verdict)])
    received = told.intake["received"].values()
    return [
        (
            "Accuracy, all classes",
            percent(right / asked if asked else None),
            f"on {asked} pictures that no device sent",
        ),
        (
            "Old classes, before",
            percent(old.accuracy_before if told.order["incumbent"] else None),
            "what was in use",
        ),
        ("Old classes, now", percent(old.accuracy if told.order["incumbent"] else None), "the candidate"),
        ("Answers that changed", percent(verdict.churn), "of old classes"),
        ("Classes", str(len(told.head["labels"])), f"{new} of them new"),
        (
            "Devices that sent something",
            str(len(told.intake["received"])),
            f"{sum(each['contents'] for each in received)} contents,"
            f" {size(sum(each['bytes'] for each in received))}",
        ),
        ("Not believed", str(len(told.intake["suspects"])), "devices that contradict all others"),
        ("Bundle", size(told.bundle["whole_bytes"]), _lean(told)),
    ]


def _lean(told: Told) -> str:
    lean = told.bundle["lean_bytes"]
    return f"{size(lean)} for who has bundle {told.bundle['keyframe']}" if lean else "whole"


def _old(verdict: Verdict) -> set[str]:
    return {line.label for line in verdict.lines if not line.is_new}


def _reasons(verdict: Verdict) -> str:
    reasons = "".join(f'<p class="warning">{text(reason)}</p>' for reason in verdict.reasons)
    notes = "".join(f'<p class="soft">{text(note)}</p>' for note in verdict.notes)
    title = "Why it was rejected" if verdict.reasons else "What could not be judged"
    return f"<section><h2>{title}</h2>{reasons}{notes}</section>" if reasons or notes else ""


def _senders(told: Told) -> str:
    intake, rows = told.intake, []
    for device in sorted({*intake["received"], *intake["findings"]}):
        sent = intake["received"].get(device, {})
        finding = intake["findings"].get(device, {})
        rows.append(
            (
                shortened(device, NAME_LENGTH),
                plain(sent.get("contents", 0)),
                size(sent.get("bytes", 0)),
                plain(sent.get("samples", 0)),
                plain(sent.get("pictures", 0)),
                _agreement(finding),
                percent(told.head["shares"].get(device)) if device not in intake["suspects"] else NONE,
            )
        )
    columns = ["device", "contents", "bytes", "samples", "pictures", "agreement", "counts"]
    shown = table("What came since the last release", columns, rows[:LISTED])
    note = (
        "Agreement: how far the device's classes lie where those of all others lie; 1 is the same, 0 nothing"
        " alike. Counts: the share of what it told that is in the head; less than all where it would outweigh"
        " the others."
    )
    return card("Who sent what", shown, note, full=True) if rows else ""


def _agreement(finding: Facts) -> str:
    value = finding.get("agreement")
    return NONE if value is None else f"{value:.2f}"


def _suspects(told: Told) -> str:
    rows = [(shortened(device, NAME_LENGTH), reason) for device, reason in told.intake["suspects"].items()]
    if not rows:
        return ""
    shown = table("Nothing of theirs is in the head", ["device", "why"], rows, words=True)
    return card("Not believed", shown, full=True) + "".join(
        _agreements(device, told.intake["findings"].get(device, {}))
        for device in list(told.intake["suspects"])[:SHOWN]
    )


def _agreements(device: str, finding: Facts) -> str:
    """Return how a device that is not believed agrees with all others, class by class."""
    values = sorted(finding.get("classes", {}).items(), key=lambda each: each[1])
    if not values:
        return ""
    rows = [(shortened(label, NAME_LENGTH), f"{value:.2f}") for label, value in values]
    shown = [(label, max(0.0, value)) for label, value in values[:SHOWN]]
    chart = bars(f"Agreement of {device}, class by class", shown, Axis("agreement", 0, 1.2))
    numbers = table("The least alike first", ["class", "agreement"], rows)
    title = f"{shortened(device, NAME_LENGTH)} and all others"
    return card(title, chart, "Agreement by class; 1 is the same, 0 nothing alike or worse.", numbers)


def _aside(told: Told) -> str:
    rows = [
        (shortened(device, NAME_LENGTH), content[:ID_LENGTH], state, reason)
        for state, key in (("set aside", "aside"), ("waits", "waiting"))
        for device, content, reason in told.intake[key]
        if device not in told.intake["suspects"]
    ]
    notes = "; ".join(told.intake["notes"])
    if not rows:
        return card("Left out", f"<p>{text(notes)}</p>", full=True) if notes else ""
    shown = table(
        "Contents that were not learned from", ["device", "content", "", "why"], rows[:LISTED], words=True
    )
    return card("Set aside", shown, notes, full=True)


def _classes(verdict: Verdict) -> str:
    here = [line for line in verdict.lines if line.source == HELD_OUT]
    return _lines("On pictures that no device sent", here) if here else ""


def _own_samples(verdict: Verdict) -> str:
    devices = dict.fromkeys(line.source for line in verdict.lines if line.source != HELD_OUT)
    rows = []
    for device in devices:
        old = [line.pairs for line in verdict.lines if line.source == device and not line.is_new]
        new = [line.pairs for line in verdict.lines if line.source == device and line.is_new]
        rows.append((shortened(device, NAME_LENGTH), *_share(old, before=True), *_share(new, before=False)))
    if not rows:
        return ""
    columns = ["device", "old classes", "before", "now", "new classes", "now"]
    shown = table("Samples that no training saw", columns, rows[:LISTED])
    note = "The candidate answers as if it had never been taught the sample; what was in use never was."
    return card("On each device's held-back samples", shown, note, full=True)


def _share(pairs: Sequence[Pairs], before: bool) -> tuple[str, ...]:
    count = sum(each.samples for each in pairs)
    values = [count, sum(each.before for each in pairs), sum(each.after for each in pairs)]
    shares = [percent(value / count if count else None) for value in values[1:]]
    return (plain(count), *(shares if before else shares[1:]))


def _lines(title: str, lines: Sequence[Line]) -> str:
    rows = []
    for line in sorted(lines, key=lambda each: (each.pairs.accuracy or 0.0, each.label)):
        pairs = line.pairs
        rows.append(
            (
                shortened(line.label, NAME_LENGTH),
                plain(pairs.samples),
                "new" if line.is_new else percent(pairs.accuracy_before),
                percent(pairs.accuracy),
                NONE if line.is_new else f"{pairs.lost}, {pairs.won}",
            )
        )
    columns = ["class", "pictures", "before", "now", "lost, won"]
    shown = table("The hardest first", columns, rows)
    chart = bars(
        "Accuracy by class",
        [(line.label, line.pairs.accuracy or 0.0) for line in sorted(lines, key=lambda each: each.label)],
        Axis("accuracy", 0, 1, percent, whole_percent),
    )
    return card(title, chart) + card(
        "Before and now", shown, "Lost: right before, wrong now. Won: the other way round."
    )


def _wrong_labels(told: Told) -> str:
    rows = [
        (shortened(device or "the host", NAME_LENGTH), plain(number), label, suggestion, f"{doubt:.2f}")
        for device, number, label, suggestion, doubt in told.head["suspects"]
    ]
    if not rows:
        return ""
    shown = table(
        "Learned neither by the base nor by the residual",
        ["device", "sample", "label", "looks like", "doubt"],
        rows[:LISTED],
        words=True,
    )
    note = "They were left out of the residual's training; what their devices told of statistics holds them."
    return card("By the label audit", shown, note, full=True)


def _stages(told: Told) -> str:
    head, bundle = told.head, told.bundle
    rows = [
        ("backbone", told.update["reason"]),
        ("samples of classes", ", ".join(f"{label} {count}" for label, count in head["samples"].items())),
        ("shrinkage of the base", f"{head['shrinkage']:g}"),
        ("weight of the residual", f"{head['gate']:g}"),
        ("temperature", f"{head['temperature']:.2f}"),
        ("whole bundle", f"{bundle['whole_bytes']:,} bytes, manifest {bundle['manifest'][:ID_LENGTH]}"),
    ]
    if parity := told.export.get("parity"):
        alike = (
            f"cosine {parity['cosine_min']:.3f} at the worst picture, probe {parity['accuracy_export']:.3f}"
        )
        rows.append(("its int8 file and the network", alike))
    if fell_back := told.export.get("fell_back"):
        rows.append(("but in the end", fell_back))
    if told.export.get("latency_ms"):
        rows.append(("a picture on the host", f"{told.export['latency_ms']:.1f} ms"))
    return card("The candidate", table("", ["", ""], rows, words=True), full=True)


def _settings(told: Told) -> str:
    rows = [
        (name.replace("_", " "), str(value))
        for name, value in sorted(told.order.items())
        if name not in ("learner", "budgets", "policy") and value not in (None, "")
    ]
    rows += [
        (f"gate: {name.replace('_', ' ')}", plain(value)) for name, value in told.order["policy"].items()
    ]
    return card("What was asked", table("", ["", ""], rows, words=True), full=True)
