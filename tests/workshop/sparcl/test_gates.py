"""A gate takes a kernel's gradient away and nothing else, at run time, on both backends."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the workshop's networks need keras")

from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.checkpoints import load_network, save_network, weights_of
from host_trainer.network import Network
from host_trainer.sparcl.gates import blocks_of, choose_blocks, gated, plain, switch
from host_trainer.training.gradients import Batch, open_stepper

NETWORKS = ["resnet18:0.125/16", "mobilenetv2:0.35/32", "separable:0.25/16"]
CLASSES, BATCH = 3, 8

# One step each of the plain network, with all gates open, with every other one closed, and with all closed;
# prints how far each kernel moved, and how often the gated step was traced. Small: JAX compiles for long.
ON_JAX = """
import json
import numpy as np, keras
from host_trainer.checkpoints import weights_of
from host_trainer.sparcl.gates import gated, switch
from host_trainer.training.gradients import open_stepper

image = keras.Input((8, 8, 3), name="image")
maps = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="one", activation="relu")(image)
maps = keras.layers.DepthwiseConv2D(3, padding="same", name="two")(maps)
maps = keras.layers.Conv2D(8, 1, name="three", use_bias=False)(maps)
network = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="feature")(maps))
first, (model, gates), traces = weights_of(network), gated(network), []
batch = {"images": np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)}

def loss(call, batch):
    traces.append(1)
    return keras.ops.mean(keras.ops.square(1 - call(batch["images"], training=True))), {}

def moved(stepper, model):
    stepper.step(batch)
    stepper.settle()
    after = weights_of(model)
    return {path: float(np.abs(after[path] - values).sum()) for path, values in first.items()}

told = {"plain": moved(open_stepper(network, keras.optimizers.SGD(0.1), loss), network)}
traces.clear()
stepper = open_stepper(model, keras.optimizers.SGD(0.1), loss)
for name, moving in {"open": list(gates), "half": ["one", "three"], "closed": []}.items():
    for variable in model.trainable_variables:
        variable.assign(first[variable.path])
    switch(gates, moving)
    stepper.resume()
    told[name] = moved(stepper, model)
