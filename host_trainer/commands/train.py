"""`host-trainer train`: a classifier from an image folder, all at once or task after task."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cl.errors import ConfigError
from host_trainer.commands.terminal import (
    AsJson,
    command_line,
    meter,
    print_json,
    quiet_libraries,
    say,
    silent_meter,
    stopping,
)

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Holds train/CLASS/* and test/CLASS/*, or CLASS/*.")
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the result; must not be there yet.")
]
NetworkName = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="NETWORK",
        help="FAMILY[:WIDTH][/SIZE][+haar]: mobilenetv1, mobilenetv2, resnet18, separable; or a checkpoint"
        " folder, or a .tflite file.",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="WEIGHTS",
        help="random, imagenet (downloaded by Keras), FILE.npz or a checkpoint folder.",
    ),
]
Epochs = Annotated[
    float, typer.Option("--epochs", metavar="N", min=0.001, help="How often each picture is seen.")
]
BatchSize = Annotated[int, typer.Option("--batch", metavar="N", min=2, max=4096, help="Pictures a step.")]
EpochsOr = Annotated[
    float | None,
    typer.Option(
        "--epochs",
        metavar="N",
        min=0.001,
        help="How often each picture is seen [usual: 20; with --method 5 a task].",
    ),
]
BatchOr = Annotated[
    int | None,
    typer.Option(
        "--batch", metavar="N", min=2, max=4096, help="Pictures a step [usual: 64; with --method 32]."
    ),
]
RateOr = Annotated[
    float | None,
    typer.Option(
        "--rate", metavar="RATE", help="Highest learning rate [usual: 0.002; with --method as published]."
    ),
]
Rate = Annotated[float, typer.Option("--rate", metavar="RATE", help="Highest learning rate.")]
Augment = Annotated[
    str,
    typer.Option(
        "--augment",
        metavar="NAMES",
        help="Changes, by name: flip, crop, colour, rotation, cutout, noise, mixup; or none.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of weights, order and augmentation.")]
WeightsOr = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="WEIGHTS",
        help="random [usual], imagenet (downloaded by Keras), FILE.npz or a checkpoint folder.",
    ),
]
AugmentOr = Annotated[
    str | None,
    typer.Option(
        "--augment",
        metavar="NAMES",
        help="Changes, by name: flip, crop, colour, rotation, cutout, noise, mixup; or none [usual:"
        " flip,crop].",
    ),
]
SeedOr = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Of weights, order and augmentation [usual: 0]."),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Keep decoded pictures here (default: inside --out)."),
]
SaveEvery = Annotated[
    int, typer.Option("--save-every", metavar="N", min=1, help="Steps between two checkpoints.")
]
Events = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write TensorBoard event files here.")
]


CONTINUAL = "Task after task"  # the panel of the help that holds these options


def _continual(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=CONTINUAL, **more)


DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|NAME",
        help="Holds train/CLASS/* and test/CLASS/*, or CLASS/*. With --method also cifar10, cifar100,"
        " tiny-imagenet, mnist, rot-mnist, perm-mnist.",
    ),
]
NetworkOr = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NETWORK",
        help="FAMILY[:WIDTH][/SIZE][+haar]: mobilenetv1, mobilenetv2, resnet18, separable; or a checkpoint"
        " folder, or a .tflite file. Usual: mobilenetv2:0.35/96; with --method resnet18:0.5.",
    ),
]
MethodName = Annotated[
    str | None,
    _continual(
        "--method",
        metavar="METHOD",
        help="sgd, joint, er, der, derpp, er-ace, cls-er, sparcl-er, sparcl-derpp: train task after task.",
    ),
]
Protocol = Annotated[
    str | None,
    _continual(
        "--protocol",
        metavar="NAME",
        help="class-incremental [usual], task-incremental or domain-incremental.",
    ),
]
Tasks = Annotated[
    int | None,
    _continual(
        "--tasks",
        metavar="N",
        help="Into how many the classes are cut [usual: 5; with --from 1].",
        min=1,
    ),
]
Mode = Annotated[
    str | None,
    _continual(
        "--mode",
        metavar="NAME",
        help="Of a sparcl method: edge (whole channels: saves time; usual), paper, or official (its authors'"
        " code).",
    ),
]
SparsityShare = Annotated[
    float | None,
    _continual("--sparsity", metavar="SHARE", help="Share of weights that are zero [usual: 0.9]."),
]
Without = Annotated[
    str | None,
    _continual("--without", metavar="NAMES", help="Parts of SparCL to leave out: masks, removal, gradients."),
]
Places = Annotated[
    int | None, _continual("--buffer", metavar="N", help="Pictures kept for replay [usual: 200].")
]
Clip = Annotated[
    float | None, _continual("--clip", metavar="LENGTH", help="Longest gradient; 0 for no bound [usual].")
]
Origin = Annotated[
    Path | None,
    _continual(
        "--from",
        metavar="DIR",
        help="Go on from a finished training, with --new-data: its network, method, masks and buffer; epochs,"
        " batch, rate, clip, augmentation and seed too, where no others are given.",
    ),
]
NewData = Annotated[
    str | None, _continual("--new-data", metavar="DIR", help="What to learn on top; its classes may be new.")
]
Count = Annotated[
    int | None,
    _continual(
        "--workers",
        metavar="N",
        min=1,
        max=64,
        help="Processes of this machine that share each batch [usual: 1]; on several machines start the same"
        " command on each with TF_CONFIG, as TensorFlow has it, and folders that all see.",
    ),
]
Root = Annotated[
    Path | None, _continual("--data-root", metavar="DIR", help="Where data sets called by name lie [here].")
]


def train(
    out: Out,
    data: DataName = None,
    network: NetworkOr = None,
    weights: WeightsOr = None,
    epochs: EpochsOr = None,
    batch: BatchOr = None,
    rate: RateOr = None,
    augment: AugmentOr = None,
    seed: SeedOr = None,
    save_every: SaveEvery = 500,
    cache: Cache = None,
    tensorboard: Events = None,
    method: MethodName = None,
    protocol: Protocol = None,
    tasks: Tasks = None,
    mode: Mode = None,
    sparsity: SparsityShare = None,
    without: Without = None,
    buffer: Places = None,
    clip: Clip = None,
    origin: Origin = None,
    new_data: NewData = None,
    data_root: Root = None,
    workers: Count = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on pictures; its backbone is what `export` turns into a device's.

    With --method the classes come task after task, and a report says what was kept and what was forgotten.
    Ctrl-C saves; the same command goes on. Runs on TensorFlow, or on JAX with KERAS_BACKEND=jax.
    """
    quiet_libraries()
    shared: dict[str, Any] = {
        "out": out,
        "save_every": save_every,
        "cache": cache,
        "network": network,
        "weights": weights,
        "epochs": epochs,
        "batch": batch,
        "rate": rate,
        "augment": None if augment is None else names_of(augment),
        "seed": seed,
    }
    continual: dict[str, Any] = {
        "protocol": protocol,
        "tasks": tasks,
        "mode": mode,
        "sparsity": sparsity,
        "without": without,
        "buffer": buffer,
        "clip": clip,
        "data_root": data_root,
        "workers": workers,
    }
    result: dict[str, Any] | None
    if method is None and origin is None:
        only = {f"--{name.replace('_', '-')}": value for name, value in continual.items()}
        _refuse(only, "belongs to a training task after task: give --method too")
        _refuse({"--new-data": new_data}, "goes on from a finished training: give --from too")
        result = _at_once(_chosen(shared), data, tensorboard)
    else:
        _refuse({"--tensorboard": tensorboard}, "is for trainings without --method; see report.html")
        count = continual.pop("workers") or 1
        continual |= {"root": continual.pop("data_root"), "without": _parts_of(without or "")}
        continual |= {"command": command_line(), "origin": origin, "method": method}
        given = _chosen({**shared, **continual})
        result = _task_after_task({**given, "data": _only_one(data, new_data, origin)}, count)
    if result is None:
        return  # another worker speaks
    if as_json:
        print_json(result)
    else:
        (show if "test_accuracy" in result else show_continual)(result)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Return what was given; the rest has its usual value where it is used."""
    return {name: value for name, value in options.items() if value is not None}


def _at_once(chosen: dict[str, Any], data: str | None, events: Path | None) -> dict[str, Any]:
    from host_trainer.training.session import Options, train_classifier

    if data is None:
        raise ConfigError("no pictures to learn from: give --data DIR")
    usual = {"network": "mobilenetv2:0.35/96"}
    options = Options(data=Path(data), events=events, **{**usual, **chosen})
    return train_classifier(options, meter, say)


def _task_after_task(chosen: dict[str, Any], count: int) -> dict[str, Any] | None:
    from host_trainer.export.cost import peak_bytes
    from host_trainer.sparcl.options import Options
    from host_trainer.sparcl.session import World, train_continually
    from host_trainer.training.workers import TF_CONFIG, company, open_workers

    if "epochs" in chosen:
        if chosen["epochs"] != int(chosen["epochs"]):
            raise ConfigError("--epochs of a task is a whole number")
        chosen["epochs"] = int(chosen["epochs"])
    with ExitStack() as stack:
        if count > 1 and TF_CONFIG not in os.environ:
            stack.enter_context(company(count))
        workers = open_workers()
        stopped = stack.enter_context(stopping())
        world = World(time.monotonic, peak_bytes, meter, say, stopped)
        if workers is not None and not workers.writes:
            world = world._replace(open_meter=silent_meter, say=lambda line: None)
        return train_continually(Options(**chosen), world, workers)


def _only_one(data: str | None, new_data: str | None, origin: Path | None) -> str:
    if origin is not None and (new_data is None or data is not None):
        raise ConfigError("--from goes on with --new-data DIR, and takes no --data")
    if origin is None and new_data is not None:
        raise ConfigError("--new-data goes on from a finished training: give --from too, or --data alone")
    found = data if origin is None else new_data
    if found is None:
        raise ConfigError("no pictures to learn from: give --data DIR, or the name of a data set")
    return found


def _parts_of(text: str) -> tuple[str, ...]:
    names = _listed(text)
    unknown = [name for name in names if name not in ("masks", "removal", "gradients")]
    if unknown:
        raise ConfigError(f"--without {unknown[0]!r}: give some of masks, removal, gradients")
    return names


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _refuse(options: dict[str, Any], reason: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} {reason}")


def names_of(text: str) -> tuple[str, ...]:
    """Read a list of names with commas between; `none` is the empty one."""
    names = _listed(text)
    if names == ("none",):
        return ()
    if "none" in names:
        raise ConfigError("--augment none goes with nothing else: give names, or none")
    return names


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
    typer.echo(f"{seconds:.0f} s, {saved:.1f} times fewer operations than dense; look at {result['report']}")
    typer.echo(
        f"it lives in {result['out']}; next: host-trainer export {result['out']} --target litert ..., or"
        f" host-trainer train --from {result['out']} --new-data DIR --out ..."
    )
