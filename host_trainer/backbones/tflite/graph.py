"""Reads a TFLite file as typed steps with real-valued constants: what the network computes, not how.

Quantisation is taken out: constants become float32, QUANTIZE and DEQUANTIZE vanish, and what a stored range
does silently (a uint8 tensor that starts at zero is a ReLU) becomes a step of its own. So do activations that
were fused. RESHAPE and SQUEEZE of a pooled map vanish too; a 1x1 convolution over it is a dense layer.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from edge_cl.vision.extractor import (
    check_plain,
    damaged_model,
    inspect_model,
    operator_name,
    port_of,
    unpack_model,
)
from edge_cl.vision.ports import Port, image_port
from host_trainer.backbones.networks import FEATURE, LOGITS
from host_trainer.backbones.tflite.constants import real_values, stored_values

IMAGE = -1  # stands for the network's input where a step names its sources
MAX_MAP_VALUES = 1 << 26  # of one activation; 256 MB of float32, far beyond any small network
FUSED = {0: "", 1: "relu", 3: "relu6"}  # ActivationFunctionType in schema.fbs
PADDINGS = {0: "same", 1: "valid"}  # Padding in schema.fbs
HEAD_FUNCTIONS = {"SOFTMAX": "softmax", "LOG_SOFTMAX": "log_softmax", "LOGISTIC": "sigmoid"}
RELU6_TOP, RELU6_SLACK = 6.0, 0.1  # a stored range of 0 to 5.9..6.1 was a ReLU6
WINDOW = (1, 2)  # axes of height and width in (1, H, W, C)


class Convolution(NamedTuple):
    """Conv2D with kernel (kh, kw, I, O) and bias (O,); `padding` is TensorFlow's same or valid."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: str


class Depthwise(NamedTuple):
    """DepthwiseConv2D with kernel (kh, kw, I, M), M the depth multiplier, and bias (I * M,)."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: str


class Dense(NamedTuple):
    """Fully connected with kernel (I, O) and bias (O,)."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


