"""Full SparCL on the host: accuracy, seconds, operations and memory against dense replay, in one protocol.

Protocol, fixed for all methods: Split CIFAR-10 from the JPEG copy (a lossy copy: its figures do not compare
with published ones), 5 tasks of 2 classes, 1,000 pictures of each class to learn from and 500 to ask about,
ResNet-18 at half width, 5 epochs a task, batches of 32 + 32 a draw, crop and flip, rates as published.
`--scale small` has 300 and 100 pictures and a quarter of the width, for a machine with little time.
Class-IL is asked among the classes seen so far. Every trial is a process of its own on one thread; its record
is kept in --cache, so a run that was stopped goes on.

Expected time on a slow core: full, 30 to 45 minutes for dense DER++ of one seed, 4 to 15 for edge 0.9, a day
or two for the whole table; small, 5 and 2 minutes.

    python benchmarks/sparcl.py [--scale small] [--seeds 3] [--only derpp edge-0.9] [--jobs 2] [--write]
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cifar
import ledger
import numpy as np
from trials import mean

from edge_cl.commands.evaluate import default_cache
from edge_cl.resident import peak_resident_bytes
from host_trainer.sparcl.comparison import compare
from host_trainer.sparcl.record import Record, from_json

TASKS, EPOCHS = 5, 5
BUFFERS = 200, 500  # the second for the main rows
ACCURACY_GAIN, TIME_SHARE, MEMORY_SHARE = 0.05, 3.0, 0.6  # of edge 0.9 against dense DER++
CLS_ER_LOSS, LESS_WORK = 0.01, 4.0  # that edge mode may cost beside CLS-ER, at a quarter of its operations
FAITHFUL_LOSS = 0.02  # that the paper's and its authors' way may cost beside dense DER++
FEWER = {0.75: 5.5, 0.9: 12.0, 0.95: 22.0}  # operations of SparCL, published convention


class Scale(NamedTuple):
    """How large a trial is: the network, and pictures of each class to learn from and to ask about."""

    network: str
    learned: int
    asked: int


SCALES = {"full": Scale("resnet18:0.5/32", 1000, 500), "small": Scale("resnet18:0.25/32", 300, 100)}


class Trial(NamedTuple):
    """One run: its name in the table, method, mode, sparsity, SparCL's parts left out, buffer and seed."""

    name: str
    method: str
    mode: str = ""
    sparsity: float = 0.0
    without: tuple[str, ...] = ()
    buffer: int = 200
    seed: int = 0
    momentum: float | None = None


SPARSITIES = (0.75, 0.9, 0.95)
FAITHFUL = [f"{mode}-{sparsity:g}" for mode in ("official", "paper") for sparsity in SPARSITIES]
BASELINES = ("sgd", "joint", "er", "der", "derpp", "er-ace", "cls-er")
PARTS = {  # SparCL without some of its parts; without all three it is dense DER++ with the single-head loss
    "paper-0.75 nothing": ("masks", "removal", "gradients"),
    "paper-0.75 masks": ("removal", "gradients"),
    "paper-0.75 masks+removal": ("gradients",),
    "paper-0.75 masks+gradients": ("removal",),
}


def trials(seeds: int) -> list[Trial]:
    """Return every row of the table, the main ones first."""
    named = [Trial(name, name) for name in BASELINES]
    for mode in ("edge", "official", "paper"):
        named += [Trial(f"{mode}-{s:g}", "sparcl-derpp", mode, s) for s in SPARSITIES]
    named += [Trial(f"official-er-{s:g}", "sparcl-er", "official", s) for s in SPARSITIES]
    named += [Trial("edge-er-0.9", "sparcl-er", "edge", 0.9), Trial("derpp-momentum", "derpp", momentum=0.9)]
    named += [Trial(name, "sparcl-derpp", "paper", 0.75, out) for name, out in PARTS.items()]
    named += [one._replace(buffer=BUFFERS[1]) for one in named if one.name in ("derpp", "cls-er", "edge-0.9")]
    return [one._replace(seed=seed) for seed in range(seeds) for one in named]


