"""The ONNX export answers as the Keras network does, in fp32 to the last digits and in fp16 closely."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ConfigError, ModelError, StoreError
from edge_cl.vision.backbone import Manifest
from host_trainer.export.onnx import export_onnx, likeness, run_onnx
from host_trainer.export.onnx_graph import IMAGE, OPSET, PRECISION_KEY, translate

keras = pytest.importorskip("keras", reason="the workshop's networks need keras")
onnx = pytest.importorskip("onnx", reason="the ONNX export needs onnx")
pytest.importorskip("onnxruntime", reason="the ONNX export is checked by onnxruntime")


def lived_in(model: Any, seed: int = 0) -> Any:
    """Give every normalisation statistics as a training leaves them, and every bias a value."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape),
                 rng.uniform(0.5, 2, shape)]
            )  # fmt: skip
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
    return model


def network(*layers: Any, size: tuple[int, int] = (12, 12)) -> Any:
    """A network of one branch."""
    image = tensor = keras.Input((*size, 3), name=IMAGE)
    for layer in layers:
        tensor = layer(tensor)
    return lived_in(keras.Model(image, tensor))


def noise(model: Any, count: int = 4) -> np.ndarray:
    shape = (count, *model.input.shape[1:])
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def answers(model: Any, images: np.ndarray, precision: str = "fp32") -> tuple[np.ndarray, np.ndarray]:
    """What Keras and what onnxruntime make of the images."""
    found = run_onnx(translate(model, precision).SerializeToString(), images)
    return np.asarray(model(images, training=False)), found


@pytest.mark.parametrize(
    "spec",
    [
        "mobilenetv1:0.25/32",
        "mobilenetv2:0.35/32",
        "resnet18:0.25/8",
        "separable:0.25/32",
        "separable:0.25/32+haar",
    ],
)
def test_every_family_answers_alike_with_and_without_its_head(spec: str) -> None:
    from host_trainer.backbones.networks import build, parse_spec, with_head

    backbone = lived_in(build(parse_spec(spec)))
    for model in (backbone, with_head(backbone, 7)):
        expected, found = answers(model, noise(model))
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_imagenet_features_of_photographs_are_the_same(
    imagenet: Any, photographs: np.ndarray, tmp_path: Path
) -> None:
    for precision, cosine in (("fp32", 0.999999), ("fp16", 0.999)):
        made = export_onnx(imagenet, tmp_path, precision, photographs[::8])
        assert made.images == 8 and made.cosine_min > cosine
    assert made.size_bytes < 0.6 * (tmp_path / "backbone_fp32.onnx").stat().st_size


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["Conv2D", "DepthwiseConv2D"]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]),
    size=st.tuples(st.integers(9, 14), st.integers(9, 14)),
)
def test_a_convolution_pads_and_steps_as_in_keras(
    kind: str, kernel: tuple[int, int], stride: int, dilation: int, padding: str, size: tuple[int, int]
) -> None:
    if dilation > 1:
        stride = 1  # Keras has no both
    options = {"strides": stride, "dilation_rate": dilation, "padding": padding}
    layer = (
        keras.layers.Conv2D(4, kernel, **options)
        if kind == "Conv2D"
        else keras.layers.DepthwiseConv2D(kernel, depth_multiplier=2, **options)
    )
    model = network(layer, size=size)
    expected, found = answers(model, noise(model, 2))
    assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-5)


def test_padding_layers_become_part_of_the_convolution_or_stay() -> None:
    layers = keras.layers
    absorbed = network(layers.ZeroPadding2D(((0, 1), (2, 0))), layers.Conv2D(4, 3, strides=2))
    alone = network(layers.ZeroPadding2D(1), layers.GlobalAveragePooling2D())
    for model, pads in ((absorbed, 0), (alone, 1)):
        kinds = [node.op_type for node in translate(model).graph.node]
        expected, found = answers(model, noise(model))
        assert kinds.count("Pad") == pads and np.allclose(found, expected, atol=1e-5)


