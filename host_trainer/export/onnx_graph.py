"""Translates a Keras network into an ONNX graph, layer by layer; the same network gives the same bytes.

Batch normalisation is folded first. A picture comes in as Keras takes it, (1, H, W, 3), is turned once to
channels first, and every tensor carries the name of the Keras layer that makes it: so ranges that a training
found for a layer can be carried over by name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.graph import wiring

OPSET = 13  # the newest that TensorRT 8.2 of JetPack 4 takes whole
IR_VERSION = 7  # of ONNX 1.8, which brought opset 13
IMAGE = "image"  # name of the one input
FIRST = f"{IMAGE}/channels_first"
PRODUCER = "edge-cl"
PRECISION_KEY = "edge_cl.precision"  # in the file's metadata; the device reads it there
FLOAT16_MAX = 65504.0
FLOAT, HALF = 1, 10  # of onnx.TensorProto

Pads = tuple[int, int, int, int]  # top, left, bottom, right


class _Graph:
    """The ONNX graph as it grows: nodes, constants, and which tensor each layer gave."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.made: dict[str, str] = {}
        self.pads: dict[str, Pads] = {}
        self._dtype = dtype

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        return output

    def weights(self, name: str, values: NDArray[Any]) -> str:
        """Keep numbers that are computed with, in the precision of the graph."""
        if self._dtype is np.float16 and np.abs(values).max(initial=0) > FLOAT16_MAX:
            raise ModelError(f"{name} holds values beyond {FLOAT16_MAX:g}: this network does not fit fp16")
        return self.constant(name, values.astype(self._dtype))

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants[name] = np.ascontiguousarray(values)
        return name


class _Step(NamedTuple):
    """One layer to be translated, the names of its inputs, and the padding that was put off to it."""

    graph: _Graph
    layer: Any
    inputs: list[str]
    pads: Pads


def translate(model: Any, precision: str = "fp32") -> Any:
    """Return the network as an `onnx.ModelProto` with a static batch of 1.

    Arguments:
        model: functional Keras network, `image` (B, H, W, 3) float32 to one output.
        precision: `fp32`, or `fp16` for weights and arithmetic; input and output are float32 in both.

    Raises:
        ModelError: a layer that has no translation here, or weights that do not fit fp16.
    """
    folded = fold(model)
    graph = _Graph(np.float16 if precision == "fp16" else np.float32)
    _begin(graph, folded, precision)
    wires = wiring(folded)
    for name, sources in wires.sources.items():
        layer = folded.get_layer(name)
        if type(layer).__name__ == "InputLayer":
            continue
        if _is_put_off(layer, wires.takers[name], folded):
            graph.made[name], graph.pads[name] = graph.made[sources[0]], _zero_padding(layer)
        else:
            pads = graph.pads.get(sources[0], (0, 0, 0, 0))
            graph.made[name] = _layer(_Step(graph, layer, [graph.made[source] for source in sources], pads))
    return _packed(graph, folded, wires.outputs[0], precision)


def _begin(graph: _Graph, model: Any, precision: str) -> None:
    start = graph.node("Cast", [IMAGE], f"{IMAGE}/half", to=HALF) if precision == "fp16" else IMAGE
    source = wiring(model)
    first = next(name for name, feeding in source.sources.items() if not feeding)
    graph.made[first] = graph.node("Transpose", [start], FIRST, perm=[0, 3, 1, 2])


def _layer(step: _Step) -> str:
    kind = type(step.layer).__name__
    translation = TRANSLATIONS.get(kind)
    if translation is None:
        raise ModelError(
            f"layer {step.layer.name} is a {kind}, which has no ONNX translation here: "
            f"use {', '.join(sorted(TRANSLATIONS))}"
        )
    return translation(step)


def _convolution(step: _Step) -> str:
    layer = step.layer
    _check_channels_last(layer)
    kernel, *bias = layer.get_weights()
    return _convolved(step, kernel.transpose(3, 2, 0, 1), bias, int(getattr(layer, "groups", 1)))