print(json.dumps({**told, "traces": len(traces)}))
"""


@pytest.fixture(scope="module", params=NETWORKS)
def model(request: pytest.FixtureRequest) -> Any:
    return with_head(build(parse_spec(request.param), 1), CLASSES)


def batch_for(model: Any) -> Batch:
    rng, size = np.random.default_rng(0), model.input.shape[1]
    images = rng.uniform(-1, 1, (BATCH, size, size, 3)).astype(np.float32)
    return {"images": images, "labels": rng.integers(0, CLASSES, BATCH)}


def loss(call: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
    import keras

    logits = call(batch["images"], training=True)
    losses = keras.losses.sparse_categorical_crossentropy(batch["labels"], logits, from_logits=True)
    return keras.ops.mean(losses), {}


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    import tensorflow as tf

    trained = model.trainable_variables
    statistics = [(v, np.asarray(v.value)) for v in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        value, _ = loss(model, batch_for(model))
    found = tape.gradient(value, [variable.value for variable in trained])
    for variable, values in statistics:
        variable.assign(values)
    return {variable.path: np.asarray(g) for variable, g in zip(trained, found, strict=True)}


def test_open_gates_change_nothing_and_closed_ones_take_exactly_their_kernels_away(model: Any) -> None:
    drawn, gates = gated(model)
    expected, blocks = gradients_of(model), blocks_of(model)
    assert sorted(gates) == sorted(layer for block in blocks.values() for layer in block)

    found = gradients_of(drawn)
    assert found.keys() == expected.keys()
    for path, gradient in expected.items():
        assert np.allclose(found[path], gradient, rtol=1e-5, atol=1e-6), path

    moving = [layer for block in list(blocks.values())[::2] for layer in block]
    switch(gates, moving)
    found = gradients_of(drawn)
    for path, gradient in expected.items():
        layer = path.partition("/")[0]
        closed = layer in gates and layer not in moving and path.endswith("/kernel")
        assert np.allclose(found[path], 0 if closed else gradient, rtol=1e-5, atol=1e-6), path
        assert not closed or not np.any(found[path]), path


def test_a_gate_is_switched_without_a_new_trace() -> None:
    import keras

    drawn, gates = gated(with_head(build(parse_spec("separable:0.25/16")), CLASSES))
    traces = []

    def counted(call: Any, batch: Any) -> Any:
        traces.append(1)
        return loss(call, batch)

    stepper = open_stepper(drawn, keras.optimizers.SGD(0.1), counted)
    stepper.step(batch_for(drawn))
    before, traced = weights_of(drawn), len(traces)
    switch(gates, ["block1_pointwise"])
    stepper.step(batch_for(drawn))
    after = weights_of(drawn)
    assert len(traces) == traced
    still = {layer for layer in gates if np.array_equal(before[f"{layer}/kernel"], after[f"{layer}/kernel"])}
    assert still == gates.keys() - {"block1_pointwise"}


def test_the_finished_network_is_plain_again_and_is_saved_as_such(model: Any, tmp_path: Path) -> None:
    drawn, gates = gated(model)
    switch(gates, [])
    network = plain(drawn)
    assert [type(layer) for layer in network.layers] == [type(layer) for layer in model.layers]
    save_network(tmp_path / "net", Network(network, tuple("abc")))
    back = weights_of(load_network(tmp_path / "net").model)
    assert back.keys() == weights_of(model).keys()
    assert all(np.array_equal(back[path], values) for path, values in weights_of(model).items())
    answers = [np.asarray(each(batch_for(model)["images"], training=False)) for each in (model, drawn)]
    assert np.allclose(*answers, atol=1e-6)


def test_the_blocks_of_a_residual_net_are_its_blocks_with_their_shortcuts() -> None:
    blocks = blocks_of(build(parse_spec("resnet18:0.125/16")))
    assert len(blocks) == 9  # and the stem
    assert blocks["stage1_block2_conv1"] == ["stage1_block2_conv1", "stage1_block2_conv2"]
    assert len(blocks["stage2_block1_conv1"]) == 3


def test_the_blocks_of_a_mobilenet_expand_filter_and_project() -> None:
    blocks = blocks_of(build(parse_spec("mobilenetv2:0.35/32")))
    assert len(blocks) == 19
    assert blocks["block_1_expand"] == ["block_1_expand", "block_1_depthwise", "block_1_project"]
    assert blocks["block_2_expand"] == ["block_2_expand", "block_2_depthwise", "block_2_project"]
    assert blocks["expanded_conv_depthwise"] == ["expanded_conv_depthwise", "expanded_conv_project"]
    assert blocks["Conv1"] == ["Conv1"] and blocks["Conv_1"] == ["Conv_1"]


def test_the_blocks_of_a_separable_net_are_depthwise_and_pointwise() -> None:
    blocks = blocks_of(build(parse_spec("separable:0.25/16")))
    assert list(blocks)[:2] == ["stem", "block1_depthwise"]
    assert blocks["block1_depthwise"] == ["block1_depthwise", "block1_pointwise"]


def test_the_most_important_blocks_move() -> None:
    assert choose_blocks({"a": 1.0, "b": 3.0, "c": 2.0}, 2) == ["b", "c"]


def test_a_layer_that_learns_nothing_has_no_gate() -> None:
    model = build(parse_spec("separable:0.25/16"))
    model.get_layer("stem").trainable = False
    _, gates = gated(model)
    assert "stem" not in gates and "stem" not in blocks_of(model)


@pytest.mark.slow
def test_gates_are_the_same_on_jax() -> None:
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed: the second backend cannot be tried (pip install jax)")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", ON_JAX], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("traces") == 1
    kernels = {"one/kernel", "two/kernel", "three/kernel"}
    assert told["open"] == pytest.approx(told["plain"], rel=1e-4) and all(told["plain"].values())
    assert {path for path in kernels if told["half"][path]} == {"one/kernel", "three/kernel"}
    assert {path for path, way in told["closed"].items() if way} == {"one/bias", "two/bias"}
