"""`host-trainer train`: a classifier from pictures, all at once or task after task, once or many times."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from edge_cl.errors import ConfigError
from edge_cl.resident import peak_resident_bytes
from host_trainer.chatter import quiet_tensorflow
from host_trainer.commands import train_options as take
from host_trainer.commands.terminal import (
    AsJson,
    command_line,
    meter,
    print_json,
    say,
    silent_meter,
    stopping,
)

# Options by parameter: what only one kind of training takes.
ONLY_CONTINUAL = (
    "protocol",
    "tasks",
    "mode",
    "sparsity",
    "without",
    "buffer",
    "alpha",
    "beta",
    "clip",
    "data_root",
    "workers",
)
MANY = ("config", "seeds", "engine", "jobs")
USUAL_AT_ONCE = {"network": "mobilenetv2:0.35/96"}


def train(
    out: take.OutOr = None,
    data: take.DataName = None,
    network: take.NetworkOr = None,
    weights: take.WeightsOr = None,
    epochs: take.EpochsOr = None,
    batch: take.BatchOr = None,
    rate: take.RateOr = None,
    augment: take.AugmentOr = None,
    seed: take.SeedOr = None,
    save_every: take.SaveEveryOr = None,
    cache: take.Cache = None,
    tensorboard: take.Events = None,
    method: take.MethodName = None,
    protocol: take.Protocol = None,
    tasks: take.Tasks = None,
    mode: take.Mode = None,
    sparsity: take.SparsityShare = None,
    without: take.Without = None,
    buffer: take.Places = None,
    alpha: take.Alpha = None,
    beta: take.Beta = None,
    clip: take.Clip = None,
    origin: take.Origin = None,
    new_data: take.NewData = None,
    data_root: take.Root = None,
    workers: take.Count = None,
    config: take.Configs = None,
    seeds: take.Seeds = None,
    engine: take.Engine = None,
    jobs: take.Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on pictures; its backbone is what `export` turns into a device's.

    With --method the classes come task after task, and a report says what was kept and what was forgotten.
    Ctrl-C saves; the same command goes on. Runs on TensorFlow, or on JAX with KERAS_BACKEND=jax.
    """
    asked = {name: value for name, value in locals().items() if name != "as_json" and value not in (None, [])}
    given = {name: value for name, value in asked.items() if name not in MANY}
    many = {name: value for name, value in asked.items() if name in MANY}
    quiet_tensorflow()
    result = _result(given, many)
    if result is None:
        return  # another worker speaks
    if as_json:
        print_json(result)
    else:
        _show(result)


def _result(given: dict[str, Any], many: Mapping[str, Any]) -> dict[str, Any] | None:
    from host_trainer.sparcl.configs import read_config

    configs = [read_config(path) for path in many.get("config", ())]
    named = [(config.name, {**config.given, **given}) for config in configs] or [("", given)]
    if len(named) > 1 or "seeds" in many:
        return _many(named if len(named) > 1 else [("", named[0][1])], many)
    _refuse(many, ("engine", "jobs"), "is for many trainings: give --seeds, or several --config")
    result = _one(named[0][1])
    if result is not None and configs:
        expected = configs[0].expected
        result["expected"] = {
            "class_il": expected.class_il,
            "task_il": expected.task_il,
            "hours": expected.hours,
        }
    return result


