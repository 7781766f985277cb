"""Quantises an ONNX graph the way TensorRT takes it: Q/DQ pairs, int8, every zero point 0.

Weights have a scale for each output channel, activations one scale; biases stay float. Between a convolution
and its ReLU there is no pair, so that TensorRT fuses the two. The feature at the end stays float.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, ModelError
from edge_cl.vision.files import one_line
from host_trainer.export.onnx_graph import FIRST, IMAGE, PRECISION_KEY, PRODUCER

MIN_REPRESENTATIVE = 8  # pictures; ranges from fewer are those of single pictures
INT8_MAX = 127  # symmetric: -127..127, and -128 is not used
UNPAIRED = ("Relu", "Clip", "Flatten")  # take their input as it is


def quantise(
    graph: Any, images: NDArray[np.float32], ranges: Mapping[str, tuple[float, float]] | None = None
) -> Any:
    """Return the int8 form of an fp32 `onnx.ModelProto` of `onnx_graph.translate`.

    Arguments:
        graph: not changed.
        images: (N, H, W, 3) float32 as the network takes them; their ranges become the scales.
        ranges: (min, max) by layer name, taken instead; a layer's scale is max(|min|, |max|) / 127. Those of
            tensors that get no pair, such as a convolution's before its ReLU, are of no use and ignored.

    Raises:
        ConfigError: too few pictures; a range that is no range.
        ModelError: onnxruntime cannot quantise the graph.
    """
    import onnx

    if len(images) < MIN_REPRESENTATIVE:
        raise ConfigError(f"{len(images)} pictures to take ranges from: give at least {MIN_REPRESENTATIVE}")
    overrides = _overrides(graph, ranges or {})
    with tempfile.TemporaryDirectory(prefix="host-trainer-") as folder, _root_log_held():
        path = Path(folder) / "int8.onnx"
        try:
            _quantise_static(graph, path, images, overrides)
            quantised = onnx.load(path)
        except Exception as error:  # the quantiser raises whatever its passes raise
            raise ModelError(f"this network cannot be quantised for ONNX: {one_line(error)}") from error
    return _signed_by_us(quantised)


def scale_of(low: float, high: float) -> float:
    """Return the step of a symmetric int8 range: max(|low|, |high|) / 127."""
    return max(abs(low), abs(high)) / INT8_MAX


def _quantise_static(graph: Any, path: Path, images: NDArray[np.float32], overrides: dict[str, Any]) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    source = onnx.ModelProto()
    source.CopyFrom(graph)
    quantize_static(
        source,
        str(path),
        _reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            # What takes a convolution's output asks for the pair itself; a ReLU does not.
            "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "GlobalAveragePool"],
            "TensorQuantOverrides": overrides,
        },
    )


def _overrides(graph: Any, ranges: Mapping[str, tuple[float, float]]) -> dict[str, list[dict[str, Any]]]:
    """Return what the quantiser is told about the tensors that it will quantise and a range is given for."""
    from onnxruntime.quantization import QuantType

    chosen = {}
    for layer, (low, high) in ranges.items():
        if not (np.isfinite([low, high]).all() and low <= high and scale_of(low, high) > 0):
            raise ConfigError(f"the range of {layer} is {low:g}..{high:g}: give finite numbers, low to high")
        tensor = FIRST if layer == IMAGE else layer
        if _is_quantised(graph, tensor):
            scale, zero = np.array(scale_of(low, high), np.float32), np.array(0, np.int8)
            chosen[tensor] = [{"quant_type": QuantType.QInt8, "scale": scale, "zero_point": zero}]
    return chosen


def _is_quantised(graph: Any, tensor: str) -> bool:
    """Tell whether a tensor will get a pair: something other than a ReLU takes it."""
    takers = [node.op_type for node in graph.graph.node if tensor in node.input]
    return any(taker not in UNPAIRED for taker in takers)


def _reader(images: NDArray[np.float32]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands out one picture after the other."""

        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._left, None)
            return None if image is None else {IMAGE: image[np.newaxis]}

    return Reader()


def _signed_by_us(quantised: Any) -> Any:
    """Put in what the device reads, in place of what the quantiser left."""
    from onnx import helper

    quantised.producer_name, quantised.producer_version = PRODUCER, ""
    del quantised.metadata_props[:]
    helper.set_model_props(quantised, {PRECISION_KEY: "int8"})
    return quantised


@contextlib.contextmanager
def _root_log_held() -> Iterator[None]:
    """Keep the quantiser from logging at the root, which would also install a handler there for good."""
    root, silent = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silent)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.setLevel(level)
