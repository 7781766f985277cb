"""Makes the report of one training: what it reached, what it cost, how it went, and how to repeat it."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from host_trainer.pages.charts import CLOCK, Axis, Series, bars, heat, line, step, table
from host_trainer.pages.figures import (
    duration,
    flop,
    percent,
    plain,
    points,
    shortened,
    size,
    text,
    whole_percent,
)
from host_trainer.pages.page import card, headline, page, section
from host_trainer.sparcl.record import Epoch, Grid, Record

NAME_LENGTH = 24  # of a task, where there is little room
WIDE = 6  # a matrix of more tasks takes a line of its own
KERNEL = "/kernel"  # ends every layer's path, so it tells nothing
SHARE = Axis("accuracy", 0, 1, percent, whole_percent)
TIME = Axis("time", 0, None, duration, strides=CLOCK)


def render(record: Record) -> str:
    """Return the report of a run as one HTML file that needs nothing else."""
    return page(
        f"{record.name} on {record.dataset}",
        [
            _opening(record),
            headline(_headline(record)),
            section("Accuracy", [*_matrices(record), _over_tasks(record), _tasks(record)]),
            section("Cost", [*_accuracy_by_cost(record), _phases(record)]),
            section("How it went", _over_epochs(record)),
            section("The network at the end", [_layers(record), _calibration(record)]),
            section("To repeat it", [_settings(record)]),
        ],
    )


def mean_accuracies(grid: Grid) -> list[float | None]:
    """Return after each task the mean accuracy over those taught by then; None where none was tested."""
    known = [[share for share in row[: at + 1] if share is not None] for at, row in enumerate(grid)]
    return [sum(row) / len(row) if row else None for row in known]


def _opening(record: Record) -> str:
    what = (
        f"{len(record.tasks)} tasks, {len(record.classes)} classes, {record.protocol}; {record.network},"
        f" buffer of {record.buffer}, seed {record.seed}"
    )
    name = f"{record.name} on {record.dataset}"
    return f'<header><h1>{text(name)}</h1><p class="soft">{text(what)}</p></header>'


def _headline(record: Record) -> list[tuple[str, str, str]]:
    metrics, totals = record.metrics, record.totals
    return [
        ("Class-IL accuracy", percent(metrics.class_il), "among all classes, mean over tasks"),
        ("Task-IL accuracy", percent(metrics.task_il), "among the classes of the task"),
        ("Forgetting", points(metrics.forgetting), "fall from each task's best"),
        ("Time", duration(totals.all_seconds), f"{plain(totals.images_per_s)} images/s in training"),
        (
            "Operations, published convention",
            flop(totals.flops_published),
            _saving(record, totals.flops_published, totals.dense_flops_published),
        ),
        (
            "Operations, honest convention",
            flop(totals.flops_honest),
            _saving(record, totals.flops_honest, totals.dense_flops_honest),
        ),
        ("Peak memory", size(totals.peak_bytes), f"buffer {size(totals.buffer_bytes)}"),
        ("Calibration error", percent(metrics.calibration_error), "mean gap of confidence and accuracy"),
    ]


def _saving(record: Record, run: float, dense: float) -> str:
    if record.sparsity is None or not run > 0:
        return "dense"
    return f"{dense / run:.1f} times fewer than dense ({flop(dense)})"


def _matrices(record: Record) -> list[str]:
    if not record.tasks:
        return []
    numbers, wide = [str(at + 1) for at in range(len(record.tasks))], len(record.tasks) > WIDE
    return [
        card(title, heat("in %; the columns are tasks", "after task", numbers, numbers, grid), full=wide)
        for title, grid in (
            ("Class-IL: among all classes seen", record.class_il),
            ("Task-IL: among the task's own classes", record.task_il),
        )
    ]


def _over_tasks(record: Record) -> str:
    rows = list(zip(mean_accuracies(record.class_il), mean_accuracies(record.task_il), strict=True))
    if not rows:
        return ""
    series = [
        Series(name, [(at + 1.0, value) for at, value in enumerate(values) if value is not None])
        for name, values in zip(("class-IL", "task-IL"), zip(*rows, strict=True), strict=True)
    ]
    numbers = table(
        "Mean over the tasks taught by then",
        ["after task", "class-IL", "task-IL"],
        [(at + 1, percent(one), percent(two)) for at, (one, two) in enumerate(rows)],
    )
    chart = line("Accuracy over tasks", series, _counted("tasks taught", len(rows)), SHARE)
    return card("Accuracy over tasks", chart, "Mean over the tasks taught by then.", numbers)


def _calibration(record: Record) -> str:
    if not record.reliability:
        return ""
    series = [
        Series("answers", [(part.confidence, part.accuracy) for part in record.reliability]),
        Series("perfect", [(0.0, 0.0), (1.0, 1.0)]),
    ]
    numbers = table(
        "Answers by confidence",
        ["confidence", "accuracy", "answers"],
        [(percent(p.confidence), percent(p.accuracy), plain(p.count)) for p in record.reliability],
    )
    chart = line("Calibration", series, SHARE._replace(name="confidence"), SHARE)
    return card("Calibration", chart, "Below the diagonal it is surer than it is right.", numbers)


def _tasks(record: Record) -> str:
    rows = [
        (
            f"{at + 1} {shortened(task.name, NAME_LENGTH)}",
            plain(task.train),
            plain(task.test),
            ", ".join(task.classes),
        )
        for at, task in enumerate(record.tasks)
    ]
    shown = table(
        "In the order taught", ["task", "to learn from", "to be asked", "classes"], rows, words=True
    )
    return card("Tasks", shown, full=True) if rows else ""


def _accuracy_by_cost(record: Record) -> list[str]:
    """Return accuracy against time and operations, as they had added up when each task ended."""
    reached = mean_accuracies(record.class_il)
    if not record.epochs or not any(share is not None for share in reached):
        return []
    spent = _by_task(record, lambda epoch: sum(epoch.seconds.values()))
    published = _by_task(record, lambda epoch: epoch.flops_published)
    honest = _by_task(record, lambda epoch: epoch.flops_honest)
    rows = list(zip(spent, published, honest, reached, strict=True))
    numbers = table(
        "When each task ended",
        ["task", "time", "published", "honest", "class-IL"],
        [(at + 1, duration(a), flop(b), flop(c), percent(d)) for at, (a, b, c, d) in enumerate(rows)],
    )
    conventions = [
        Series("published", _joined(published, reached)),
        Series("honest", _joined(honest, reached)),
    ]
    time = [Series("class-IL", _joined(spent, reached))]
    note = "Class-IL accuracy over the tasks taught by then, one point as each ends."
    return [
        card(
            "Time and accuracy",
            line("Time and accuracy", time, TIME, SHARE),
            note,
            numbers,
        ),
        card(
            "Operations and accuracy",
            line("Operations and accuracy", conventions, Axis("operations", 0, None, flop), SHARE),
            "Published: as in SparCL's tables. Honest: everything that was run.",
            numbers,
        ),
    ]


def _by_task(record: Record, cost: Callable[[Epoch], float]) -> list[float]:
    """Return what had been spent at the end of each task."""
    each = [
        sum(cost(epoch) for epoch in record.epochs if epoch.task == at) for at in range(len(record.tasks))
    ]
    return list(accumulate(each))


def _joined(costs: Sequence[float], reached: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(cost, share) for cost, share in zip(costs, reached, strict=True) if share is not None]


def _phases(record: Record) -> str:
    rows = sorted(record.totals.seconds.items(), key=lambda phase: -phase[1])
    whole = record.totals.all_seconds or 1.0
    numbers = table(
        "Time by phase",
        ["phase", "time", "share"],
        [(name, duration(seconds), percent(seconds / whole)) for name, seconds in rows],
    )
    chart = bars("Time by phase", rows, TIME)
    return card("Time by phase", chart, numbers=numbers) if rows else ""


def _over_epochs(record: Record) -> list[str]:
    epochs = record.epochs
    if not epochs:
        return []
    ends = [
        (float(at), f"task {epoch.task + 1}" if len(record.tasks) <= 6 else str(epoch.task + 1))
        for at, epoch in enumerate(epochs)
        if at == 0 or epoch.task != epochs[at - 1].task
    ]
    across = Axis("epochs", 0, len(epochs))

    def drawn(title: str, kinds: Sequence[tuple[str, Callable[[Epoch], float]]], y: Axis, note: str) -> str:
        # An epoch's value holds until the epoch ends: the last is drawn twice, so that it has a width too.
        series = [
            Series(name, [*enumerate(map(of, epochs)), (len(epochs), of(epochs[-1]))]) for name, of in kinds
        ]
        rows = [(f"{e.task + 1}.{e.epoch + 1}", *(y.write(of(e)) for _, of in kinds)) for e in epochs]
        numbers = table(title, ["task.epoch", *(name for name, _ in kinds)], rows)
        return card(title, step(title, series, across, y, ends), note, numbers)

    sparse = [
        drawn(
            "Sparsity",
            [("weights", lambda e: e.weight_sparsity), ("gradients", lambda e: e.gradient_sparsity)],
            Axis("share at rest", None, None, percent, whole_percent),
            "Of the prunable weights: those that are zero, and those that do not move.",
        )
    ]
    return [
        *(sparse if record.sparsity is not None else []),
        drawn(
            "Data",
            [("kept", lambda e: e.kept), ("offered", lambda e: e.offered)],
            Axis("pictures of the task", 0),
            "What data removal leaves of each task.",
        ),
        drawn("Loss", [("loss", lambda e: e.loss)], Axis("loss", 0), "Mean over each epoch's batches."),
        drawn(
            "Accuracy in training",
            [("accuracy", lambda e: e.accuracy)],
            SHARE,
            "Of the stream's pictures, before each step learned from them.",
        ),
        drawn(
            "Speed",
            [("images/s", lambda e: e.images_per_s)],
            Axis("images/s", 0),
            "Pictures of the stream a second of training.",
        ),
    ]


def _layers(record: Record) -> str:
    rows = [(name.removesuffix(KERNEL), share) for name, share in (record.layers or {}).items()]
    if not rows:
        return ""
    numbers = table("Live weights", ["layer", "share"], [(name, percent(share)) for name, share in rows])
    chart = bars("Live weights by layer", rows, Axis("share of live weights", 0, 1, percent))
    return card("Live weights by layer", chart, numbers=numbers)


def _settings(record: Record) -> str:
    told = [
        ("method", record.method),
        ("mode", record.mode),
        ("sparsity", record.sparsity),
        ("protocol", record.protocol),
        ("buffer", record.buffer),
        ("seed", record.seed),
        ("network", record.network),
        ("data", record.dataset),
        *(record.settings or {}).items(),
    ]
    rows = [(shortened(name, NAME_LENGTH), value) for name, value in told if value is not None]
    shown = table("", ["setting", "value"], rows, words=True)
    return card("Command", f"<pre><code>{text(record.command)}</code></pre>", full=True) + card(
        "Settings", shown
    )


def _counted(name: str, count: int) -> Axis:
    """Return an axis of whole numbers from 1; a tick between two has no name."""
    return Axis(name, 1, max(count, 2), tick=lambda at: f"{at:.0f}" if abs(at - round(at)) < 1e-6 else "")