def test_activations_inside_layers_and_classifier_ends_answer_alike() -> None:
    layers = keras.layers
    model = network(
        layers.Conv2D(8, 3, activation="relu6", groups=1, name="stem"),
        layers.Conv2D(8, 3, groups=4, activation="relu"),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(6, activation="relu6"),
        layers.Dropout(0.5),
        layers.Dense(5),
        layers.Activation("softmax"),
    )
    expected, found = answers(model, noise(model))
    assert np.allclose(found, expected, atol=1e-5) and np.allclose(found.sum(axis=1), 1, atol=1e-5)


def test_the_reshapes_of_keras_own_classifiers_answer_alike() -> None:
    layers = keras.layers
    model = network(
        layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(5, 1),
        layers.Reshape((5,)), layers.Activation("softmax"),
    )  # fmt: skip
    expected, found = answers(model, noise(model))
    assert np.allclose(found, expected, atol=1e-5)


def test_the_file_is_what_jetpack_4_takes(small: Any, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        model = onnx.load(export_onnx(small, tmp_path, precision).path)
        [image], [feature] = model.graph.input, model.graph.output
        assert image.name == "image" and feature.name == "feature"
        assert [size.dim_value for size in image.type.tensor_type.shape.dim] == [1, 32, 32, 3]
        assert {port.type.tensor_type.elem_type for port in (image, feature)} == {onnx.TensorProto.FLOAT}
        assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
        assert {each.key: each.value for each in model.metadata_props} == {PRECISION_KEY: precision}


def test_every_number_of_an_fp16_file_is_fp16(small: Any) -> None:
    kinds = {tensor.data_type for tensor in translate(small, "fp16").graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_the_same_network_gives_the_same_bytes(small: Any, tmp_path: Path) -> None:
    once, again = (export_onnx(small, tmp_path / name, "fp16") for name in ("a", "b"))
    assert once.sha256 == again.sha256 and once.path.read_bytes() == again.path.read_bytes()


def test_the_manifest_beside_it_names_the_file_and_its_input(small: Any, tmp_path: Path) -> None:
    made = export_onnx(small, tmp_path, "fp32")
    manifest = Manifest.from_json(made.path.with_suffix(".json").read_text())
    assert manifest.sha256 == made.sha256 and manifest.format == "onnx"
    assert (manifest.input_size, manifest.input_range) == ((32, 32), (-1.0, 1.0))
    assert (manifest.feature_size, manifest.feature_dtype) == (small.output.shape[1], "float32")


def test_a_layer_without_a_translation_is_named() -> None:
    model = network(keras.layers.UpSampling2D(name="bigger"), keras.layers.GlobalAveragePooling2D())
    with pytest.raises(ModelError, match="layer bigger is a UpSampling2D"):
        translate(model)


@pytest.mark.parametrize("layer", ["leaky", "gelu"])
def test_an_activation_without_a_translation_is_named(layer: str) -> None:
    leaky = keras.layers.ReLU(negative_slope=0.1, name="leaky")
    model = network(leaky if layer == "leaky" else keras.layers.Activation("gelu", name="gelu"))
    with pytest.raises(ModelError, match=f"layer {layer}"):
        translate(model)


def test_values_beyond_fp16_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = network(keras.layers.Conv2D(4, 3, name="loud"), keras.layers.GlobalAveragePooling2D())
    kernel, bias = model.get_layer("loud").get_weights()
    model.get_layer("loud").set_weights([kernel * 0 + 7000, bias])
    with pytest.raises(ModelError, match="activations reach"):
        export_onnx(model, tmp_path / "out", "fp16")
    model.get_layer("loud").set_weights([kernel * 0 + 7e4, bias])
    with pytest.raises(ModelError, match="does not fit fp16"):
        translate(model, "fp16")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_or_written_is_one_line(small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision 'int4'"):
        export_onnx(small, tmp_path, "int4")
    with pytest.raises(ConfigError, match="the network takes"):
        export_onnx(small, tmp_path, "fp32", np.zeros((2, 16, 16, 3), np.uint8))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        export_onnx(small, tmp_path / "file", "fp32")


def test_likeness_of_rows() -> None:
    one = np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    assert likeness(one, one) == (1.0, 1.0, 0.0)
    assert likeness(one, np.array([[0.0, 1.0], [0.0, 0.0], [3.0, 4.0]])).cosine_min == 0.0
    assert likeness(one, np.array([[1.0, 0.0], [0.5, 0.0], [3.0, 4.0]])).cosine_min == 0.0
