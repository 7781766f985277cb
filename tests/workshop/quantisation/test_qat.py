"""Quantisation-aware training: what the network computes while it trains is what its int8 file computes."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edge_cl.errors import ModelError
from edge_cl.evaluation.agreement import cosines
from edge_cl.vision.backbone import open_backbone
from host_trainer.backbones.networks import with_head
from host_trainer.export.litert import convert
from host_trainer.network import to_input
from host_trainer.quantisation import qat
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.stepwise import units
from host_trainer.quantisation.tuning import Tuning, relative_distance, tuned

pytest.importorskip("tensorflow", reason="the TFLite export needs tensorflow")
ROOT = Path(__file__).parents[3]
RANGE = (-1.0, 1.0)


def answers(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(model(to_input(pixels, RANGE), training=False))


def on_device(data: bytes, folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the real features that the file gives, and the size of a step."""
    (folder / "qat.tflite").write_bytes(data)
    with open_backbone(folder / "qat.tflite") as backbone:
        space = backbone.space
        assert (backbone.input_range, backbone.assumption, space.dtype) == (RANGE, "", "int8")
        stored = backbone.embed_many(pixels).astype(np.float64)
        return (stored - space.zero_point) * space.scale, space.scale


@pytest.mark.parametrize("text", ["separable:0.25/32", "resnet18:0.125/32"])
def test_the_int8_file_computes_what_the_rounded_network_did(
    text: str, settled: Any, pixels: np.ndarray, tmp_path: Path
) -> None:
    wrapped = qat.wrap(fold(settled(text)))
    qat.calibrate(wrapped, pixels)
    found, step = on_device(convert(wrapped, "qat"), tmp_path, pixels)
    expected = answers(wrapped, pixels)
    assert np.abs(found - expected).mean() <= 1.0 * step
    assert cosines(found, expected).min() >= 0.999


def test_nothing_in_the_file_stays_float(settled: Any, pixels: np.ndarray) -> None:
    from ai_edge_litert import schema_py_generated as schema

    wrapped = qat.wrap(fold(with_head(settled("separable:0.25/32"), classes=4)))
    qat.calibrate(wrapped, pixels)
    data = convert(wrapped, "qat")
    assert data == convert(wrapped, "qat")
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)).subgraphs[0]
    assert {tensor.type for tensor in graph.tensors} <= {schema.TensorType.INT8, schema.TensorType.INT32}
    assert [list(tensor.shape)[0] for tensor in graph.tensors if len(tensor.shape) == 4].count(0) == 0


def test_ranges_stand_behind_what_tflite_keeps_and_nowhere_else(settled: Any, pixels: np.ndarray) -> None:
    wrapped = qat.wrap(fold(settled("mobilenetv2:0.35/32")))
    qat.calibrate(wrapped, pixels)
    ranges = qat.activation_ranges(wrapped)
    assert ranges["image"] == (pytest.approx(-127 / 127.5), pytest.approx(128 / 127.5))
    assert {"Conv1_relu", "block_1_project", "block_2_add", "feature"} <= ranges.keys()
    assert not {"Conv1", "block_1_pad", "block_1_expand"} & ranges.keys()  # fused, or with its input's scale
    assert all(low <= 0 <= high for low, high in ranges.values())


def test_calibrated_ranges_reach_all_that_the_pictures_do_and_stay(settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled("separable:0.25/32"))
    wrapped = qat.wrap(folded)
    qat.calibrate(wrapped, pixels)
    ranges = qat.activation_ranges(wrapped)
    seen = answers(folded, pixels)
    assert ranges["feature"] == (pytest.approx(seen.min(), abs=1e-5), pytest.approx(seen.max(), rel=1e-5))
    wrapped(to_input(255 - pixels, RANGE), training=True)
    assert qat.activation_ranges(wrapped) == ranges


def test_a_learned_size_of_a_range_is_in_the_file(settled: Any, pixels: np.ndarray, tmp_path: Path) -> None:
    wrapped = qat.wrap(fold(settled("separable:0.25/32")))
    qat.calibrate(wrapped, pixels)
    before = qat.activation_ranges(wrapped)["feature"][1]
    wrapped.get_layer("feature_range").stretch.assign(np.log(0.5))
    assert qat.activation_ranges(wrapped)["feature"][1] == pytest.approx(before / 2)
    found, step = on_device(convert(wrapped, "qat"), tmp_path, pixels)
    assert step == pytest.approx(before / 2 / 255, rel=1e-3)
    assert np.abs(found - answers(wrapped, pixels)).mean() <= 1.0 * step


def test_every_trained_number_has_a_step_of_its_own(settled: Any, pixels: np.ndarray) -> None:
    wrapped = qat.wrap(fold(settled("separable:0.25/32")))
    qat.calibrate(wrapped, pixels)
    found = dict(zip([each.path for each in wrapped.trainable_variables], units(wrapped), strict=True))
    kernel = np.asarray(wrapped.get_layer("stem").kernel.value)
    assert np.allclose(found[wrapped.get_layer("stem").kernel.path], np.abs(kernel).max(axis=(0, 1, 2)) / 127)
    low, high = qat.activation_ranges(wrapped)["stem_relu"]
    assert found[wrapped.get_layer("stem").bias.path] == pytest.approx((high - low) / 255)
    for variable in wrapped.trainable_variables:
        assert np.broadcast_shapes(found[variable.path].shape, variable.shape) == tuple(variable.shape)