class Average(NamedTuple):
    """Mean over windows; as in TensorFlow, padded places do not count."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str


class GlobalAverage(NamedTuple):
    """Mean over height and width: a map becomes a vector."""


class Addition(NamedTuple):
    """Sum of two maps of one shape."""


class Padding(NamedTuple):
    """Zeros around a map."""

    rows: tuple[int, int]
    columns: tuple[int, int]


class Flattening(NamedTuple):
    """A map becomes a vector in its order (H, W, C)."""


class Activation(NamedTuple):
    """relu, relu6, sigmoid, softmax or log_softmax."""

    function: str


Layer = (
    Convolution | Depthwise | Dense | Average | GlobalAverage | Addition | Padding | Flattening | Activation
)


class Step(NamedTuple):
    """One step of the network.

    Attributes:
        name: unique, fit for a Keras layer.
        layer: what it computes.
        sources: indices of the steps whose results it takes, IMAGE for the input.
        shape: of its result without the batch: (H, W, C) or (D,).
    """

    name: str
    layer: Layer
    sources: tuple[int, ...]
    shape: tuple[int, ...]


class Graph(NamedTuple):
    """A network as steps in the order they can run.

    Attributes:
        image: the input as the file describes it.
        steps: at least one.
        output: index of the step that is the output, a vector.
        function: softmax, log_softmax or sigmoid, if the file applied it to the output and it was left out.
    """

    image: Port
    steps: tuple[Step, ...]
    output: int
    function: str


def read_graph(data: bytes) -> Graph:
    """Read a TFLite image network with one input and one output.

    The last softmax or sigmoid is left out, so that a classifier gives its logits.

    Raises:
        ModelError: no plain float or quantised network of the operations known here; the message names the
            first operation that is not, and where.
        EngineError: the schema of LiteRT is not installed.
    """
    facts = inspect_model(data)
    check_plain(facts)
    model = unpack_model(data)
    reader = _Reader(model)
    try:
        for index, operator in enumerate(model.subgraphs[0].operators):
            reader.take(index, operator)
        return reader.finished(image_port(facts.inputs, "the model"))
    except ModelError:
        raise
    except Exception as error:  # indices, lengths and options come from the file
        raise damaged_model(error) from error


def window_count(size: int, window: int, stride: int, padding: str) -> int:
    """Return how many windows fit along an axis, as TensorFlow counts them."""
    return -(-size // stride) if padding == "same" else (size - window) // stride + 1


class _Reader:
    """Collects steps; knows for each tensor of the file which step makes it, or its constant values."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self.steps: list[Step] = []
        self.made = {int(self.graph.inputs[0]): IMAGE}
        self.folded: dict[int, NDArray[np.float32]] = {}  # constants that passed through DEQUANTIZE
        self.where = ""

    def take(self, index: int, operator: Any) -> None:
        name = operator_name(self.model, operator)
        self.where = f"operation {index} ({name})"
        if name not in HANDLERS:
            raise ModelError(f"{self.where} is not known here: known are {', '.join(sorted(HANDLERS))}")
        HANDLERS[name](self, operator)

    def finished(self, image: Port) -> Graph:
        output = self.made.get(int(self.graph.outputs[0]), IMAGE)
        function = ""
        while output != IMAGE and _is_head_function(self.steps[output].layer):
            function, output = self.steps[output].layer.function, self.steps[output].sources[0]  # type: ignore[union-attr]
        self.where = "the model"
        if output == IMAGE:
            raise self.refused("computes nothing from its picture")
        if len(self.shape(output)) == 3:
            output = self.as_vector(output)
        return Graph(image, tuple(_named(self.steps, output)), output, function)

    def refused(self, what: str) -> ModelError:
        return ModelError(f"{self.where} {what}: it cannot be rebuilt")

    def tensor(self, index: int) -> Any:
        if index < 0:
            raise self.refused("lacks an input")
        return self.graph.tensors[index]

    def shape(self, step: int) -> tuple[int, ...]:
        return (
            port_of(self.tensor(int(self.graph.inputs[0]))).shape[1:]
            if step == IMAGE
            else self.steps[step].shape
        )

    def source(self, operator: Any, place: int = 0) -> int:
        """Return the step that makes an operation's input."""
        tensor = int(operator.inputs[place])
        if tensor not in self.made:
            raise self.refused("works on a constant, or on what is not computed yet")
        return self.made[tensor]

    def constant(self, operator: Any, place: int) -> NDArray[np.float32] | None:
        """Return an operation's constant input as real numbers, None where it is left out."""
        if place >= len(operator.inputs) or operator.inputs[place] == -1:
            return None
        index = int(operator.inputs[place])
        if index in self.folded:
            return self.folded[index]
        scales = self._scales_of_products(operator) if place == 2 else None
        return real_values(self._stored(index), self.tensor(index), scales)

    def integers(self, operator: Any, place: int) -> NDArray[np.int64]:
        """Return an operation's constant list of sizes or axes."""
        stored = self._stored(int(operator.inputs[place]))
        if stored.dtype.kind not in "iu":
            raise self.refused("has sizes that are no integers")
        return stored.astype(np.int64)

    def kernel(self, operator: Any, rank: int) -> NDArray[np.float32]:
        kernel = self.constant(operator, 1)
        if kernel is None or kernel.ndim != rank:
            raise self.refused(f"has no weights of rank {rank}")
        return kernel

    def bias(self, operator: Any, channels: int) -> NDArray[np.float32]:
        bias = self.constant(operator, 2)
        if bias is None:
            return np.zeros(channels, np.float32)
        if bias.size != channels:
            raise self.refused(f"has {bias.size} biases for {channels} channels")
        return bias.reshape(channels)

    def add(self, layer: Layer, sources: tuple[int, ...], shape: tuple[int, ...]) -> int:
        if min(shape) < 1 or math.prod(shape) > MAX_MAP_VALUES:
            raise self.refused(f"gives a map of {shape}")
        self.steps.append(Step("", layer, sources, shape))
        return len(self.steps) - 1

    def conclude(self, operator: Any, step: int, activation: int = 0) -> None:
        """Note which step makes an operation's output; adds its activation, fused or hidden in its range."""
        if activation not in FUSED:
            raise self.refused("has a fused activation other than RELU and RELU6")
        index = int(operator.outputs[0])
        port = port_of(self.tensor(index))
        self._check_shape(port, step)
        function = FUSED[activation]
        if not function and isinstance(self.steps[step].layer, Convolution | Depthwise | Dense | Addition):
            function = _hidden_activation(port)
        self.made[index] = self.add(Activation(function), (step,), self.shape(step)) if function else step

    def as_vector(self, step: int) -> int:
        """Return a step that gives (1, 1, C) as (C,)."""
        if self.shape(step)[:-1] != (1, 1):
            raise self.refused(f"gives a map of {self.shape(step)}, not one vector")
        return self.add(GlobalAverage(), (step,), self.shape(step)[-1:])

    def _stored(self, index: int) -> NDArray[Any]:
        stored = stored_values(self.model, self.tensor(index))
        if stored is None or index in self.made:
            raise self.refused("has weights or sizes that are computed")
        return stored

    def _scales_of_products(self, operator: Any) -> NDArray[np.float64]:
        """Return what a bias counts in when it does not say: input scale times weight scales."""
        given, weights = (port_of(self.tensor(int(operator.inputs[i]))).scales for i in (0, 1))
        return np.asarray(given[:1] or (1.0,)) * np.asarray(weights)

    def _check_shape(self, port: Port, step: int) -> None:
        """Hold a step's shape against the file's word; a vector may be written with further ones in front."""
        ours = self.shape(step)
        stated = (1,) * (len(port.shape) - 1) + ours if len(ours) == 1 else (1, *ours)
        if port.shape != stated:
            raise self.refused(f"gives {stated}, where the file says {port.shape}")
        if any(size < 0 for size in port.signature[1:]):
            raise self.refused("leaves its size open")


