"""A network and its training read back as they were; damaged, foreign and newer ones are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_cl.errors import InputError, MismatchError, ModelError
from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.checkpoints import (
    NETWORK,
    TRAINING,
    WEIGHTS,
    Training,
    load_network,
    load_training,
    save_network,
    set_weights,
    weights_of,
)
from host_trainer.network import Network

CLASSES = ("cup", "mug", "спасибо")


@pytest.fixture(scope="module")
def network() -> Network:
    model = with_head(build(parse_spec("separable:0.25/16"), seed=4), len(CLASSES))
    return Network(model, CLASSES, (0.0, 1.0), "small", {"teacher": "none", "steps": 3})


@pytest.fixture(scope="module")
def saved(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "saved"
    numbers = {"0": np.array(7, np.int64), "1": np.arange(6, dtype=np.float32).reshape(2, 3)}
    save_network(folder, network, Training(7, numbers, {"mask": np.array([True, False])}, {"data": "here"}))
    return folder


def test_a_network_reads_back_with_its_meaning(network: Network, saved: Path) -> None:
    found = load_network(saved)
    assert found[1:] == network[1:]
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    assert np.array_equal(np.asarray(found.model(images)), np.asarray(network.model(images)))


def test_a_training_reads_back(saved: Path) -> None:
    found = load_training(saved)
    assert found is not None
    assert (found.step, found.facts) == (7, {"data": "here"})
    assert np.array_equal(found.optimizer["1"], np.arange(6).reshape(2, 3))
    assert found.state["mask"].tolist() == [True, False]


def test_a_finished_network_has_no_training(network: Network, tmp_path: Path) -> None:
    save_network(tmp_path / "done", network)
    assert load_training(tmp_path / "done") is None


def edit(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        facts = json.loads((folder / name).read_text())
        change(facts)
        (folder / name).write_text(json.dumps(facts))

    return act


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return act


BAD: dict[str, tuple[Callable[[Path], object], type[InputError], str]] = {
    "no such folder": (shutil.rmtree, ModelError, "is no checkpoint"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), ModelError, "cannot be read"),
    "weights cut off": (cut(WEIGHTS, 0.5), ModelError, "damaged or cut off"),
    "weights empty": (cut(WEIGHTS, 0.0), ModelError, "damaged or cut off"),
    "network cut off": (cut(NETWORK, 0.5), ModelError, "is damaged"),
    "not JSON": (lambda folder: (folder / NETWORK).write_bytes(b"\xff\xfe"), ModelError, "is damaged"),
    "from a newer version": (
        edit(NETWORK, lambda facts: facts.update(version=99)),
        MismatchError,
        "update it",
    ),
    "a field is missing": (edit(NETWORK, lambda facts: facts.pop("classes")), ModelError, "lacks classes"),
    "a graph of nothing": (
        edit(NETWORK, lambda facts: facts.update(graph={})),
        ModelError,
        "no plain network",
    ),
    "a layer nobody knows": (
        edit(NETWORK, lambda facts: facts["graph"].update(class_name="Surprise")),
        ModelError,
        "cannot be rebuilt",
    ),
}


@pytest.mark.parametrize(("harm", "kind", "words"), BAD.values(), ids=BAD)
def test_what_is_not_whole_is_refused(
    harm: Callable[[Path], object], kind: type[InputError], words: str, saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    harm(folder)
    with pytest.raises(kind, match=words) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)


def test_a_newer_training_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    edit(TRAINING, lambda facts: facts.update(version=99))(folder)
    with pytest.raises(MismatchError, match="update it"):
        load_training(folder)


def test_weights_of_another_network_are_refused_by_the_first_that_differs(network: Network) -> None:
    other = build(parse_spec("separable:0.5/16"))
    with pytest.raises(MismatchError, match="stem/kernel"):
        set_weights(other, weights_of(network.model), "the checkpoint")


def test_a_lambda_in_a_graph_is_not_run(saved: Path, tmp_path: Path) -> None:
    """Keras refuses to unpickle code; a checkpoint from a stranger runs nothing."""
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))

    def poison(facts: dict) -> None:
        layer = next(each for each in facts["graph"]["config"]["layers"] if each["class_name"] == "ReLU")
        layer["class_name"], layer["module"] = "Lambda", "keras.layers"
        layer["config"] = {
            "name": layer["config"]["name"],
            "function": {
                "class_name": "__lambda__",
                "config": {"code": "4wAAAA==", "defaults": None, "closure": None},
            },
        }

    edit(NETWORK, poison)(folder)
    with pytest.raises(ModelError, match="cannot be rebuilt"):
        load_network(folder)