@pytest.mark.parametrize("symmetric", [False, True])
def test_one_step_of_training_moves_weights_by_the_rate_in_their_own_steps(
    symmetric: bool, settled: Any, pixels: np.ndarray
) -> None:
    """Adam's first step is its rate, whatever the gradient: 0.01 steps of int8 here, in every layer.

    A symmetric network's head gives floats: its bias has no tensor's steps to count in.
    """
    folded = fold(with_head(settled("separable:0.25/32"), classes=4))
    start, moved = (
        tuned(folded, pixels, RANGE, Tuning(steps=steps, batch=8, symmetric=symmetric)) for steps in (0, 1)
    )
    for unit, before, after in zip(
        units(start), start.trainable_variables, moved.trainable_variables, strict=True
    ):
        far = np.abs(np.asarray(after.value) - np.asarray(before.value)) / unit
        assert far.max() <= 0.0101
    kernel = [np.asarray(each.get_layer("stem").kernel.value) for each in (start, moved)]
    assert np.abs(kernel[0] - kernel[1]).max() > 0


def test_pictures_count_by_their_own_size() -> None:
    wanted = np.array([[1.0, 0.0], [0.01, 0.0], [0.0, 0.0]], np.float32)
    found = np.array([[1.0, 0.1], [0.01, 0.001], [0.0, 0.0]], np.float32)
    loss, _ = relative_distance(lambda images, training: images, {"images": found, "wanted": wanted})
    assert float(loss) == pytest.approx((0.01 + 0.01 + 0.0) / 3, rel=1e-3)


def test_what_goes_in_comes_out_unrounded(settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled("separable:0.25/32"))
    wrapped = qat.wrap(folded)
    qat.calibrate(wrapped, pixels)
    plain = qat.unwrap(wrapped)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in folded.layers]
    assert np.array_equal(answers(plain, pixels), answers(folded, pixels))


def test_a_network_with_its_normalisation_is_not_wrapped(settled: Any) -> None:
    with pytest.raises(ModelError, match="fold normalisations first"):
        qat.wrap(settled("separable:0.25/32"))


def test_a_network_that_saw_no_pictures_is_not_exported(settled: Any) -> None:
    with pytest.raises(ModelError, match="calibrate"):
        convert(qat.wrap(fold(settled("separable:0.25/32"))), "qat")
    with pytest.raises(ModelError, match="wrap it"):
        convert(fold(settled("separable:0.25/32")), "qat")


def test_a_layer_used_twice_is_refused() -> None:
    image = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(conv(conv(image))))
    with pytest.raises(ModelError, match="twice"):
        qat.wrap(model)


def test_tuning_brings_a_rounded_network_back_to_its_float_self(settled: Any, pixels: np.ndarray) -> None:
    """One weight far out leaves few steps to the others of its channel: rounding alone loses much."""
    folded = fold(settled("separable:0.25/32"))
    for layer in folded.layers:
        if layer.name.endswith("pointwise"):
            kernel, bias = layer.get_weights()
            kernel[0, 0, 0, :] *= 40.0
            layer.set_weights([kernel, bias])
    rounded = qat.wrap(folded)
    qat.calibrate(rounded, pixels)
    told: list[float] = []
    wrapped = tuned(folded, pixels, RANGE, Tuning(steps=20, batch=8), lambda _, loss: told.append(loss))
    expected = answers(folded, pixels)
    before, after = (np.square(answers(each, pixels) - expected).mean() for each in (rounded, wrapped))
    assert after < 0.7 * before
    assert len(told) == 20 and np.isfinite(told).all()


def test_tuning_is_the_same_every_time(settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled("separable:0.25/32"))
    first, second = (tuned(folded, pixels, RANGE, Tuning(steps=3, batch=4)) for _ in range(2))
    assert all(np.array_equal(*both) for both in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed: its backend is not tried")
def test_the_rounded_network_trains_on_jax_too() -> None:
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import numpy as np
import keras
from host_trainer.network import to_input
from host_trainer.quantisation import qat
from host_trainer.quantisation.tuning import Tuning, tuned
pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
image = keras.Input((16, 16, 3), name="image")
maps = keras.layers.ReLU(6.0)(keras.layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(image))
maps = keras.layers.Conv2D(8, 1, name="point")(keras.layers.DepthwiseConv2D(3, name="deep")(maps))
model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="feature")(maps))
kernel, bias = model.get_layer("point").get_weights()
kernel[0, 0, 0, :] *= 40.0
model.get_layer("point").set_weights([kernel, bias])
losses = []
wrapped = tuned(model, pixels, (-1.0, 1.0), Tuning(steps=10, batch=8),
                lambda step, loss: losses.append(loss))
ranges = qat.activation_ranges(wrapped)
assert ranges.keys() == {{"image", "re_lu", "deep", "point", "feature"}}, ranges
rounded = qat.wrap(model)
qat.calibrate(rounded, pixels)
images = to_input(pixels, (-1.0, 1.0))
expected = np.asarray(model(images))
before, after = (np.square(np.asarray(each(images)) - expected).mean() for each in (rounded, wrapped))
assert after < before and np.isfinite(losses).all(), (before, after)
assert all(low <= 0 < high for low, high in ranges.values())
print("trained")
"""
    environment = {"KERAS_BACKEND": "jax", "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
