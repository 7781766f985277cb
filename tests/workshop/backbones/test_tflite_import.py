"""A TFLite file becomes a float network that answers as the file does."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("keras", reason="the workshop's networks need keras")
pytest.importorskip("flatbuffers", reason="TFLite files are read and rewritten with LiteRT's schema")

from edge_cl.errors import MismatchError, ModelError
from edge_cl.vision.extractor import unpack_model
from edge_cl.vision.preprocess import prepare
from host_trainer.backbones.networks import FEATURE, LOGITS, build, parse_spec, with_head
from host_trainer.backbones.tflite.graph import Activation, Addition, Convolution, Depthwise, read_graph
from host_trainer.backbones.tflite.parity import Parity, network_outputs, parity, row_cosines
from host_trainer.backbones.tflite.rebuild import read_tflite, rebuild
from host_trainer.network import Network

# File, its feature's size, what it makes of pixel values 0 and 255.
QUANTISED = [
    ("coral/mobilenet_v1_0.25_128_quant.tflite", 256, (-1.0, 0.9921875)),
    ("mlperf_tiny/vww_96_int8.tflite", 256, (0.0, 1.0)),
    ("mlperf_tiny/pretrainedResnet_quant.tflite", 64, (0.0, 255.0)),
    pytest.param("coral/mobilenet_v1_0.5_160_quant.tflite", 512, (-1.0, 0.9921875), marks=pytest.mark.slow),
    pytest.param("coral/mobilenet_v2_1.0_224_quant.tflite", 1280, (-1.0, 0.9921875), marks=pytest.mark.slow),
    pytest.param(
        "coral/tf2_mobilenet_v2_1.0_224_ptq.tflite", 1280, (-0.996078, 1.003922), marks=pytest.mark.slow
    ),
    pytest.param(
        "coral/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
        1024,
        (-1.0, 0.9921875),
        marks=pytest.mark.slow,
    ),
]
FLOAT = [
    ("mlperf_tiny/pretrainedResnet.tflite", (0.0, 255.0)),
    ("mlperf_tiny/vww_96_float.tflite", (0.0, 1.0)),
]
PICTURES = 16


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> list[Image.Image]:
    with tarfile.open(data_dir / "trashnet_224" / "trashnet_224.tar") as tar:
        members = sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
        chosen = [members[i] for i in np.linspace(0, len(members) - 1, PICTURES).astype(int)]
        files = [tar.extractfile(member) for member in chosen]
        return [Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file is not None]


def shown(photographs: list[Image.Image], network: Network) -> np.ndarray:
    return np.stack([prepare(image, network.input_size) for image in photographs])


def rewritten(data: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """Return the file after `change(model, first subgraph)`."""
    import flatbuffers

    model = unpack_model(data)
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(("name", "size", "input_range"), QUANTISED)
def test_a_quantised_file_answers_as_its_float_network_on_photographs(
    models_dir: Path, photographs: list[Image.Image], name: str, size: int, input_range: tuple[float, float]
) -> None:
    network = read_tflite(models_dir / name)

    assert network.model.output.shape == (None, size) and network.model.layers[-1].name == FEATURE
    assert network.input_range == pytest.approx(input_range, abs=1e-6)
    found = parity(models_dir / name, network, shown(photographs, network))
    assert found.cosine_min > 0.98 and found.cosine_mean > 0.995 and found.top1_agreement is None


@pytest.mark.parametrize(("name", "input_range"), FLOAT)
def test_a_float_file_answers_as_its_network_to_rounding(
    models_dir: Path, photographs: list[Image.Image], name: str, input_range: tuple[float, float]
) -> None:
    for keep_head in (False, True):
        network = read_tflite(models_dir / name, keep_head=keep_head, input_range=input_range)
        found = parity(models_dir / name, network, shown(photographs, network))
        assert found.cosine_min > 1 - 1e-9
        assert found.top1_agreement == (1.0 if keep_head else None)


def test_a_kept_head_gives_logits_and_names_its_classes(
    models_dir: Path, photographs: list[Image.Image]
) -> None:
    path = models_dir / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    labels = [f"class {i}" for i in range(1001)]

    network = read_tflite(path, keep_head=True, labels=labels)

    assert network.model.layers[-1].name == LOGITS and network.classes == tuple(labels)
    assert network.origin["function"] == "softmax" and network.origin["cut_at"] is None
    found = parity(path, network, shown(photographs, network))
    assert found.top1_agreement is not None and found.top1_agreement >= 0.75  # of 1,001, on waste


def test_int8_and_float_files_of_one_network_become_the_same_network_to_rounding(
    models_dir: Path, photographs: list[Image.Image]
) -> None:
    folder = models_dir / "mlperf_tiny"
    quantised = read_tflite(folder / "pretrainedResnet_quant.tflite")
    original = read_tflite(folder / "pretrainedResnet.tflite", input_range=(0.0, 255.0))
    images = shown(photographs, original)

    cosines = row_cosines(network_outputs(quantised, images), network_outputs(original, images))

    assert cosines.min() > 0.995 and cosines.mean() > 0.998


def test_no_normalisation_is_left_and_every_layer_has_a_name_of_its_own(models_dir: Path) -> None:
    model = read_tflite(models_dir / "mlperf_tiny" / "vww_96_int8.tflite").model
    kinds = {type(layer).__name__ for layer in model.layers}

    assert kinds == {"InputLayer", "Conv2D", "DepthwiseConv2D", "ReLU", "GlobalAveragePooling2D"}
    assert len({layer.name for layer in model.layers}) == len(model.layers)
    for layer in model.layers:
        if hasattr(layer, "use_bias"):
            assert layer.use_bias and layer.activation.__name__ == "linear"


@pytest.mark.parametrize(
    "text",
    [
        "separable:0.25/33",
        pytest.param("mobilenetv1:0.25/64", marks=pytest.mark.slow),
        pytest.param("mobilenetv2:0.35/48", marks=pytest.mark.slow),
        pytest.param("resnet18:0.125/17", marks=pytest.mark.slow),
    ],
)
def test_a_float_export_comes_back_as_the_network_it_was(tmp_path: Path, text: str) -> None:
    # Odd and even sizes under strides of two: SAME pads one side more than the other.
    from host_trainer.export.litert import Scheme, convert

    pytest.importorskip("tensorflow", reason="the TFLite converter is TensorFlow's")
    model = build(parse_spec(text), seed=3)
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input.shape[1:]), dtype=np.uint8)
    path = tmp_path / "network.tflite"
    path.write_bytes(convert(model, Scheme.FLOAT))

    back = read_tflite(path)

    wanted = network_outputs(Network(model), images)
    np.testing.assert_allclose(network_outputs(back, images), wanted, rtol=1e-4, atol=1e-4 * wanted.max())


@pytest.mark.parametrize("scheme", ["float16", pytest.param("dynamic", marks=pytest.mark.slow)])
def test_half_and_dynamic_files_are_read_too(tmp_path: Path, scheme: str) -> None:
    from host_trainer.export.litert import convert

    pytest.importorskip("tensorflow", reason="the TFLite converter is TensorFlow's")
    model = build(parse_spec("separable:0.25/32"))
    path = tmp_path / "network.tflite"
    path.write_bytes(convert(model, scheme))
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)

    cosines = row_cosines(network_outputs(read_tflite(path), images), network_outputs(Network(model), images))

    assert cosines.min() > 0.999


def test_an_activation_hidden_in_a_stored_range_is_found(models_dir: Path) -> None:
    data = (models_dir / "coral" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()

    def hide(model: Any, graph: Any) -> None:
        for operator in graph.operators:
            if hasattr(operator.builtinOptions, "fusedActivationFunction"):
                operator.builtinOptions.fusedActivationFunction = 0

    seen, hidden = (
        [step.layer.function for step in read_graph(file).steps if isinstance(step.layer, Activation)]
        for file in (data, rewritten(data, hide))
    )
    assert hidden == seen and seen.count("relu6") == 27


def test_a_trained_network_can_be_fine_tuned_from_a_file(models_dir: Path) -> None:
    import keras

    network = read_tflite(models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite")
    classifier = with_head(network.model, 3)

    assert classifier.output.shape == (None, 3)
    assert len(classifier.trainable_variables) == 2 * 9 + 2
    assert keras.models.model_from_json(classifier.to_json()).count_params() == classifier.count_params()


def test_the_graph_says_what_the_file_computes(models_dir: Path) -> None:
    graph = read_graph((models_dir / "coral" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes())
    count = {
        kind: sum(isinstance(s.layer, kind) for s in graph.steps)
        for kind in (Convolution, Depthwise, Addition)
    }

    assert count == {Convolution: 35, Depthwise: 17, Addition: 10}  # the 36th convolution is the head
    first = graph.steps[0].layer
    assert isinstance(first, Convolution) and first.kernel.shape == (3, 3, 3, 32) and first.padding == "same"


def test_labels_of_another_number_are_a_mismatch(models_dir: Path) -> None:
    path = models_dir / "mlperf_tiny" / "vww_96_int8.tflite"
    with pytest.raises(MismatchError, match="3 labels for 2 outputs"):
        read_tflite(path, keep_head=True, labels=["a", "b", "c"])


def test_a_backbone_has_no_head_to_keep(models_dir: Path) -> None:
    path = models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    with pytest.raises(ModelError, match="no head to keep"):
        read_tflite(path, keep_head=True)


def test_pictures_of_another_size_are_refused(models_dir: Path) -> None:
    path = models_dir / "mlperf_tiny" / "vww_96_int8.tflite"
    with pytest.raises(ModelError, match="cannot be shown"):
        parity(path, read_tflite(path), np.zeros((2, 32, 32, 3), np.uint8))


def test_parity_of_a_network_with_other_weights_is_low(
    models_dir: Path, photographs: list[Image.Image]
) -> None:
    path = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    network = read_tflite(path)
    graph = read_graph(path.read_bytes())
    stranger = rebuild(graph._replace(output=_feature_of(graph)), "stranger")
    for layer in stranger.layers:
        layer.set_weights([values[..., ::-1] for values in layer.get_weights()])

    found = parity(path, network._replace(model=stranger), shown(photographs, network))

    assert isinstance(found, Parity) and found.cosine_min < 0.9


def _feature_of(graph: Any) -> int:
    return next(i for i, step in enumerate(graph.steps) if step.name == FEATURE)