def run_trial(trial: Trial, scale: Scale) -> str:
    """Train one trial and return its record as JSON."""
    from host_trainer.backbones.networks import build, parse_spec, with_head
    from host_trainer.datasets.examples import DataSet, Examples
    from host_trainer.network import Network
    from host_trainer.sparcl.learner import open_learner
    from host_trainer.sparcl.plan import make_plan
    from host_trainer.sparcl.record import to_json
    from host_trainer.sparcl.schedule import Sparsity
    from host_trainer.sparcl.subject import Subject, course_of, recorder_of, whole_of
    from host_trainer.sparcl.tasks import plan_tasks

    data = cifar.load(scale.learned, scale.asked)
    parts = [Examples(p.values[:, 0], p.pictures.labels, np.zeros(len(p.values), np.int32)) for p in data]
    pictures = DataSet("cifar10-jpeg", data.train.pictures.classes, (), *parts)
    switches: dict[str, Any] = dict.fromkeys(trial.without, False)
    rules = Sparsity(trial.mode, trial.sparsity, **switches) if trial.mode else None
    more: dict[str, Any] = {} if trial.momentum is None else {"momentum": trial.momentum}
    plan = make_plan(trial.method, rules, buffer=trial.buffer, epochs=EPOCHS, seed=trial.seed, **more)
    tasks = plan_tasks(pictures, "class-incremental", TASKS)
    model = with_head(build(parse_spec(scale.network), trial.seed), len(pictures.classes), trial.seed)
    wide = Network(model, pictures.classes, name=scale.network)
    learner, whole = open_learner(wide, plan), whole_of(wide)
    del model, wide  # what edge mode does not train is not to be kept
    subject = Subject(pictures, "class-incremental", tasks, learner, whole, plan)
    recorder = recorder_of(subject, f"python benchmarks/sparcl.py --only {trial.name}")
    course = course_of(subject, time.perf_counter)
    recorder.before(course.answers(-1))
    course.run(Following(recorder))
    return to_json(recorder.finished(peak_resident_bytes(), subject.learner.reservoir.size_bytes))


class Following:
    """Keeps the record of a course, and says how far it is."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder

    def stepped(self, place: Any, length: int, sums: Any) -> bool:
        """Go on."""
        return False

    def ended_epoch(self, epoch: Any, place: Any) -> bool:
        """Keep it and go on."""
        self._recorder.ended_epoch(epoch)
        return False

    def ended_task(self, task: int, answers: Any) -> None:
        """Keep it and say it."""
        self._recorder.ended_task(answers)
        known = answers.class_il[~np.isnan(answers.class_il)]
        print(
            f"  task {task + 1}: {known.mean():.3f} {np.round(known, 2).tolist()}",
            file=sys.stderr,
            flush=True,
        )


def place_of(trial: Trial, scale: str, cache: Path) -> Path:
    """Return the file of a trial's record."""
    name = trial.name.replace(" ", "-")
    return cache / f"sparcl-{scale}-{name}-{trial.buffer}-{trial.seed}.json"


def found(wanted: Sequence[Trial], args: argparse.Namespace) -> dict[Trial, Record]:
    """Return the records of trials, running those that are not kept yet, `--jobs` at a time."""
    missing = [one for one in wanted if not place_of(one, args.scale, args.cache).is_file()]
    args.cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda one: _in_a_process(one, args), missing if not args.kept else []))
    places = {one: place_of(one, args.scale, args.cache) for one in wanted}
    return {one: from_json(place.read_text("utf-8")) for one, place in places.items() if place.is_file()}


def _in_a_process(trial: Trial, args: argparse.Namespace) -> None:
    """Run one trial alone, so that its memory is its own."""
    command = [sys.executable, __file__, "--scale", args.scale, "--cache", str(args.cache)]
    names = ["--trial", trial.name, str(trial.buffer), str(trial.seed)]
    print(f"{trial.name}, buffer {trial.buffer}, seed {trial.seed}", file=sys.stderr, flush=True)
    subprocess.run([*command, *names], check=True)


def rows(records: dict[Trial, Record]) -> list[ledger.Row]:
    """Hold the main figures against their targets; what was not run has no row."""
    told = []
    for buffer in BUFFERS:
        own = {trial: record for trial, record in records.items() if trial.buffer == buffer}
        more = f"buffer {buffer}, " if buffer != BUFFERS[0] else ""
        told += [row._replace(claim=f"{more}{row.claim}") for row in _rows(own)]
    return told