def _read_convolution(reader: _Reader, operator: Any) -> None:
    source, options = reader.source(operator), operator.builtinOptions
    kernel = reader.kernel(operator, 4).transpose(1, 2, 3, 0)
    shape, bias = reader.shape(source), reader.bias(operator, kernel.shape[3])
    if kernel.shape[2] != shape[-1]:
        raise reader.refused(f"has kernels for {kernel.shape[2]} of {shape[-1]} channels")
    if len(shape) == 1 and kernel.shape[:2] == (1, 1):
        step = reader.add(Dense(kernel[0, 0], bias), (source,), bias.shape)
    else:
        slid = _slid(reader, shape, kernel.shape[:2], options)
        step = reader.add(Convolution(kernel, bias, *slid[1:]), (source,), (*slid[0], bias.size))
    reader.conclude(operator, step, options.fusedActivationFunction)


def _read_depthwise(reader: _Reader, operator: Any) -> None:
    source, options = reader.source(operator), operator.builtinOptions
    stored = reader.kernel(operator, 4)
    shape, bias = reader.shape(source), reader.bias(operator, stored.shape[3])
    multiplier, rest = divmod(stored.shape[3], shape[-1])
    if stored.shape[0] != 1 or rest or not multiplier:
        raise reader.refused(f"has kernels {stored.shape} for {shape[-1]} channels")
    kernel = stored.reshape(*stored.shape[1:3], shape[-1], multiplier)
    size, strides, dilation, padding = _slid(reader, shape, kernel.shape[:2], options)
    if strides[0] != strides[1]:
        raise reader.refused("has other strides down than across")  # no Keras layer does that
    step = reader.add(Depthwise(kernel, bias, strides, dilation, padding), (source,), (*size, bias.size))
    reader.conclude(operator, step, options.fusedActivationFunction)


