"""Trains the deployed network on with what devices sent, and makes its int8 file: the shell around SparCL.

It goes on from the network's own checkpoint, with its masks, its buffer and its averages; what it answered to
the pictures in the buffer is what it is held to, so that old answers stay.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_cl.errors import ModelError
from edge_cl.resident import peak_resident_bytes
from edge_cl.sample import label_key
from host_trainer.artefacts import remove_folder
from host_trainer.checkpoints import NETWORK
from host_trainer.datasets.folders import read_folder
from host_trainer.datasets.splits import spread
from host_trainer.retraining.job import Options, World
from host_trainer.retraining.runs import copy_file, copy_folder, read_facts

LEAST_PICTURES = 4  # of a class that the network has not met
REHEARSED = 50  # of the host's own pictures of a class, beside the network's buffer
TRAINED, EXPORTED, PICTURES = "trained", "exported", "pictures"
RECORD = "record.json"
SAVE_EVERY = 100  # steps
CONTINUAL = "continual"  # inside a finished training, what it can be gone on from


class Shown(NamedTuple):
    """A picture to train on: its class, the name it gets, and the file."""

    label: str
    name: str
    file: Path


class Situation(NamedTuple):
    """What decides whether the backbone is trained anew.

    Attributes:
        network: the release has a network to go on from.
        head_only: a person asked for the head alone.
        classes: of the fleet.
        met: that the network was trained on.
        pictures: {class: how many pictures devices sent}, since its training.
        own_at_hand: the host's own pictures are where they were, or there are none.
    """

    network: bool
    head_only: bool
    classes: Sequence[str]
    met: Sequence[str]
    pictures: Mapping[str, int]
    own_at_hand: bool


def why_only_the_head(found: Situation) -> str:
    """Say why the backbone stays as it is; empty when it is trained on."""
    if found.head_only:
        return "only the head: so it was asked"
    if not found.network:
        return "only the head: the release has no network of its own to go on from"
    if not any(found.pictures.values()):
        return "only the head: no pictures came since the network was trained"
    if not found.own_at_hand:
        return "only the head: the host's own pictures are gone, and the new backbone could not look at them"
    met = {label_key(label) for label in found.met}
    sent = {label_key(label): count for label, count in found.pictures.items()}
    lacking = [
        label
        for label in found.classes
        if label_key(label) not in met and sent.get(label_key(label), 0) < LEAST_PICTURES
    ]
    if lacking:
        return f"only the head: of class {lacking[0]} fewer than {LEAST_PICTURES} pictures came" + (
            f", and of {len(lacking) - 1} others" if len(lacking) > 1 else ""
        )
    return ""


def own_shown(folder: Path) -> list[Shown]:
    """Return the host's own pictures that are shown again, as evenly as may be."""
    found = read_folder(folder, least_classes=1).train
    shown = []
    for number, label in enumerate(found.classes):
        places = [i for i, each in enumerate(found.labels) if each == number]
        for place in spread(len(places), REHEARSED):
            path = found.paths[places[int(place)]]
            shown.append(Shown(label, f"own-{place}{path.suffix}", path))
    return shown


def trained_on(
    origin: Path, shown: Sequence[Shown], scratch: Path, asked: Options, world: World
) -> dict[str, Any]:
    """Train the network of `origin` on, and return plain facts; the result is in `scratch`/trained.

    Stopped or killed, the same call goes on where it was.

    Raises:
        ConfigError, ModelError, MismatchError: the network or the pictures cannot be used.
        EngineError: the loss is no longer a number.
    """
    folder = laid_out(shown, scratch / PICTURES)
    out = scratch / TRAINED
    if not (out / NETWORK).is_file():  # else it had ended when the run was killed
        _train(folder, out, origin, asked, world)
    metrics = read_facts(out / RECORD)["metrics"]
    return {"class_il": metrics["class_il"]}


def _train(folder: Path, out: Path, origin: Path, asked: Options, world: World) -> None:
    from host_trainer.sparcl.sweep import PROCESSES

    if (asked.engine, asked.workers) == (PROCESSES, 1):
        _train_here(folder, out, origin, asked.epochs, world)
    else:
        _train_elsewhere(folder, out, origin, asked, world)


def _train_here(folder: Path, out: Path, origin: Path, epochs: int | None, world: World) -> None:
    from host_trainer.sparcl.options import Options as TrainingOptions
    from host_trainer.sparcl.session import World as Training
    from host_trainer.sparcl.session import train_continually

    options = TrainingOptions(
        data=str(folder), out=out, origin=origin, tasks=1, epochs=epochs, save_every=SAVE_EVERY
    )
    around = Training(world.clock, peak_resident_bytes, world.open_meter, world.say, world.stopped)
    train_continually(options, around)


def _train_elsewhere(folder: Path, out: Path, origin: Path, asked: Options, world: World) -> None:
    """Train by the command of a person, in several processes or on Ray's cluster."""
    from host_trainer.sparcl.sweep import Run, carry_out, words_of

    given = {"origin": origin, "new_data": folder, "out": out, "tasks": 1, "save_every": SAVE_EVERY}
    given |= {"workers": asked.workers} | ({} if asked.epochs is None else {"epochs": asked.epochs})
    words = words_of({name: _absolute(value) for name, value in given.items()})
    carry_out([Run(TRAINED, words, out, asked.workers)], asked.engine, 1, world.say, world.stopped)


def _absolute(value: Any) -> Any:
    return value.resolve() if isinstance(value, Path) else value  # Ray's processes start elsewhere


def laid_out(shown: Sequence[Shown], folder: Path) -> Path:
    """Put pictures into FOLDER/CLASS/NAME, as trainings read them, and return the folder."""
    for each in shown:
        copy_file(each.file, folder / each.label / each.name)
    return folder


def exported(
    model: Path, data: Path, scratch: Path, world: World
) -> tuple[Path, tuple[str, ...], dict[str, Any]]:
    """Make the int8 file of a network; return it, why it is not alike enough (nothing: it is), and parity.

    Raises:
        ConfigError, ModelError, EngineError: it cannot be made.
    """
    from host_trainer.export.targets import MODEL, Order, Target, export

    out = scratch / EXPORTED
    remove_folder(out)  # of a run that was killed here
    order = Order(model=model, target=Target.LITERT, data=data, out=out, keep_failed=True)
    outcome = export(order, world.say)
    return out / MODEL, outcome.reasons, outcome.parity.to_dict()


def keep(trained: Path, place: Path) -> None:
    """Copy a finished training, so that the release can be gone on from."""
    copy_folder(trained, place, without=("pixels", "running"))


def classes_met(network: Path) -> tuple[str, ...]:
    """Return the classes that a finished training knows; StoreError when it does not read."""
    return tuple(read_facts(network / NETWORK)["classes"])


def check_finished(network: Path) -> None:
    """Raise ModelError unless a folder holds a finished training that can be gone on from."""
    if not (network / NETWORK).is_file() or not (network / CONTINUAL).is_dir():
        raise ModelError(
            f"{network} holds no training that can be gone on from: give a folder that"
            " `host-trainer train --method sparcl-derpp` finished"
        )