def _rows(records: dict[Trial, Record]) -> list[ledger.Row]:
    """Return the rows of the trials with one size of buffer."""
    by_name: dict[str, list[Record]] = {}
    for trial, record in records.items():
        by_name.setdefault(trial.name, []).append(record)
    told = []
    for name, runs in by_name.items():
        seeds = f", {len(runs)} seed{'s' * (len(runs) > 1)}"
        reached = cifar.mean_std(_reached(runs))
        work = np.mean([run.totals.flops_published for run in runs])
        told.append(ledger.Row(f"{name}: class-IL{seeds}", reached))
        sparsity = runs[0].sparsity
        if sparsity in FEWER:
            ratio = float(np.mean([run.totals.dense_flops_published for run in runs]) / work)
            claim = f"{name}: operations of dense DER++ over its own, published convention"
            if name in PARTS:
                told.append(ledger.Row(claim, f"{ratio:.1f}"))
            else:
                told.append(ledger.at_least(claim, ratio, FEWER[sparsity], 1))
    for name, runs in by_name.items():
        is_edge = name.startswith("edge")
        mine, dense = _of_both(runs, by_name.get("derpp", []))
        if dense and is_edge:
            told += _against(name, mine, dense)
        if dense and name in FAITHFUL:
            told.append(_above("dense DER++", name, mine, dense, -FAITHFUL_LOSS))
        mine, averaged = _of_both(runs, by_name.get("cls-er", []))
        if averaged and is_edge:
            told += _beside(name, mine, averaged)
    return told


def _of_both(runs: Sequence[Record], other: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the runs of either whose seed both have: a seed moves a figure by two points."""
    shared = {run.seed for run in runs} & {run.seed for run in other}
    return [run for run in runs if run.seed in shared], [run for run in other if run.seed in shared]


def _reached(runs: Sequence[Record]) -> list[float]:
    return [run.metrics.class_il or 0.0 for run in runs]


def _above(
    rival: str, name: str, runs: Sequence[Record], other: Sequence[Record], target: float
) -> ledger.Row:
    gain = mean(_reached(runs)) - mean(_reached(other))
    return ledger.at_least(f"{name}: class-IL above {rival}", gain, target)


def _against(name: str, runs: Sequence[Record], dense: Sequence[Record]) -> list[ledger.Row]:
    """Return the rows of an edge run beside dense DER++ of the same table."""
    faster = mean([run.totals.all_seconds for run in dense]) / mean([run.totals.all_seconds for run in runs])
    memory = mean([run.totals.peak_bytes for run in runs]) / mean([run.totals.peak_bytes for run in dense])
    return [
        _above("dense DER++", name, runs, dense, ACCURACY_GAIN),
        ledger.at_least(f"{name}: seconds of dense DER++ over its own", faster, TIME_SHARE, 1),
        ledger.at_most(f"{name}: peak memory over dense DER++'s, whole process", memory, MEMORY_SHARE),
    ]


def _beside(name: str, runs: Sequence[Record], other: Sequence[Record]) -> list[ledger.Row]:
    """Return the rows of an edge run beside CLS-ER, the most accurate of the dense ones."""
    work = mean([run.totals.flops_published for run in other])
    work /= mean([run.totals.flops_published for run in runs])
    return [
        _above("CLS-ER", name, runs, other, -CLS_ER_LOSS),
        ledger.at_least(
            f"{name}: operations of CLS-ER over its own, published convention", work, LESS_WORK, 1
        ),
    ]


def main() -> None:
    """Run what is asked and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows to run (all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at a time (%(default)s)")
    parser.add_argument("--cache", type=Path, default=default_cache().parent, metavar="DIR")
    parser.add_argument("--kept", action="store_true", help="run nothing; show what is kept")
    parser.add_argument("--write", action="store_true", help="put rows into the ledger")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write a page that sets the runs side by side"
    )
    parser.add_argument("--trial", nargs=3, metavar=("NAME", "BUFFER", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        _one(args)
        return
    wanted = [one for one in trials(args.seeds) if args.only is None or one.name in args.only]
    records = found(wanted, args)
    told = rows(records)
    if not told:
        raise SystemExit("nothing is kept yet: leave --kept out")
    ledger.show(f"Split CIFAR-10 (JPEG copy), {SCALES[args.scale].network}", told)
    if args.page:
        args.page.write_text(compare(records.values()), encoding="utf-8")
    if args.write:
        ledger.write(
            f"sparcl-{args.scale}",
            f"python benchmarks/sparcl.py --scale {args.scale}",
            ledger.rows_table(told),
        )


def _one(args: argparse.Namespace) -> None:
    name, buffer, seed = args.trial[0], int(args.trial[1]), int(args.trial[2])
    chosen = next(one for one in trials(seed + 1) if (one.name, one.buffer, one.seed) == (name, buffer, seed))
    text = run_trial(chosen, SCALES[args.scale])
    place_of(chosen, args.scale, args.cache).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    cifar.on_one_core()
    main()