def _slid(
    reader: _Reader, shape: tuple[int, ...], window: tuple[int, ...], options: Any
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], str]:
    """Return (rows, columns) of the result of a sliding window, its strides, dilation and padding."""
    strides = (int(options.strideH), int(options.strideW))
    dilation = (int(getattr(options, "dilationHFactor", 1)), int(getattr(options, "dilationWFactor", 1)))
    if len(shape) != 3 or options.padding not in PADDINGS or min(*strides, *dilation, *window) < 1:
        raise reader.refused("does not slide over a map as a convolution does")
    if max(dilation) > 1 and max(strides) > 1:
        raise reader.refused("has strides and dilation at once")  # no Keras layer does that
    padding = PADDINGS[options.padding]
    extent = [(window[i] - 1) * dilation[i] + 1 for i in (0, 1)]
    rows, columns = (window_count(shape[i], extent[i], strides[i], padding) for i in (0, 1))
    return (rows, columns), strides, dilation, padding


def _read_dense(reader: _Reader, operator: Any) -> None:
    source, options = reader.source(operator), operator.builtinOptions
    kernel = reader.kernel(operator, 2).T
    if len(reader.shape(source)) == 3:
        source = _flat(reader, source)
    if kernel.shape[0] != reader.shape(source)[0] or options.weightsFormat != 0:
        raise reader.refused(f"has weights for {kernel.shape[0]} of {reader.shape(source)[0]} values")
    step = reader.add(Dense(kernel, reader.bias(operator, kernel.shape[1])), (source,), kernel.shape[1:])
    reader.conclude(operator, step, options.fusedActivationFunction)


def _read_average(reader: _Reader, operator: Any) -> None:
    source, options = reader.source(operator), operator.builtinOptions
    window, shape = (int(options.filterHeight), int(options.filterWidth)), reader.shape(source)
    size, strides, _, padding = _slid(reader, shape, window, options)
    if window == shape[:2] and size == (1, 1):
        step = reader.add(GlobalAverage(), (source,), shape[-1:])
    else:
        step = reader.add(Average(window, strides, padding), (source,), (*size, shape[-1]))
    reader.conclude(operator, step, options.fusedActivationFunction)


def _read_mean(reader: _Reader, operator: Any) -> None:
    source = reader.source(operator)
    shape = reader.shape(source)
    axes = {int(axis) % 4 for axis in reader.integers(operator, 1).reshape(-1)}
    if len(shape) != 3 or axes != set(WINDOW):
        raise reader.refused("is not over height and width")
    reader.conclude(operator, reader.add(GlobalAverage(), (source,), shape[-1:]))


def _read_addition(reader: _Reader, operator: Any) -> None:
    first, second = reader.source(operator, 0), reader.source(operator, 1)
    if reader.shape(first) != reader.shape(second):
        raise reader.refused(f"adds {reader.shape(first)} and {reader.shape(second)}")
    step = reader.add(Addition(), (first, second), reader.shape(first))
    reader.conclude(operator, step, getattr(operator.builtinOptions, "fusedActivationFunction", 0))


def _read_padding(reader: _Reader, operator: Any) -> None:
    source, amounts = reader.source(operator), reader.integers(operator, 1)
    shape = reader.shape(source)
    if len(shape) != 3 or amounts.shape != (4, 2) or amounts.min() < 0 or amounts[[0, 3]].any():
        raise reader.refused("does not pad height and width")
    (top, bottom), (left, right) = amounts[1:3].tolist()
    padded = (shape[0] + top + bottom, shape[1] + left + right, shape[2])
    reader.conclude(operator, reader.add(Padding((top, bottom), (left, right)), (source,), padded))


