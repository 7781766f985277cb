"""Runs one training from options to a saved network: the shell around data, network, trainer and disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edge_cl.errors import ConfigError, MismatchError
from host_trainer.artefacts import make_folder, remove_folder
from host_trainer.backbones.networks import backbone_of, build, parse_spec, with_head
from host_trainer.backbones.weights import RANDOM, load_weights
from host_trainer.checkpoints import NETWORK, WEIGHTS, add_network, load_network
from host_trainer.datasets.augmentation import Augmentation
from host_trainer.datasets.batches import steps_of
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.datasets.pixels import Pixels, open_pixels
from host_trainer.network import Network
from host_trainer.training.classification import Labelled, accuracy, cross_entropy
from host_trainer.training.events import events
from host_trainer.training.trainer import RUNNING, Job, Recipe, fit, left_off

PIXELS = "pixels"  # folder inside --out, when no other cache is named
SHOWN_REFUSALS = 5


class Meter(Protocol):
    """Hears how far a task is."""

    def begin(self, done: float) -> None:
        """Start counting at `done`."""

    def show(self, done: float, words: str = "", size: int = 1) -> None:
        """Move to `done`."""


OpenMeter = Callable[[int, str], AbstractContextManager[Meter]]  # (total, unit)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a person asks of a training; see `host-trainer train --help` for each."""

    data: Path
    out: Path
    network: str
    weights: str = RANDOM
    epochs: float = 20
    batch: int = 64
    rate: float = 2e-3
    augment: tuple[str, ...] = ("flip", "crop")
    seed: int = 0
    save_every: int = 500
    cache: Path | None = None
    events: Path | None = None


def train_classifier(options: Options, open_meter: OpenMeter, say: Say) -> dict[str, Any]:
    """Train a classifier on an image folder and save it in `options.out`; return plain facts about it.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done; the loss is no number any more.
        StoreError: the disk refuses.
    """
    check_out(options.out)
    folder = read_folder(options.data)
    backbone = open_network(options.network, options.weights, options.seed)
    model = with_head(backbone.model, len(folder.train.classes), options.seed)
    network = backbone._replace(model=model, classes=folder.train.classes)
    augmentation = Augmentation(options.augment, network.input_size, options.seed)
    recipe = _recipe(options, len(folder.train.paths))  # refused, where it is, before a picture is read
    cache = options.cache or options.out / PIXELS
    train = decoded(folder.train, network, cache, open_meter, say)
    recipe = replace(recipe, steps=steps_of(options.epochs, len(train.values), options.batch))
    source = Labelled(train, network, options.batch, options.seed, augmentation)
    facts = {
        "network": options.network,
        "weights": options.weights,
        "classes": list(network.classes),
        "pictures": len(train.values),
        "augment": list(options.augment),
    }
    job = Job(network, cross_entropy(), source.__call__, recipe, facts)
    network = run_job(job, options.out, open_meter, say, options.events)
    tested = _tested(network, folder.test, cache, open_meter, say)
    result = {
        "network": options.network,
        "out": str(options.out),
        "classes": list(network.classes),
        "parameters": int(network.model.count_params()),
        "steps": recipe.steps,
        "train": len(train.values),
        "train_accuracy": accuracy(network, train),
        **tested,
        "refused": list(train.refused),
    }
    finish(network, options.out, {"command": "train", **facts, **{k: result[k] for k in ("steps", *tested)}})
    return result


def open_network(name: str, weights: str, seed: int) -> Network:
    """Return the bare backbone that a person named: FAMILY[:WIDTH][/SIZE][+haar], a checkpoint, or a .tflite.

    Raises:
        ConfigError, ModelError, MismatchError: no such network, or weights that do not fit.
    """
    path = Path(name)
    if (path / NETWORK).is_file():
        _only_random(weights, name)
        found = load_network(path)
        return found._replace(model=backbone_of(found.model), classes=())
    if path.suffix == ".tflite":
        from host_trainer.backbones.tflite.rebuild import read_tflite

        _only_random(weights, name)
        return read_tflite(path)
    spec = parse_spec(name)
    model = build(spec, seed)
    load_weights(model, spec, weights, seed)
    return Network(model, name=str(spec))


def check_out(out: Path, also: tuple[str, ...] = ()) -> None:
    """Refuse a folder that holds something else than a training of ours that was stopped, and `also`.

    Raises:
        ConfigError: it holds a finished network, or files that are not ours.
    """
    if not out.exists():
        return
    if (out / NETWORK).is_file():
        raise ConfigError(f"{out} holds a finished network: choose another --out, or remove it first")
    known = {RUNNING, PIXELS, WEIGHTS, *also}  # weights without their network: stopped while it finished
    if not out.is_dir() or any(
        path.name not in known and not path.name.startswith(".") for path in out.iterdir()
    ):
        raise ConfigError(f"{out} is there already and not ours: choose another --out")


def decoded(pictures: Pictures, network: Network, cache: Path, open_meter: OpenMeter, say: Say) -> Pixels:
    """Return pictures at the network's size, decoding them behind a progress bar; say what was refused."""
    with open_meter(len(pictures.paths), "pictures") as meter:
        pixels = open_pixels(
            pictures, network.input_size, cache, watch=lambda done: meter.show(done, "reading pictures")
        )
    tell_refused(pixels.refused, say)
    return pixels


def tell_refused(refused: Sequence[str], say: Say) -> None:
    """List the pictures that could not be read; the rest is used."""
    for line in refused[:SHOWN_REFUSALS]:
        say(line)
    if len(refused) > SHOWN_REFUSALS:
        say(f"... and {len(refused) - SHOWN_REFUSALS} more pictures cannot be read; the rest is used")


def run_job(
    job: Job, out: Path, open_meter: OpenMeter, say: Say, event_folder: Path | None = None
) -> Network:
    """Train behind a progress bar, from the start or from where a stopped training left off."""
    running = make_folder(out) / RUNNING
    saved = left_off(job, running)
    with events(event_folder) as told, open_meter(job.recipe.steps, "images") as meter:
        if saved is not None:
            say(f"going on at step {saved.step} of {job.recipe.steps}")
            meter.begin(saved.step)

        def watch(step: int, scalars: Mapping[str, float]) -> None:
            words = "  ".join(f"{name} {value:.3f}" for name, value in scalars.items())
            meter.show(step, words, job.recipe.batch)
            told.write(step, scalars)

        return fit(job, running, watch)


def finish(network: Network, out: Path, origin: dict[str, Any]) -> None:
    """Save the result beside what is left of the training, then remove that."""
    add_network(out, network._replace(origin={**network.origin, **origin}))
    remove_folder(out / RUNNING)


def _recipe(options: Options, pictures: int) -> Recipe:
    return Recipe(
        steps=steps_of(options.epochs, pictures, options.batch),
        batch=options.batch,
        rate=options.rate,
        seed=options.seed,
        save_every=options.save_every,
    )


def _tested(network: Network, test: Pictures, cache: Path, open_meter: OpenMeter, say: Say) -> dict[str, Any]:
    if not test.paths:
        return {"test": 0, "test_accuracy": None}
    pixels = decoded(test, network, cache, open_meter, say)
    return {"test": len(pixels.values), "test_accuracy": accuracy(network, pixels)}


def _only_random(weights: str, name: str) -> None:
    if weights != RANDOM:
        raise MismatchError(f"{name} brings its own weights: leave --weights out")
