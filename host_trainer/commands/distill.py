"""`host-trainer distill`: a small network that answers as a teacher does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cl.errors import ConfigError
from host_trainer.chatter import quiet_tensorflow
from host_trainer.commands.terminal import AsJson, meter, print_json, say
from host_trainer.commands.train_options import (
    BatchSize,
    Cache,
    Epochs,
    Events,
    NetworkName,
    Out,
    Rate,
    SaveEvery,
    Seed,
    Weights,
    names_of,
)

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="DIR[:VIEWS]",
        help="DIR or DIR:VIEWS; pictures at any depth but below `test`, VIEWS crops of each. May repeat.",
    ),
]
Teachers = Annotated[
    list[Path],
    typer.Option(
        "--teacher",
        metavar="MODEL",
        help="A .tflite file or a checkpoint folder; several are an ensemble. May repeat.",
    ),
]
Match = Annotated[
    str,
    typer.Option(
        "--match",
        metavar="WHAT",
        help="features: no labels needed, any teacher; logits: the teacher knows the classes of --data.",
    ),
]
Augment = Annotated[
    str,
    typer.Option(
        "--augment",
        metavar="NAMES",
        help="Changes the teacher does not see: flip, crop, colour, noise ...; or none.",
    ),
]
Temperature = Annotated[
    float, typer.Option("--temperature", metavar="T", help="T of the soft targets (logits only).")
]
Hard = Annotated[
    float, typer.Option("--hard", metavar="WEIGHT", min=0, max=1, help="Weight of the labels (logits only).")
]


def distill(
    data: Data,
    teacher: Teachers,
    out: Out,
    network: NetworkName = "mobilenetv2:0.35/96",
    match: Match = "features",
    weights: Weights = "random",
    epochs: Epochs = 20,
    batch: BatchSize = 64,
    rate: Rate = 2e-3,
    augment: Augment = "flip",
    temperature: Temperature = 4.0,
    hard: Hard = 0.1,
    seed: Seed = 0,
    save_every: SaveEvery = 500,
    cache: Cache = None,
    tensorboard: Events = None,
    as_json: AsJson = False,
) -> None:
    """Train a small network to answer as a stronger one does: its features, or its logits.

    The teacher is asked once about each view, and its answers are kept. Ctrl-C saves; the same command goes
    on. Soft targets are those of Hinton et al. 2014.
    """
    quiet_tensorflow()
    from host_trainer.distillation.session import Options, distil
    from host_trainer.distillation.teachers import Kind

    if match not in {kind.value for kind in Kind}:
        raise ConfigError(f"--match {match!r}: give features or logits")
    options = Options(
        data=tuple(part_of(text) for text in data),
        teachers=tuple(teacher),
        out=out,
        network=network,
        match=Kind(match),
        weights=weights,
        epochs=epochs,
        batch=batch,
        rate=rate,
        temperature=temperature,
        hard=hard,
        augment=names_of(augment),
        seed=seed,
        save_every=save_every,
        cache=cache,
        events=tensorboard,
    )
    result = distil(options, meter, say)
    if as_json:
        print_json(result)
    else:
        show(result)


def part_of(text: str) -> Any:
    """Read DIR or DIR:VIEWS; a folder whose own name ends in a number after a colon is taken as it is."""
    from host_trainer.distillation.session import Part

    folder, mark, views = text.rpartition(":")
    if mark and views.isdecimal() and not Path(text).is_dir():
        return Part(Path(folder), int(views))
    return Part(Path(text), 1)


def show(result: dict[str, Any]) -> None:
    """Say in words what came out."""
    tested = result["test_accuracy"]
    judged = f", right on {tested:.1%} of {result['test']} unseen pictures" if tested is not None else ""
    typer.echo(
        f"{result['network']} learned the {result['match']} of {result['teacher']}:"
        f" {result['steps']} steps, {result['views']} views of {result['pictures']} pictures{judged}"
    )
    typer.echo(f"it lives in {result['out']}; next: host-trainer export {result['out']} --target litert ...")
