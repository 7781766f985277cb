"""Keeps networks and trainings on the disk: safetensors for numbers, JSON for meaning, whole or not at all.

A checkpoint is a folder. `network.json` holds the graph (Keras' own configuration), the classes and the
origin; `weights.safetensors` the numbers, by Keras path. A training that can go on adds `training.json` and
`training.safetensors`: optimizer, step, and whatever its objective keeps.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import MismatchError, ModelError, ProtocolError
from edge_cl.wire.tensors import Limits, pack, unpack
from host_trainer.artefacts import staged_folder, write_file
from host_trainer.network import Network, check_image_network

VERSION = 1
NETWORK, WEIGHTS = "network.json", "weights.safetensors"
TRAINING, TRAINING_TENSORS = "training.json", "training.safetensors"
MAX_JSON_BYTES = 16 << 20  # the graph of a ResNet-18 takes 60 KB
MAX_TENSOR_BYTES = 4 << 30
LIMITS = Limits(header_bytes=8 << 20, tensors=20_000)  # our own files: a few hundred tensors with long names


class Training(NamedTuple):
    """What a stopped training needs to go on bit for bit.

    Attributes:
        step: steps done.
        optimizer: its variables in their order, {"0": array, ...}.
        state: what else the training keeps, as arrays.
        facts: plain JSON values: recipe, and what must not differ when it goes on.
    """

    step: int
    optimizer: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    facts: dict[str, Any]


def save_network(folder: Path, network: Network, training: Training | None = None) -> None:
    """Write a checkpoint; an old one of that name gives way once the new one is whole.

    Raises:
        StoreError: no space, no permission.
    """
    with staged_folder(folder, overwrite=True) as part:
        (part / NETWORK).write_text(json.dumps(_described(network), indent=1), encoding="utf-8")
        (part / WEIGHTS).write_bytes(pack(weights_of(network.model)))
        if training is not None:
            facts = {"version": VERSION, "step": training.step, "facts": training.facts}
            (part / TRAINING).write_text(json.dumps(facts, indent=1), encoding="utf-8")
            (part / TRAINING_TENSORS).write_bytes(
                pack({**under("optimizer", training.optimizer), **under("state", training.state)})
            )


def add_network(folder: Path, network: Network) -> None:
    """Write a network into a folder that holds other things; `network.json`, the last, says that it is whole.

    Raises:
        StoreError: no space, no permission.
    """
    write_file(folder / WEIGHTS, pack(weights_of(network.model)))
    write_file(folder / NETWORK, json.dumps(_described(network), indent=1).encode("utf-8"))


def load_network(folder: Path) -> Network:
    """Read a network back.

    Raises:
        ModelError: no checkpoint there, or a damaged one.
        MismatchError: written by a newer version, or weights of another network.
    """
    facts = _facts(folder, NETWORK)
    model = _rebuilt(facts, folder)
    set_weights(model, _tensors(folder, WEIGHTS), str(folder))
    low, high = facts["input_range"]
    return Network(model, tuple(facts["classes"]), (float(low), float(high)), facts["name"], facts["origin"])


def load_training(folder: Path) -> Training | None:
    """Read what a training needs to go on; None when the folder holds only a finished network.

    Raises:
        ModelError: damaged.
        MismatchError: written by a newer version.
    """
    if not (folder / TRAINING).is_file():
        return None
    facts, tensors = _facts(folder, TRAINING), _tensors(folder, TRAINING_TENSORS)
    return Training(int(facts["step"]), below("optimizer", tensors), below("state", tensors), facts["facts"])


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """Return every variable of a model by its path, as numpy arrays."""
    return {variable.path: np.asarray(variable.value) for variable in model.variables}


def optimizer_state(optimizer: Any) -> dict[str, np.ndarray]:
    """Return an optimizer's variables in their order, as `Training` keeps them."""
    return {str(number): np.asarray(variable.value) for number, variable in enumerate(optimizer.variables)}


def restore_optimizer(optimizer: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Give an optimizer the variables that `optimizer_state` returned."""
    for number, variable in enumerate(optimizer.variables):
        variable.assign(tensors[str(number)])


def check_facts(saved: Training, facts: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other options than a stopped training had.

    Raises:
        MismatchError: some differ; the message names them.
    """
    differing = sorted(name for name in {*saved.facts, *facts} if saved.facts.get(name) != facts.get(name))
    if differing:
        raise MismatchError(
            f"{folder} holds a training with other options ({', '.join(differing)}):"
            " give the same ones to go on, or another --out"
        )


def set_weights(model: Any, tensors: Mapping[str, np.ndarray], name: str) -> None:
    """Give a model its variables.

    Raises:
        MismatchError: the tensors are not those of this network; the message names the first that differs.
    """
    wanted = {variable.path: tuple(variable.shape) for variable in model.variables}
    for path in [*wanted, *tensors]:
        have = tensors[path].shape if path in tensors else None
        if wanted.get(path) != have:
            raise MismatchError(
                f"{name} is of another network: {path} is {have or 'missing'}, here it is {wanted.get(path)}"
            )
    for variable in model.variables:
        variable.assign(tensors[variable.path])


def _described(network: Network) -> dict[str, Any]:
    return {
        "version": VERSION,
        "name": network.name,
        "classes": list(network.classes),
        "input_range": list(network.input_range),
        "origin": network.origin,
        "graph": json.loads(network.model.to_json()),
    }


def _rebuilt(facts: dict[str, Any], folder: Path) -> Any:
    import keras

    try:
        model = keras.models.model_from_json(json.dumps(facts["graph"]))
    except Exception as error:  # Keras raises nearly anything on a graph it does not know
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{folder} holds a network that cannot be rebuilt ({reason}): train it anew"
        ) from error
    check_image_network(model, str(folder))
    return model


def _facts(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise ModelError(
            f"{folder} is no checkpoint (it has no {name}): give a folder that `host-trainer` wrote"
        )
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("too large")
        facts = json.loads(path.read_text(encoding="utf-8"))
        version = int(facts["version"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}): use an older checkpoint") from error
    if version > VERSION:
        raise MismatchError(f"{path} is of version {version}, this program reads {VERSION}: update it")
    needed = {NETWORK: {"name", "classes", "input_range", "origin", "graph"}, TRAINING: {"step", "facts"}}[
        name
    ]
    if not needed <= facts.keys():
        raise ModelError(f"{path} lacks {', '.join(sorted(needed - facts.keys()))}: use an older checkpoint")
    return dict(facts)


def _tensors(folder: Path, name: str) -> dict[str, np.ndarray]:
    path = folder / name
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise ModelError(f"{path} is larger than {MAX_TENSOR_BYTES} bytes: it is no checkpoint of ours")
        return unpack(path.read_bytes(), LIMITS)[0]
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): use an older checkpoint") from error
    except ProtocolError as error:
        raise ModelError(f"{path} is damaged or cut off ({error}): use an older checkpoint") from error


def under(group: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors named GROUP/NAME."""
    return {f"{group}/{name}": values for name, values in tensors.items()}


def below(group: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what `under` put into a group, by the names it had."""
    start = f"{group}/"
    return {name[len(start) :]: values for name, values in tensors.items() if name.startswith(start)}