def _depthwise(step: _Step) -> str:
    _check_channels_last(step.layer)
    kernel, *bias = step.layer.get_weights()  # (kh, kw, C, m); output channel is C * m + multiplier
    height, width, channels, multiplier = kernel.shape
    flat = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolved(step, flat, bias, channels)


def _convolved(step: _Step, kernel: NDArray[Any], bias: list[NDArray[Any]], groups: int) -> str:
    """Write one Conv; `kernel` is (out, in / groups, kh, kw)."""
    layer, graph, name = step.layer, step.graph, step.layer.name
    activation = _activation_name(layer)
    inputs = [step.inputs[0], graph.weights(f"{name}/kernel", kernel)]
    if bias:
        inputs.append(graph.weights(f"{name}/bias", bias[0]))
    made = graph.node(
        "Conv", inputs, name if activation == "linear" else f"{name}/linear", group=groups,
        kernel_shape=list(kernel.shape[2:]), strides=list(layer.strides),
        dilations=list(layer.dilation_rate), pads=list(_conv_pads(step)),
    )  # fmt: skip
    return _activated(graph, activation, made, name)


def _conv_pads(step: _Step) -> Pads:
    """Return what Keras pads: for `same`, the odd pixel goes to the end, and depends on the stride."""
    layer = step.layer
    if layer.padding == "valid":
        return step.pads
    sides = []
    for size, kernel, stride, dilation in zip(
        _spatial(layer.input), layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        reach = (kernel - 1) * dilation + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        sides.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = sides
    return (top, left, bottom, right)


def _dense(step: _Step) -> str:
    layer, graph, name = step.layer, step.graph, step.layer.name
    if len(layer.input.shape) != 2:
        raise ModelError(f"layer {name} takes {tuple(layer.input.shape)}: a Dense layer takes vectors here")
    activation = _activation_name(layer)
    kernel, *bias = layer.get_weights()
    # Output channels first, so that the axis of the scales is 0 as for a convolution.
    inputs = [step.inputs[0], graph.weights(f"{name}/kernel", kernel.T)]
    if bias:
        inputs.append(graph.weights(f"{name}/bias", bias[0]))
    made = graph.node("Gemm", inputs, name if activation == "linear" else f"{name}/linear", transB=1)
    return _activated(graph, activation, made, name)


def _relu(step: _Step) -> str:
    layer = step.layer
    if float(layer.negative_slope) or float(layer.threshold):
        raise ModelError(f"layer {layer.name} is a leaky or shifted ReLU: use a plain one, or ReLU6")
    if layer.max_value is None:
        return step.graph.node("Relu", step.inputs, layer.name)
    return _clipped(step.graph, float(layer.max_value), step.inputs[0], layer.name)


def _activation(step: _Step) -> str:
    return _activated(step.graph, _activation_name(step.layer), step.inputs[0], step.layer.name)


def _activated(graph: _Graph, activation: str, tensor: str, name: str) -> str:
    if activation == "linear":
        return tensor
    if activation == "relu":
        return graph.node("Relu", [tensor], name)
    if activation == "relu6":
        return _clipped(graph, 6.0, tensor, name)
    if activation == "softmax":
        return graph.node("Softmax", [tensor], name, axis=-1)
    raise ModelError(f"layer {name} ends in {activation}: use relu, relu6, softmax or none")


def _clipped(graph: _Graph, high: float, tensor: str, name: str) -> str:
    bounds = [graph.weights(f"bound_{value:g}", np.array(value)) for value in (0.0, high)]
    return graph.node("Clip", [tensor, *bounds], name)


def _added(step: _Step) -> str:
    made = step.inputs[0]
    for place, other in enumerate(step.inputs[1:], start=1):
        last = place == len(step.inputs) - 1
        made = step.graph.node(
            "Add", [made, other], step.layer.name if last else f"{step.layer.name}/{place}"
        )
    return made


def _padded(step: _Step) -> str:
    top, left, bottom, right = _zero_padding(step.layer)
    ends = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    pads = step.graph.constant(f"{step.layer.name}/pads", ends)
    return step.graph.node("Pad", [step.inputs[0], pads], step.layer.name)


def _pooled(step: _Step) -> str:
    layer = step.layer
    _check_channels_last(layer)
    if layer.keepdims:
        return step.graph.node("GlobalAveragePool", step.inputs, layer.name)
    maps = step.graph.node("GlobalAveragePool", step.inputs, f"{layer.name}/maps")
    return step.graph.node("Flatten", [maps], layer.name, axis=1)


def _reshaped(step: _Step) -> str:
    """Write Flatten or Reshape to a vector; maps larger than a pixel go back to Keras' order first."""
    layer, tensor = step.layer, step.inputs[0]
    if len(layer.output.shape) != 2:
        if int(np.prod(_spatial(layer.output))) == 1 and len(layer.input.shape) == 2:
            shape = np.array([1, int(layer.output.shape[-1]), 1, 1], np.int64)
            wanted = step.graph.constant(f"{layer.name}/shape", shape)
            return step.graph.node("Reshape", [tensor, wanted], layer.name)
        raise ModelError(f"layer {layer.name} reshapes to {tuple(layer.output.shape)}: only vectors serve")
    if len(layer.input.shape) == 4 and int(np.prod(_spatial(layer.input))) > 1:
        tensor = step.graph.node("Transpose", [tensor], f"{layer.name}/channels_last", perm=[0, 2, 3, 1])
    return step.graph.node("Flatten", [tensor], layer.name, axis=1)


def _unchanged(step: _Step) -> str:
    return step.inputs[0]


TRANSLATIONS: dict[str, Callable[[_Step], str]] = {
    "Activation": _activation,
    "Add": _added,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _unchanged,
    "Flatten": _reshaped,
    "GlobalAveragePooling2D": _pooled,
    "ReLU": _relu,
    "Reshape": _reshaped,
    "ZeroPadding2D": _padded,
}


def _is_put_off(layer: Any, takers: tuple[str, ...], model: Any) -> bool:
    """Tell whether a padding can become part of the convolutions after it, which costs nothing there."""
    if type(layer).__name__ != "ZeroPadding2D" or not takers:
        return False
    after = [model.get_layer(taker) for taker in takers]
    convolves = all(type(each).__name__ in ("Conv2D", "DepthwiseConv2D") for each in after)
    return convolves and all(each.padding == "valid" for each in after)


def _zero_padding(layer: Any) -> Pads:
    _check_channels_last(layer)
    (top, bottom), (left, right) = layer.padding
    return (int(top), int(left), int(bottom), int(right))


def _activation_name(layer: Any) -> str:
    return str(getattr(layer.activation, "__name__", layer.activation))


def _check_channels_last(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise ModelError(f"layer {layer.name} works channels first: build the network channels last")


def _spatial(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape[1:3])


def _packed(graph: _Graph, model: Any, last: str, precision: str) -> Any:
    from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

    shape = [1, *(int(size) for size in model.output.shape[1:])]
    _finish(graph, graph.made[last], last, len(shape), precision)
    packed = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, [1, *model.input.shape[1:]])],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(values, name) for name, values in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
    )
    helper.set_model_props(packed, {PRECISION_KEY: precision})
    inferred = shape_inference.infer_shapes(packed, check_type=True, strict_mode=True)
    checker.check_model(inferred, full_check=True)
    return inferred


def _finish(graph: _Graph, tensor: str, name: str, rank: int, precision: str) -> None:
    """Bring the last tensor into the form that Keras gives, under the last layer's name."""
    if rank == 4:
        tensor = graph.node("Transpose", [tensor], f"{name}/channels_last", perm=[0, 2, 3, 1])
    if precision == "fp16":
        tensor = graph.node("Cast", [tensor], f"{name}/float", to=FLOAT)
    _rename(graph, name, f"{name}/inner")
    _rename(graph, tensor if tensor != name else f"{name}/inner", name)


def _rename(graph: _Graph, old: str, new: str) -> None:
    for node in graph.nodes:
        for names in (node.input, node.output):
            for place, each in enumerate(names):
                if each == old:
                    names[place] = new
