"""The rules of TensorRT: our files keep them, and each one is noticed when it is broken."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_cl.errors import ConfigError, ModelError
from host_trainer.export.boards import BOARDS, choose_board, has_int8
from host_trainer.export.onnx_graph import OPSET, translate
from host_trainer.export.qdq import quantise
from host_trainer.export.tensorrt_rules import OPSETS, check_rules, read_graph

onnx = pytest.importorskip("onnx", reason="the rules read ONNX graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime quantises the ONNX file")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def int8(small: Any, images: np.ndarray) -> Any:
    from host_trainer.backbones.networks import with_head

    return quantise(translate(with_head(small, 5)), images)


@pytest.fixture
def graph(int8: Any) -> Any:
    """A good int8 graph that a test may break."""
    copy = onnx.ModelProto()
    copy.CopyFrom(int8)
    return copy


def constant(model: Any, name: str, values: np.ndarray) -> None:
    [old] = [each for each in model.graph.initializer if each.name == name]
    old.CopyFrom(onnx.numpy_helper.from_array(values, name))


def node(model: Any, name: str) -> Any:
    [found] = [each for each in model.graph.node if each.name == name]
    return found


def first(model: Any, kind: str, behind: str = "") -> Any:
    return next(each for each in model.graph.node if each.op_type == kind and behind in each.input[0])


def uint8_and_shifted(model: Any) -> None:
    constant(model, "stem_relu_zero_point", np.array(128, np.uint8))


def shifted(model: Any) -> None:
    constant(model, "stem_relu_zero_point", np.array(-3, np.int8))


def no_zero_point(model: Any) -> None:
    del first(model, "QuantizeLinear", "stem_relu").input[2]


def negative_scale(model: Any) -> None:
    constant(model, "stem_relu_scale", np.array(-0.1, np.float32))


def computed_scale(model: Any) -> None:
    made = onnx.helper.make_node("Identity", ["stem_relu_scale"], ["computed"], name="computing")
    model.graph.node.insert(0, made)
    first(model, "QuantizeLinear", "stem_relu").input[1] = "computed"


def per_channel_activation(model: Any) -> None:
    channels = 8
    constant(model, "stem_relu_scale", np.full(channels, 0.1, np.float32))
    constant(model, "stem_relu_zero_point", np.zeros(channels, np.int8))


def wrong_axis(model: Any) -> None:
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        [axis] = [each for each in first(model, kind, "logits/kernel").attribute if each.name == "axis"]
        axis.i = 1


def no_dequantise(model: Any) -> None:
    gone = first(model, "DequantizeLinear", "stem_relu")
    for each in model.graph.node:
        for place, name in enumerate(each.input):
            if name == gone.output[0]:
                each.input[place] = gone.input[0]
    model.graph.node.remove(gone)


def int8_weights(model: Any) -> None:
    gone = first(model, "QuantizeLinear", "stem/kernel")
    for each in model.graph.initializer:
        if each.name == "stem/kernel":
            shape = onnx.numpy_helper.to_array(each).shape
    constant(model, "stem/kernel", np.zeros(shape, np.int8))
    first(model, "DequantizeLinear", "stem/kernel").input[0] = "stem/kernel"
    model.graph.node.remove(gone)


def unequal_pair(model: Any) -> None:
    first(model, "DequantizeLinear", "stem_relu").input[1] = "block1_relu1_scale"


def quantised_bias(model: Any) -> None:
    add = model.graph.initializer.append
    add(onnx.numpy_helper.from_array(np.zeros(8, np.int32), "b"))
    add(onnx.numpy_helper.from_array(np.array(0.1, np.float32), "bs"))
    add(onnx.numpy_helper.from_array(np.array(0, np.int32), "bz"))
    model.graph.node.insert(
        0, onnx.helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], name="bias")
    )
    node(model, "stem/Conv").input[2] = "bd"


def newer_opset(model: Any) -> None:
    model.opset_import[0].version = 17


def foreign_operations(model: Any) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def unknown_operation(model: Any) -> None:
    first(model, "Clip").op_type = "NonZero"


def open_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def byte_input(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def outside_weights(model: Any) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


def infinite_weights(model: Any) -> None:
    constant(model, "stem/bias", np.full(8, np.inf, np.float32))


BREAKS: dict[str, tuple[Callable[[Any], None], str]] = {
    "uint8": (uint8_and_shifted, "int8"),
    "zero point": (shifted, "zero point"),
    "no zero point, which is uint8": (no_zero_point, "int8"),
    "negative scale": (negative_scale, "scale"),
    "computed scale": (computed_scale, "scale"),
    "scales a channel on an activation": (per_channel_activation, "axis"),
    "scales along the inputs": (wrong_axis, "axis"),
    "int8 into a convolution": (no_dequantise, "pair"),
    "weights kept as int8": (int8_weights, "pair"),
    "a pair of two scales": (unequal_pair, "pair"),
    "quantised bias": (quantised_bias, "bias"),
    "newer opset": (newer_opset, "opset"),
    "foreign operations": (foreign_operations, "opset"),
    "unknown operation": (unknown_operation, "operation"),
    "open batch": (open_batch, "shape"),
    "bytes as input": (byte_input, "type"),
    "weights in another file": (outside_weights, "file"),
    "weights that are not finite": (infinite_weights, "fp16 range"),
}


@pytest.mark.parametrize(("broken", "rule"), BREAKS.values(), ids=BREAKS)
def test_a_broken_rule_is_found(graph: Any, broken: Callable[[Any], None], rule: str) -> None:
    broken(graph)
    found = check_rules(graph)
    assert rule in {breach.rule for breach in found if breach.is_fatal}
    assert all("\n" not in breach.text for breach in found)


def test_our_own_files_break_none(int8: Any, small: Any) -> None:
    for tensorrt in OPSETS:
        for model in (int8, translate(small), translate(small, "fp16")):
            assert check_rules(model, tensorrt) == ()


def test_what_a_usual_quantisation_makes_is_refused(small: Any, images: np.ndarray, tmp_path: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        left = iter(images)

        def get_next(self) -> Any:
            image = next(self.left, None)
            return None if image is None else {"image": image[np.newaxis]}

    quantize_static(translate(small), tmp_path / "usual.onnx", Reader(), quant_format=QuantFormat.QDQ)
    found = check_rules(onnx.load(tmp_path / "usual.onnx"))
    assert {"int8", "bias", "pair"} <= {breach.rule for breach in found}


def test_a_pair_before_a_relu_and_a_half_quantised_sum_are_slow_but_taken(graph: Any) -> None:
    clip = next(each for each in graph.graph.node if each.op_type == "Clip" and each.name == "stem_relu/Clip")
    add = graph.graph.node.insert
    scales = ["stem_relu_scale", "stem_relu_zero_point"]
    add(0, onnx.helper.make_node("DequantizeLinear", ["early_q", *scales], ["early_dq"], name="early_dq"))
    add(0, onnx.helper.make_node("QuantizeLinear", [clip.input[0], *scales], ["early_q"], name="early_q"))
    add(0, onnx.helper.make_node("Add", ["early_dq", "stem_relu"], ["sum"], name="sum"))
    clip.input[0] = "early_dq"
    found = check_rules(graph)
    assert {(breach.rule, breach.is_fatal) for breach in found} == {("fusion", False), ("sum", False)}


def test_weights_beyond_fp16_are_a_warning(graph: Any) -> None:
    constant(graph, "stem/bias", np.full(8, 1e5, np.float32))
    [breach] = check_rules(graph)
    assert (breach.rule, breach.is_fatal) == ("fp16 range", False)


def test_bytes_that_are_no_onnx_file_are_one_line(int8: Any) -> None:
    whole = int8.SerializeToString()
    for data in (b"", b"no graph", whole[: len(whole) // 2]):
        with pytest.raises(ModelError, match="no whole ONNX file"):
            read_graph(data)
    assert read_graph(whole) == int8


def test_an_unknown_version_is_refused(int8: Any) -> None:
    with pytest.raises(ConfigError, match="7.1"):
        check_rules(int8, "7.1")


def test_a_board_gets_int8_exactly_where_its_gpu_has_it() -> None:
    assert all((board.precision == "int8") == has_int8(board.capability) for board in BOARDS)
    assert all(OPSETS[board.tensorrt] >= OPSET for board in BOARDS)


@pytest.mark.parametrize(
    ("text", "name"),
    [("nano", "nano"), ("Jetson Nano", "nano"), ("orin-nano", "orin"), ("Jetson AGX Orin", "orin"),
     ("Xavier NX", "xavier"), ("jetson_tx2", "tx2")],
)  # fmt: skip
def test_a_board_is_known_by_the_names_people_use(text: str, name: str) -> None:
    assert choose_board(text).name == name


def test_an_unknown_board_is_refused() -> None:
    with pytest.raises(ConfigError, match="'pi 5' is no board"):
        choose_board("pi 5")
