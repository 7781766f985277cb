"""A classifier cut at its embedding gives, bit for bit, what flowed through it before."""

import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import rewritten, unpacked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_cl.errors import ModelError
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.extractor import (
    BUFFER_ALIGNMENT_BYTES,
    Cut,
    collapse_fraction,
    cut_at_embedding,
    cut_at_logits,
    inspect_model,
    is_collapsed,
)
from edge_cl.vision.frames import decode_image
from edge_cl.vision.preprocess import prepare

CLASSIFIERS = [
    # file, values of its embedding, operations of its head
    ("coral/mobilenet_v1_0.25_128_quant.tflite", 256, 3),
    ("coral/mobilenet_v1_0.5_160_quant.tflite", 512, 3),
    ("coral/mobilenet_v2_1.0_224_quant.tflite", 1280, 3),
    ("coral/tf2_mobilenet_v2_1.0_224_ptq.tflite", 1280, 4),
    ("mlperf_tiny/pretrainedResnet_quant.tflite", 64, 3),
    ("mlperf_tiny/pretrainedResnet.tflite", 64, 3),
    ("mlperf_tiny/vww_96_int8.tflite", 256, 3),
    ("mlperf_tiny/vww_96_float.tflite", 256, 3),
]


def stored_input(data: bytes, image: Image.Image, path: Path) -> np.ndarray:
    """Return a photo as the file's input takes it (floats are given pixels as they are)."""
    shape = inspect_model(data).inputs[0].shape
    pixels = prepare(image, (shape[1], shape[2]))
    kind = inspect_model(data).inputs[0].dtype
    return (pixels.astype(int) - (128 if kind == "int8" else 0)).astype(kind)[np.newaxis]


