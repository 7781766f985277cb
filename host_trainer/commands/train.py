"""`host-trainer train`: a classifier from an image folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cl.errors import ConfigError
from host_trainer.commands.terminal import AsJson, meter, print_json, quiet_libraries, say

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
        help="FAMILY[:WIDTH][/SIZE]: mobilenetv1, mobilenetv2, resnet18, separable; or a checkpoint folder,"
        " or a .tflite file.",
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


def train(
    data: Data,
    out: Out,
    network: NetworkName = "mobilenetv2:0.35/96",
    weights: Weights = "random",
    epochs: Epochs = 20,
    batch: BatchSize = 64,
    rate: Rate = 2e-3,
    augment: Augment = "flip,crop",
    seed: Seed = 0,
    save_every: SaveEvery = 500,
    cache: Cache = None,
    tensorboard: Events = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on an image folder; its backbone is what `export` turns into a device's.

    Ctrl-C saves; the same command goes on. Runs on TensorFlow, or on JAX with KERAS_BACKEND=jax.
    """
    quiet_libraries()
    from host_trainer.training.session import Options, train_classifier

    options = Options(
        data=data,
        out=out,
        network=network,
        weights=weights,
        epochs=epochs,
        batch=batch,
        rate=rate,
        augment=names_of(augment),
        seed=seed,
        save_every=save_every,
        cache=cache,
        events=tensorboard,
    )
    result = train_classifier(options, meter, say)
    if as_json:
        print_json(result)
    else:
        show(result)


def names_of(text: str) -> tuple[str, ...]:
    """Read a list of names with commas between; `none` is the empty one."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
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
