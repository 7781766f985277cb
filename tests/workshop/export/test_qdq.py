"""The int8 ONNX file is of the one form that TensorRT takes, and its features stay close to the network's."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cl.errors import ConfigError
from host_trainer.export.onnx import export_tensorrt, likeness, run_onnx
from host_trainer.export.onnx_graph import FIRST, PRECISION_KEY, translate
from host_trainer.export.qdq import MIN_REPRESENTATIVE, quantise, scale_of

onnx = pytest.importorskip("onnx", reason="the ONNX export needs onnx")
pytest.importorskip("onnxruntime", reason="onnxruntime quantises the ONNX file")

PAIR = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def quantised(small: Any, pictures: np.ndarray) -> Any:
    return quantise(translate(small), (pictures / 127.5 - 1).astype(np.float32))


def constants(model: Any) -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


def test_a_network_that_is_not_fragile_stays_close(small: Any, pictures: np.ndarray, tmp_path: Path) -> None:
    made = export_tensorrt(small, pictures, tmp_path)
    assert made.cosine_min > 0.995 and made.images == len(pictures)


def test_imagenet_features_of_photographs_that_gave_no_ranges_stay_close(
    imagenet: Any, photographs: np.ndarray, tmp_path: Path
) -> None:
    made = export_tensorrt(imagenet, photographs[::2], tmp_path, board="orin")
    assert made.precision == "int8" and made.breaches == ()
    unseen = (photographs[1::2] / 127.5 - 1).astype(np.float32)
    alike = likeness(np.asarray(imagenet(unseen, training=False)), run_onnx(made.path.read_bytes(), unseen))
    # These weights are fragile to eight bits: a mean of 0.95 where each is rounded to its nearest step.
    assert alike.cosine_mean > 0.975 and alike.cosine_min > 0.92


def test_every_zero_point_is_int8_zero_and_every_scale_positive(quantised: Any) -> None:
    values = constants(quantised)
    nodes = [node for node in quantised.graph.node if node.op_type in PAIR]
    assert len(nodes) > 20
    for node in nodes:
        scale, zero = values[node.input[1]], values[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()
        assert scale.dtype == np.float32 and (scale > 0).all() and np.isfinite(scale).all()


def test_weights_have_a_scale_a_channel_and_biases_stay_float(quantised: Any) -> None:
    values = constants(quantised)
    producers = {node.output[0]: node for node in quantised.graph.node}
    for node in (node for node in quantised.graph.node if node.op_type == "Conv"):
        dequantised = producers[node.input[1]]
        weights = values[producers[dequantised.input[0]].input[0]]
        assert values[dequantised.input[1]].shape == weights.shape[:1]
        assert values[node.input[2]].dtype == np.float32


def test_no_pair_stands_between_a_convolution_and_its_relu(quantised: Any) -> None:
    producers = {node.output[0]: node.op_type for node in quantised.graph.node}
    clips = [node for node in quantised.graph.node if node.op_type == "Clip"]
    assert clips and {producers[node.input[0]] for node in clips} == {"Conv"}


def test_the_ranges_of_a_training_are_carried_over_exactly(small: Any, pictures: np.ndarray) -> None:
    ranges = {"image": (-1.0, 1.0), "stem_relu": (0.0, 6.0), "block1_relu1": (-0.25, 3.5)}
    images = (pictures / 127.5 - 1).astype(np.float32)
    values = constants(quantise(translate(small), images, ranges))
    assert values[f"{FIRST}_scale"] == np.float32(1 / 127)
    assert values["stem_relu_scale"] == np.float32(6 / 127)
    assert values["block1_relu1_scale"] == np.float32(3.5 / 127)
    free = constants(quantise(translate(small), images))
    assert values["block2_relu1_scale"] == free["block2_relu1_scale"]


def test_a_wrapped_network_hands_over_what_its_training_found(
    small: Any, pictures: np.ndarray, tmp_path: Path
) -> None:
    from host_trainer.quantisation import qat
    from host_trainer.quantisation.folding import fold

    wrapped = qat.wrap(fold(small))
    qat.calibrate(wrapped, pictures)
    ranges = qat.activation_ranges(wrapped)
    made = export_tensorrt(qat.unwrap(wrapped), pictures, tmp_path, ranges)
    values = constants(onnx.load(made.path))
    assert values["stem_relu_scale"] == np.float32(scale_of(*ranges["stem_relu"]))
    assert values[f"{FIRST}_scale"] == np.float32(scale_of(*ranges["image"]))
    assert made.cosine_min > 0.99


def test_a_network_tuned_for_symmetric_steps_computes_as_its_file(
    small: Any, pictures: np.ndarray, tmp_path: Path
) -> None:
    from host_trainer.quantisation import qat
    from host_trainer.quantisation.folding import fold

    images = (pictures / 127.5 - 1).astype(np.float32)
    likenesses = []
    for symmetric in (True, False):
        wrapped = qat.wrap(fold(small), symmetric=symmetric)
        qat.calibrate(wrapped, pictures)
        for layer in wrapped.layers:
            if layer.name.endswith(qat.RANGE) and not layer.fixed:
                layer.stretch.assign(-0.7)  # half of what is reached is cut, on both sides alike
        ranges = qat.activation_ranges(wrapped)
        made = export_tensorrt(qat.unwrap(wrapped), pictures, tmp_path / str(symmetric), ranges)
        found = run_onnx(made.path.read_bytes(), images)
        likenesses.append(likeness(np.asarray(wrapped(images, training=False)), found).cosine_min)
    assert likenesses[0] > 0.9995 > likenesses[1]


def test_a_range_before_a_relu_changes_nothing(small: Any, pictures: np.ndarray, quantised: Any) -> None:
    images = (pictures / 127.5 - 1).astype(np.float32)
    again = quantise(translate(small), images, {"stem": (-40.0, 40.0)})
    assert again == quantised


def test_ranges_of_unknown_layers_and_broken_ranges_are_refused(
    small: Any, pictures: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'stem_relu7'"):
        export_tensorrt(small, pictures, tmp_path, {"stem_relu7": (0, 6)})
    for wrong in ((6.0, 0.0), (0.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="the range of stem_relu"):
            export_tensorrt(small, pictures, tmp_path, {"stem_relu": wrong})
    assert not list(tmp_path.iterdir())


def test_too_few_pictures_are_refused(small: Any, pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"give at least {MIN_REPRESENTATIVE}"):
        export_tensorrt(small, pictures[: MIN_REPRESENTATIVE - 1], tmp_path)


def test_pictures_that_are_not_bytes_are_refused(small: Any, pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pictures are float32: give bytes"):
        export_tensorrt(small, pictures.astype(np.float32), tmp_path)


def test_the_board_decides_the_precision(small: Any, pictures: np.ndarray, tmp_path: Path) -> None:
    for board, precision in (("nano", "fp16"), ("Jetson TX2", "fp16"), ("xavier", "int8"), ("orin", "int8")):
        made = export_tensorrt(small, pictures, tmp_path, board=board)
        assert (made.precision, made.path.name) == (precision, f"backbone_{precision}.onnx")
        [entry] = onnx.load(made.path).metadata_props
        assert (entry.key, entry.value) == (PRECISION_KEY, precision)


def test_the_same_pictures_give_the_same_bytes(small: Any, pictures: np.ndarray, tmp_path: Path) -> None:
    once, again = (export_tensorrt(small, pictures, tmp_path / name) for name in ("a", "b"))
    assert once.sha256 == again.sha256


def test_quantising_says_nothing_and_leaves_the_log_as_it_was(
    small: Any, pictures: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    quantise(translate(small), (pictures / 127.5 - 1).astype(np.float32))
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == (handlers, level)
    assert capfd.readouterr() == ("", "")


def test_a_scale_spans_the_larger_side() -> None:
    assert scale_of(-2.54, 1.0) == pytest.approx(0.02) and scale_of(0, 1.27) == pytest.approx(0.01)
