"""Whatever bytes are given as a TFLite file, the answer is a network or one clear ModelError."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("flatbuffers", reason="TFLite files are read and rewritten with LiteRT's schema")

from edge_cl.errors import ModelError
from edge_cl.vision.extractor import operator_name, unpack_model
from host_trainer.backbones.tflite.graph import Graph, read_graph
from host_trainer.backbones.tflite.rebuild import read_tflite


@pytest.fixture(scope="module")
def small(models_dir: Path) -> bytes:
    return (models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite").read_bytes()


@pytest.fixture(scope="module")
def mobile(models_dir: Path) -> bytes:
    return (models_dir / "mlperf_tiny" / "vww_96_int8.tflite").read_bytes()


def rewritten(data: bytes, change: Callable[[Any, Any], None]) -> bytes:
    import flatbuffers

    model = unpack_model(data)
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def operators(model: Any, name: str) -> list[Any]:
    return [one for one in model.subgraphs[0].operators if operator_name(model, one) == name]


def code_of(model: Any, operator: Any) -> Any:
    return model.operatorCodes[operator.opcodeIndex]


def refusal(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        read_graph(data)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").write_bytes(b"")
    with pytest.raises(ModelError, match="not a TFLite file"):
        read_tflite(tmp_path / "empty.tflite")


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tflite", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            read_tflite(path)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(small: bytes, fraction: float) -> None:
    assert "damaged" in refusal(small[: 8 + int(fraction * (len(small) - 8))])


def test_a_file_for_the_edge_tpu_is_refused(models_dir: Path) -> None:
    path = models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite"
    with pytest.raises(ModelError, match="compiled for the Edge TPU"):
        read_tflite(path)


def test_a_custom_operation_is_refused_by_name(models_dir: Path) -> None:
    assert "fake-op-double" in refusal((models_dir / "coral" / "model_invoking_error.tflite").read_bytes())


def test_sound_is_no_picture(models_dir: Path) -> None:
    assert "RGB picture" in refusal((models_dir / "mlperf_tiny" / "kws_ref_model.tflite").read_bytes())


def test_an_unknown_operation_is_refused_by_name_and_place(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        code = code_of(model, operators(model, "ADD")[0])
        code.builtinCode = code.deprecatedBuiltinCode = 18  # MUL

    message = refusal(rewritten(small, change))
    assert message.startswith("operation 3 (MUL) is not known here") and "CONV_2D" in message


def test_an_unknown_activation_is_refused(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.operators[0].builtinOptions.fusedActivationFunction = 4  # TANH

    assert "operation 0 (CONV_2D) has a fused activation" in refusal(rewritten(small, change))


def test_a_size_left_open_is_refused(mobile: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.tensors[int(graph.operators[3].outputs[0])].shapeSignature = np.array(
            [-1, -1, -1, 16], np.int32
        )

    assert "leaves its size open" in refusal(rewritten(mobile, change))


def test_a_shape_that_the_operation_does_not_give_is_refused(mobile: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.tensors[int(graph.operators[3].outputs[0])].shape = np.array([1, 48, 47, 16], np.int32)

    assert "operation 3" in refusal(rewritten(mobile, change))


def test_weights_that_are_computed_are_refused(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        model.buffers[graph.tensors[int(graph.operators[0].inputs[1])].buffer].data = None

    assert "operation 0 (CONV_2D) has weights or sizes that are computed" in refusal(rewritten(small, change))


def test_weights_without_scales_are_refused(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.tensors[int(graph.operators[0].inputs[1])].quantization = None

    assert "does not say how it is quantised" in refusal(rewritten(small, change))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(small: bytes, scale: float) -> None:
    def change(model: Any, graph: Any) -> None:
        quantised = graph.tensors[int(graph.operators[0].inputs[1])].quantization
        quantised.scale = np.array([scale, *quantised.scale[1:]], np.float32)

    assert "no positive number" in refusal(rewritten(small, change))


def test_two_outputs_are_refused(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.outputs = np.array([*graph.outputs, graph.operators[0].outputs[0]], np.int32)

    assert "2 outputs" in refusal(rewritten(small, change))


def test_a_step_before_its_source_is_refused(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.operators = graph.operators[::-1]

    assert "not computed yet" in refusal(rewritten(small, change))


def test_a_stride_of_zero_is_refused(small: bytes) -> None:
    def change(model: Any, graph: Any) -> None:
        graph.operators[0].builtinOptions.strideH = 0

    assert "does not slide" in refusal(rewritten(small, change))


def read_or_refuse(data: bytes) -> Graph | None:
    try:
        return read_graph(data)
    except ModelError as error:
        assert "\n" not in str(error)
        return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_a_graph_or_a_model_error(small: bytes, data: st.DataObject) -> None:
    damaged = bytearray(small)
    # The tables of a flatbuffer stand at both ends of the file; weights fill the middle.
    ends = st.integers(8, 4_000) | st.integers(len(small) - 12_000, len(small) - 1)
    for _ in range(data.draw(st.integers(1, 12))):
        damaged[data.draw(ends)] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=400))
def test_noise_gives_a_model_error(body: bytes) -> None:
    with pytest.raises(ModelError):
        read_graph(body)
    with pytest.raises(ModelError):
        read_graph(body[:4].ljust(4, b"\0") + b"TFL3" + body)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_well_formed_file_with_wrong_numbers_gives_a_graph_or_a_model_error(
    small: bytes, data: st.DataObject
) -> None:
    number = st.integers(-3, 40) | st.sampled_from([-(2**31), 2**31 - 1, 1 << 20])

    def change(model: Any, graph: Any) -> None:
        operator = data.draw(st.sampled_from(graph.operators))
        tensor = graph.tensors[int(data.draw(st.sampled_from([*operator.inputs, *operator.outputs])))]
        kind = data.draw(st.sampled_from(["shape", "inputs", "outputs", "type", "option", "axis"]))
        if kind == "shape":
            tensor.shape = np.array(data.draw(st.lists(number, max_size=5)), np.int32)
        elif kind in {"inputs", "outputs"}:
            setattr(operator, kind, np.array(data.draw(st.lists(number, max_size=4)), np.int32))
        elif kind == "type":
            tensor.type = data.draw(st.integers(0, 20))
        elif kind == "axis":
            tensor.quantization.quantizedDimension = data.draw(number)
        elif operator.builtinOptions is not None and vars(operator.builtinOptions):
            options = vars(operator.builtinOptions)
            name = data.draw(st.sampled_from(sorted(options)))
            if isinstance(options[name], int) and not isinstance(options[name], bool):
                limit = 100 if name in {"padding", "fusedActivationFunction", "weightsFormat"} else 2**31 - 1
                setattr(operator.builtinOptions, name, min(data.draw(st.integers(0, 60)), limit))

    read_or_refuse(rewritten(small, change))
