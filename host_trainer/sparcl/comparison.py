"""Sets runs side by side: accuracy against time and operations, and one table; all seeds are one row."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from host_trainer.pages.charts import CLOCK, Axis, Mark, scatter
from host_trainer.pages.figures import (
    NONE,
    Format,
    duration,
    flop,
    percent,
    plain,
    size,
    text,
    whole_percent,
)
from host_trainer.pages.page import card, page, section
from host_trainer.sparcl.record import Record
from host_trainer.sparcl.schedule import PARTS

SEED = "seed"  # the one setting in which the runs of a group differ
WIDE = 8  # costs that differ by more are drawn on a logarithmic axis


class Group(NamedTuple):
    """Runs that differ by their seed only."""

    name: str
    runs: tuple[Record, ...]


class Column(NamedTuple):
    """A column: its name, its figure of a run, how that is written, whether high (1) or low (-1) is good."""

    name: str
    of: Callable[[Record], float | None]
    write: Format
    better: int = 0


COLUMNS = (
    Column("class-IL", lambda run: run.metrics.class_il, percent, 1),
    Column("task-IL", lambda run: run.metrics.task_il, percent, 1),
    Column("forgetting", lambda run: run.metrics.forgetting, percent, -1),
    Column("calibration error", lambda run: run.metrics.calibration_error, percent, -1),
    Column("time", lambda run: run.totals.all_seconds, duration, -1),
    Column("images/s", lambda run: run.totals.images_per_s, plain, 1),
    Column("FLOPs, published", lambda run: run.totals.flops_published, flop, -1),
    Column("FLOPs, honest", lambda run: run.totals.flops_honest, flop, -1),
    Column("peak memory", lambda run: run.totals.peak_bytes, size, -1),
)
CLASS_IL, TIME, PUBLISHED, HONEST = COLUMNS[0], COLUMNS[4], COLUMNS[6], COLUMNS[7]


def compare(records: Iterable[Record]) -> str:
    """Return a page that sets runs side by side, as one HTML file that needs nothing else."""
    groups = grouped(records)
    runs = [run for group in groups for run in group.runs]
    return page(
        f"{len(runs)} trainings side by side",
        [
            f"<header><h1>{len(runs)} trainings side by side</h1>{_same(runs)}</header>",
            section(
                "At a glance", [card("Figures", _table(groups), _note(groups), full=True)] if groups else []
            ),
            section(
                "Accuracy and cost",
                [
                    _against("Accuracy and time", groups, TIME),
                    _against("Accuracy and FLOPs, published", groups, PUBLISHED),
                    _against("Accuracy and FLOPs, honest", groups, HONEST),
                ],
            ),
        ],
    )


def grouped(records: Iterable[Record]) -> list[Group]:
    """Return the runs by method, mode, sparsity, buffer and what else is not the seed, as they first came.

    Groups that differ by a setting alone, as by parts of SparCL that were left out, say it in their names.
    """
    found: dict[tuple[object, ...], list[Record]] = {}
    for run in records:
        found.setdefault((run.name, run.buffer, *_world(run), *_settings(run)), []).append(run)
    firsts = [runs[0] for runs in found.values()]
    return [Group(_name(runs[0], firsts), tuple(runs)) for runs in found.values()]


def _name(run: Record, others: Sequence[Record]) -> str:
    several = len({each.buffer for each in others}) > 1
    buffer = [f"buffer {run.buffer}"] if several else []
    return ", ".join([run.name, *buffer, *_apart(run, others)])


def _settings(run: Record) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in (run.settings or {}).items() if name != SEED)


def _apart(run: Record, others: Sequence[Record]) -> list[str]:
    """Return the settings of a run that others of its name and buffer have otherwise."""
    rivals = [each for each in others if (each.name, each.buffer) == (run.name, run.buffer)]
    own = [
        (name, value)
        for name, value in _settings(run)
        if any((each.settings or {}).get(name, value) != value for each in rivals)
    ]
    off = [f"without {name}" for name, value in own if name in PARTS and value == "False"]
    return off + [f"{name} {value}" for name, value in own if name not in PARTS]


def spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample; None where one value tells nothing of it."""
    return stdev(values) if len(values) > 1 else None


def _world(run: Record) -> tuple[object, ...]:
    return (run.dataset, run.protocol, run.network, len(run.tasks))


def _same(runs: Sequence[Record]) -> str:
    """Return what all runs share; a warning where they do not, for then their figures cannot be compared."""
    worlds = {_world(run) for run in runs}
    if len(worlds) > 1:
        said = "; ".join(
            sorted(f"{network} on {data}, {kind}, {count} tasks" for data, kind, network, count in worlds)
        )
        return f'<p class="warning">These runs are not of one kind, so compare with care: {text(said)}.</p>'
    said = "".join(f"{network} on {data}, {kind}, {count} tasks" for data, kind, network, count in worlds)
    return f'<p class="soft">{text(said)}</p>'


def _note(groups: Sequence[Group]) -> str:
    several = any(len(group.runs) > 1 for group in groups)
    return "Best of each column in bold." + (" ± is the standard deviation over seeds." if several else "")


def _table(groups: Sequence[Group]) -> str:
    best = [_best(column, groups) for column in COLUMNS]
    head = "".join(
        f'<th scope="col">{text(name)}</th>' for name in ("run", "seeds", *(c.name for c in COLUMNS))
    )
    body = "".join(
        f'<tr><th scope="row">{at} {text(group.name)}</th><td>{len(group.runs)}</td>'
        + "".join(_cell(column, group, top) for column, top in zip(COLUMNS, best, strict=True))
        + "</tr>"
        for at, group in enumerate(groups, start=1)
    )
    return (
        f'<div class="wide"><table class="close"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(column: Column, group: Group, best: float | None) -> str:
    values = _values(column, group)
    if not values:
        return f"<td>{NONE}</td>"
    mean, deviation = fmean(values), spread(values)
    shown = column.write(mean)
    if deviation is not None and column.write is percent:
        shown = f"{100 * mean:.1f} ± {percent(deviation)}"
    return f"<td><strong>{text(shown)}</strong></td>" if mean == best else f"<td>{text(shown)}</td>"


def _best(column: Column, groups: Sequence[Group]) -> float | None:
    means = [fmean(values) for values in (_values(column, group) for group in groups) if values]
    return max(means, key=lambda mean: column.better * mean) if len(set(means)) > 1 else None


def _values(column: Column, group: Group) -> list[float]:
    return [value for value in map(column.of, group.runs) if value is not None]


def _against(title: str, groups: Sequence[Group], cost: Column) -> str:
    methods = list(dict.fromkeys(group.runs[0].method for group in groups))
    marks = []
    for at, group in enumerate(groups, start=1):
        around = [
            (spent, share)
            for spent, share in ((cost.of(run), CLASS_IL.of(run)) for run in group.runs)
            if spent and share is not None
        ]
        if around:
            x, y = (fmean(values) for values in zip(*around, strict=True))
            marks.append(Mark(at, group.name, x, y, methods.index(group.runs[0].method), around))
    if not marks:
        return ""
    wide = max(mark.x for mark in marks) > WIDE * min(mark.x for mark in marks)
    strides = CLOCK if cost is TIME else ()
    across = Axis(cost.name, None if wide else 0, None, cost.write, None, strides, wide)
    shown = scatter(title, marks, across, Axis("class-IL accuracy", None, None, percent, whole_percent))
    return card(title, shown, "Numbers are the table's rows, colours methods, small dots single seeds.")