def run(data: bytes, stored: np.ndarray, tensor: str | None = None, with_xnnpack: bool = True) -> np.ndarray:
    """Run a file in LiteRT; return its last output, or the inner tensor of that name."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if with_xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=tensor is not None,
        )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], stored)
    interpreter.invoke()
    if tensor is None:
        return interpreter.get_tensor(interpreter.get_output_details()[-1]["index"])
    details = [detail for detail in interpreter.get_tensor_details() if detail["name"] == tensor]
    return interpreter.get_tensor(details[0]["index"])


def with_second_output(data: bytes, tensor: str) -> bytes:
    def change(model: Any, graph: Any) -> None:
        index = next(i for i, one in enumerate(graph.tensors) if one.name == tensor.encode())
        graph.outputs = np.array([*graph.outputs, index], np.int32)
        model.signatureDefs = None

    return rewritten(data, change)


@pytest.mark.parametrize(("name", "size", "removed"), CLASSIFIERS)
def test_the_cut_output_is_the_inner_tensor_bit_for_bit(
    models_dir: Path, name: str, size: int, removed: int, parrot: Image.Image
) -> None:
    data = (models_dir / name).read_bytes()
    cut = cut_at_embedding(data)
    assert (cut.size, cut.removed) == (size, removed) and len(cut.data) < len(data)
    stored = stored_input(data, parrot, models_dir / name)
    plain = run(cut.data, stored, with_xnnpack=False)
    assert plain.size == size and np.unique(plain).size > 3
    assert np.array_equal(plain, run(data, stored, cut.tensor, with_xnnpack=False))
    fast = run(cut.data, stored)
    assert np.array_equal(fast, run(with_second_output(data, cut.tensor), stored))


@pytest.mark.parametrize(("name", "size", "removed"), CLASSIFIERS)
def test_the_cut_file_opens_as_a_backbone_and_cutting_again_changes_nothing(
    models_dir: Path, tmp_path: Path, name: str, size: int, removed: int, parrot: Image.Image
) -> None:
    data = (models_dir / name).read_bytes()
    cut = cut_at_embedding(data)
    assert cut_at_embedding(data) == cut
    assert cut_at_embedding(cut.data) == Cut(cut.data, cut.tensor, size, 0)
    path = tmp_path / "cut.tflite"
    path.write_bytes(cut.data)
    with open_backbone(path) as backbone:
        assert backbone.space.size == size and backbone.kernels == "xnnpack"
        assert backbone.embed(prepare(parrot, backbone.input_size)).shape == (size,)


@pytest.mark.parametrize(("name", "size", "removed"), CLASSIFIERS)
def test_nothing_of_the_head_stays_and_constants_are_aligned(
    models_dir: Path, name: str, size: int, removed: int
) -> None:
    data = (models_dir / name).read_bytes()
    cut = cut_at_embedding(data).data
    model = unpacked(cut)
    graph = model.subgraphs[0]
    used = {int(i) for operator in graph.operators for i in [*operator.inputs, *operator.outputs]}
    assert used == set(range(len(graph.tensors)))
    assert {operator.opcodeIndex for operator in graph.operators} == set(range(len(model.operatorCodes)))
    owners = {tensor.buffer for tensor in graph.tensors} | {m.buffer for m in model.metadata or []}
    assert owners | {0} == set(range(len(model.buffers)))
    assert not model.signatureDefs and {m.name for m in model.metadata or []} <= {b"min_runtime_version"}
    assert "SOFTMAX" not in inspect_model(cut).operators
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data):
            offset = buffer.data.__array_interface__["data"][0] - np.frombuffer(cut, np.uint8).ctypes.data
            assert offset % BUFFER_ALIGNMENT_BYTES == 0


def test_the_removed_head_still_tells_the_class_from_the_cut_feature(
    models_dir: Path, extractor_path: Path, parrot: Image.Image
) -> None:
    labels = (models_dir / "coral" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    head = (models_dir / "coral" / "mobilenet_quant_v1_224_head_layers.tflite").read_bytes()
    with open_backbone(extractor_path) as backbone:
        feature = backbone.embed(prepare(parrot, backbone.input_size))
    assert "macaw" in labels[int(run(head, feature.reshape(1, 1, 1, 1024)).argmax())]


@pytest.mark.parametrize(("name", "removed"), [(name, removed - 2) for name, _, removed in CLASSIFIERS])
def test_the_cut_logits_are_what_the_softmax_took_bit_for_bit(
    models_dir: Path, name: str, removed: int, parrot: Image.Image
) -> None:
    data = (models_dir / name).read_bytes()
    cut = cut_at_logits(data)
    assert cut.removed == max(removed, 1) and cut.size in {2, 10, 1001}
    stored = stored_input(data, parrot, models_dir / name)
    assert np.array_equal(run(cut.data, stored), run(with_second_output(data, cut.tensor), stored))
    assert run(cut.data, stored).argmax() == run(data, stored, with_xnnpack=True).argmax()
    assert cut_at_logits(cut.data) == Cut(cut.data, cut.tensor, cut.size, 0)


def test_a_file_without_logits_says_what_it_ends_in(extractor_path: Path) -> None:
    with pytest.raises(ModelError, match="AVERAGE_POOL_2D, not in the logits"):
        cut_at_logits(extractor_path.read_bytes())


def test_an_embedding_is_returned_as_it_came(extractor_path: Path) -> None:
    data = extractor_path.read_bytes()
    assert cut_at_embedding(data) == Cut(data, "MobilenetV1/Logits/AvgPool_1a/AvgPool", 1024, 0)


def test_a_last_layer_with_an_activation_makes_a_feature_and_stays(small_path: Path) -> None:
    def ends_in_relu(model: Any, graph: Any) -> None:
        dense = graph.operators[-2]
        dense.builtinOptions.fusedActivationFunction = 1
        graph.outputs, graph.operators = dense.outputs, graph.operators[:-1]

    data = rewritten(small_path.read_bytes(), ends_in_relu)
    assert cut_at_embedding(data)[2:] == (10, 0) and cut_at_embedding(data).data is data


def test_old_files_whose_operators_carry_only_the_first_code_are_cut_too(models_dir: Path) -> None:
    def change(model: Any, graph: Any) -> None:
        for code in model.operatorCodes:
            code.builtinCode = 0

    data = rewritten((models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite").read_bytes(), change)
    assert cut_at_embedding(data).size == 64


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coral/model_invoking_error.tflite", "fake-op-double"),
        ("coral/mobilenet_quant_v1_224_head_layers.tflite", "not an RGB picture"),
        ("coral/mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite", "compiled for the Edge TPU"),
        ("mlperf_tiny/kws_ref_model.tflite", "not an RGB picture"),
        ("mlperf_tiny/kws_ref_model_float32.tflite", "not an RGB picture"),
    ],
)
def test_models_that_cannot_be_cut_say_why(models_dir: Path, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as refusal:
        cut_at_embedding((models_dir / name).read_bytes())
    assert "\n" not in str(refusal.value)


def refuses(data: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        cut_at_embedding(data)


def test_odd_graphs_are_refused(small_path: Path) -> None:
    data = small_path.read_bytes()

    def two_outputs(model: Any, graph: Any) -> None:
        graph.outputs = np.array([*graph.outputs, 36], np.int32)

    def three_inputs(model: Any, graph: Any) -> None:
        graph.inputs = np.array([0, 1, 2], np.int32)

    def two_subgraphs(model: Any, graph: Any) -> None:
        model.subgraphs = [graph, graph]

    def ends_in_a_sum(model: Any, graph: Any) -> None:
        graph.outputs, graph.operators = np.array([33], np.int32), graph.operators[:-4]

    def flattens_a_map(model: Any, graph: Any) -> None:
        pool, reshape = graph.operators[-4], graph.operators[-3]
        reshape.inputs = np.array([pool.inputs[0], reshape.inputs[1]], np.int32)
        graph.operators.remove(pool)

    def no_operations(model: Any, graph: Any) -> None:
        graph.operators = []

    def index_outside(model: Any, graph: Any) -> None:
        graph.operators[3].outputs = np.array([9999], np.int32)

    def goes_round(model: Any, graph: Any) -> None:
        last = graph.operators[-1]  # the softmax that the walk starts with
        last.inputs = np.array([last.outputs[0]], np.int32)

    refuses(rewritten(data, goes_round), "takes what it makes itself")
    refuses(rewritten(data, two_outputs), "has 2 outputs")
    refuses(rewritten(data, three_inputs), "has 3 inputs")
    refuses(rewritten(data, two_subgraphs), "has 2 subgraphs")
    refuses(rewritten(data, ends_in_a_sum), "ends in ADD")
    refuses(rewritten(data, flattens_a_map), "no pooled feature")
    refuses(rewritten(data, no_operations), "no operations")
    refuses(b"", "not a TFLite file")
    refuses(data[: len(data) // 2], "damaged or cut off")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_files_are_cut_or_refused_and_nothing_else(
    small_path: Path, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(small_path.read_bytes())
    for place, value in changes:
        # The graph lies in the last part of the file; before it are only weights.
        data[int(len(data) * (0.75 + 0.249 * place))] = value
    try:
        cut = cut_at_embedding(bytes(data))
    except ModelError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert cut.size >= 2


def test_inspection_tells_what_is_in_a_file(small_path: Path, models_dir: Path) -> None:
    facts = inspect_model(small_path.read_bytes())
    assert facts.inputs[0].shape == (1, 32, 32, 3) and facts.outputs[0].shape == (1, 10)
    assert facts.operators["FULLY_CONNECTED"] == 1 and facts.subgraphs == 1 and not facts.is_edgetpu
    compiled = models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite"
    facts = inspect_model(compiled.read_bytes())
    assert facts.is_edgetpu and facts.operators == {"edgetpu-custom-op": 1}


def test_the_collapsed_feature_of_vww_is_noticed_and_a_good_one_is_not(
    data_dir: Path, models_dir: Path, extractor_path: Path, tmp_path: Path
) -> None:
    with tarfile.open(data_dir / "grocery_packages_224" / "grocery_packages_224.tar") as tar:
        members = [member for member in tar if member.isfile()][::90]
        photos = [decode_image(tar.extractfile(member).read(), member.name) for member in members]  # type: ignore[union-attr]
    path = tmp_path / "vww.tflite"
    path.write_bytes(cut_at_embedding((models_dir / "mlperf_tiny" / "vww_96_int8.tflite").read_bytes()).data)
    fractions = []
    for file in (path, extractor_path):
        with open_backbone(file) as backbone:
            features = np.stack([backbone.embed(prepare(photo, backbone.input_size)) for photo in photos])
            fractions.append(collapse_fraction(features, backbone.space.zero_point))
    assert is_collapsed(fractions[0]) and not is_collapsed(fractions[1]) and fractions[1] < 0.7


def test_the_collapse_fraction_counts_the_zero_point() -> None:
    assert collapse_fraction(np.array([[-128, -128], [3, 0]], np.int8), -128) == 0.5
    assert not is_collapsed(0.9) and is_collapsed(0.91)