def _read_shaping(reader: _Reader, operator: Any) -> None:
    source, port = reader.source(operator), port_of(reader.tensor(int(operator.outputs[0])))
    if all(size == 1 for size in port.shape[:-1]) and len(reader.shape(source)) == 3:
        source = _flat(reader, source)
    reader.conclude(operator, source)


def _flat(reader: _Reader, source: int) -> int:
    shape = reader.shape(source)
    if shape[:2] == (1, 1):
        return reader.as_vector(source)
    return reader.add(Flattening(), (source,), (math.prod(shape),))


def _read_activation(function: str) -> Callable[[_Reader, Any], None]:
    def read(reader: _Reader, operator: Any) -> None:
        source = reader.source(operator)
        reader.conclude(operator, reader.add(Activation(function), (source,), reader.shape(source)))

    return read


def _read_change_of_numbers(reader: _Reader, operator: Any) -> None:
    """QUANTIZE and DEQUANTIZE: the same real values, so the same step; a constant is dequantised here."""
    index = int(operator.inputs[0])
    if index in reader.made:
        reader.made[int(operator.outputs[0])] = reader.made[index]
        return
    values = reader.constant(operator, 0)
    assert values is not None
    reader.folded[int(operator.outputs[0])] = values


def _hidden_activation(port: Port) -> str:
    """Return the activation that a stored range amounts to: values that start at zero passed a ReLU.

    The old converter takes a ReLU6 out where the uint8 range does its work.
    """
    if port.dtype not in {"int8", "uint8"} or len(port.scales) != 1:
        return ""
    limits = np.iinfo(port.dtype)
    if port.zero_point != limits.min:
        return ""
    top = (limits.max - port.zero_point) * port.scales[0]
    return "relu6" if abs(top - RELU6_TOP) <= RELU6_SLACK else "relu"


def _is_head_function(layer: Layer) -> bool:
    return isinstance(layer, Activation) and layer.function in HEAD_FUNCTIONS.values()


def _named(steps: list[Step], output: int) -> list[Step]:
    """Give every step a readable name: its kind and place (conv3), and its source's for an activation."""
    names: list[str] = []
    place = 0
    last_pool = max((i for i, step in enumerate(steps) if isinstance(step.layer, GlobalAverage)), default=-1)
    for index, step in enumerate(steps):
        if isinstance(step.layer, Activation):
            before = "image" if step.sources[0] == IMAGE else names[step.sources[0]]
            name = f"{before}_{step.layer.function}"
            names.append(f"{name}_{index}" if name in names else name)
            continue
        place += 1
        names.append(f"{KINDS[type(step.layer)]}{place}")
        if index == last_pool:
            names[index] = FEATURE
        elif index == output and isinstance(step.layer, Dense):
            names[index] = LOGITS
    return [step._replace(name=name) for step, name in zip(steps, names, strict=True)]


KINDS = {
    Convolution: "conv",
    Depthwise: "depthwise",
    Dense: "dense",
    Average: "average",
    GlobalAverage: "pool",
    Addition: "add",
    Padding: "pad",
    Flattening: "flat",
}
HANDLERS: dict[str, Callable[[_Reader, Any], None]] = {
    "CONV_2D": _read_convolution,
    "DEPTHWISE_CONV_2D": _read_depthwise,
    "FULLY_CONNECTED": _read_dense,
    "AVERAGE_POOL_2D": _read_average,
    "MEAN": _read_mean,
    "ADD": _read_addition,
    "PAD": _read_padding,
    "RESHAPE": _read_shaping,
    "SQUEEZE": _read_shaping,
    "QUANTIZE": _read_change_of_numbers,
    "DEQUANTIZE": _read_change_of_numbers,
    "RELU": _read_activation("relu"),
    "RELU6": _read_activation("relu6"),
    **{name: _read_activation(function) for name, function in HEAD_FUNCTIONS.items()},
}