def _one(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Run one training, of whichever kind the options are."""
    if "out" not in given:
        raise ConfigError("no folder for the result: give --out DIR")
    if "method" in given or "origin" in given:
        _refuse(given, ("tensorboard",), "is for trainings without --method; see report.html")
        return _task_after_task(given)
    _refuse(given, ONLY_CONTINUAL, "belongs to a training task after task: give --method too")
    _refuse(given, ("new_data",), "goes on from a finished training: give --from too")
    return _at_once(given)


def _many(named: Sequence[tuple[str, Mapping[str, Any]]], many: Mapping[str, Any]) -> dict[str, Any]:
    """Run many trainings, and return what each reached."""
    from host_trainer.sparcl.sweep import COMPARISON, PROCESSES, check_engine, run_all, runs_of

    engine = many.get("engine", PROCESSES)
    check_engine(engine)
    for _, options in named:
        if "out" not in options:
            raise ConfigError("no folder for the results: give --out DIR")
        if "method" not in options and "origin" not in options:
            raise ConfigError(
                "--seeds and several --config belong to trainings task after task: give --method"
            )
    out = named[0][1]["out"]
    runs = runs_of(named, _seeds(many.get("seeds")), out)
    jobs = min(len(runs), many.get("jobs", len(os.sched_getaffinity(0))))
    with stopping() as stopped:
        records = run_all(runs, out, engine, jobs, say, stopped)
    return {
        "out": str(out),
        "comparison": str(out / COMPARISON),
        "engine": engine,
        "runs": [
            {
                "name": run.name,
                "out": str(run.out),
                "seed": records[run.name].seed,
                **_reached(records[run.name]),
            }
            for run in runs
        ],
    }


def _reached(record: Any) -> dict[str, Any]:
    return {
        "method": record.name,
        "class_il": record.metrics.class_il,
        "task_il": record.metrics.task_il,
        "seconds": record.totals.all_seconds,
    }


def _seeds(text: str | None) -> tuple[int, ...]:
    words = take.listed(text or "")
    if not all(word.isdecimal() for word in words) or (text is not None and not words):
        raise ConfigError(f"--seeds {text!r} is no list of whole numbers: give some as 0,1,2")
    return tuple(int(word) for word in words)


def _at_once(given: Mapping[str, Any]) -> dict[str, Any]:
    from host_trainer.training.session import Options, train_classifier

    chosen = {**USUAL_AT_ONCE, **given}
    if "data" not in chosen:
        raise ConfigError("no pictures to learn from: give --data DIR")
    if "augment" in chosen:
        chosen["augment"] = take.names_of(chosen["augment"])
    events = chosen.pop("tensorboard", None)
    return train_classifier(Options(**{**chosen, "data": Path(chosen["data"])}, events=events), meter, say)


def _task_after_task(given: Mapping[str, Any]) -> dict[str, Any] | None:
    from host_trainer.sparcl.session import World, train_continually
    from host_trainer.training.workers import TF_CONFIG, company, open_workers

    options, count = _options(given), given.get("workers", 1)
    with ExitStack() as stack:
        if count > 1 and TF_CONFIG not in os.environ:
            stack.enter_context(company(count))
        workers = open_workers()
        stopped = stack.enter_context(stopping())
        world = World(time.monotonic, peak_resident_bytes, meter, say, stopped)
        if workers is not None and not workers.writes:
            world = world._replace(open_meter=silent_meter, say=lambda line: None)
        return train_continually(options, world, workers)


def _options(given: Mapping[str, Any]) -> Any:
    """Return the options of a training task after task."""
    from host_trainer.sparcl.options import Options

    chosen = {name: value for name, value in given.items() if name not in ("workers", "new_data")}
    chosen |= {"data": _only_one(given), "command": command_line()}
    if "data_root" in chosen:
        chosen["root"] = chosen.pop("data_root")
    if "augment" in chosen:
        chosen["augment"] = take.names_of(chosen["augment"])
    if "without" in chosen:
        chosen["without"] = _parts_of(chosen["without"])
    if "epochs" in chosen:
        if chosen["epochs"] != int(chosen["epochs"]):
            raise ConfigError("--epochs of a task is a whole number")
        chosen["epochs"] = int(chosen["epochs"])
    return Options(**chosen)


def _only_one(given: Mapping[str, Any]) -> str:
    """Return the pictures to learn from: new data beside an origin, data without."""
    data, new_data = given.get("data"), given.get("new_data")
    if "origin" in given:
        if new_data is None or data is not None:
            raise ConfigError("--from goes on with --new-data DIR, and takes no --data")
        return str(new_data)
    if new_data is not None:
        raise ConfigError("--new-data goes on from a finished training: give --from too, or --data alone")
    if data is None:
        raise ConfigError("no pictures to learn from: give --data DIR, or the name of a data set")
    return str(data)


def _parts_of(text: str) -> tuple[str, ...]:
    from host_trainer.sparcl.schedule import PARTS

    names = take.listed(text)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ConfigError(f"--without {unknown[0]!r}: give some of {', '.join(PARTS)}")
    return names


def _refuse(given: Mapping[str, Any], names: Sequence[str], reason: str) -> None:
    for name in names:
        if name in given:
            raise ConfigError(f"--{name.replace('_', '-')} {reason}")


def _show(result: dict[str, Any]) -> None:
    if "runs" in result:
        show_many(result)
    elif "test_accuracy" in result:
        show(result)
    else:
        show_continual(result)


def show(result: dict[str, Any]) -> None:
    """Say in words what came out."""
    tested = result["test_accuracy"]
    judged = f", right on {tested:.1%} of {result['test']} unseen pictures" if tested is not None else ""
    typer.echo(f"{result['network']}: {result['steps']} steps on {result['train']} pictures{judged}")
    typer.echo(f"it lives in {result['out']}; next: host-trainer export {result['out']} --target litert ...")


def show_continual(result: dict[str, Any]) -> None:
    """Say in words what came out of a training task after task."""
    found, totals = result["metrics"], result["totals"]
    seconds = sum(totals["seconds"].values())
    saved = totals["dense_flops_honest"] / totals["flops_honest"]
    judged = ": no pictures to be asked about"
    if found["class_il"] is not None:
        judged = (
            f": right on {found['class_il']:.1%} of unseen pictures among all classes, {found['task_il']:.1%}"
            " within their task"
        )
    forgotten = f"; forgetting {found['forgetting']:.3f}" if found["forgetting"] is not None else ""
    typer.echo(f"{result['network']}, {result['method']}{judged}{forgotten}")
    expected = result.get("expected", {}).get("class_il")
    if expected is not None:
        typer.echo(f"expected of it: {expected:.1%} among all classes")
    typer.echo(f"{seconds:.0f} s, {saved:.1f} times fewer operations than dense; look at {result['report']}")
    typer.echo(
        f"it lives in {result['out']}; next: host-trainer export {result['out']} --target litert ..., or"
        f" host-trainer train --from {result['out']} --new-data DIR --out ..."
    )


def show_many(result: dict[str, Any]) -> None:
    """Say in words what came out of many trainings."""
    for run in result["runs"]:
        reached = "-" if run["class_il"] is None else f"{run['class_il']:.1%}"
        typer.echo(f"{run['name']}: {run['method']}, class-IL {reached}, {run['seconds']:.0f} s")
    typer.echo(f"look at {result['comparison']}")
