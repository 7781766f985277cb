"""Tells, without TensorRT, where an ONNX graph breaks the rules of its explicit quantisation and its parser.

From NVIDIA's developer guide ("Working with quantized types") and the parser's own support matrix
(onnx-tensorrt, docs/operators.md, of TensorRT 8.4). What the rules cannot know is said in docs/adr/0006: no
TensorRT has parsed our files yet.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, ModelError
from edge_cl.vision.files import one_line

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
FLOAT16_MAX = 65504.0
# The newest opset that the parser of each TensorRT takes.
OPSETS = {"8.2": 13, "8.4": 13, "8.5": 17, "8.6": 17, "10.3": 20}
OLDEST = "8.2"  # of JetPack 4: the default, as what it takes, all take
# Axis of the output channels, the only one a weight may have scales along.
WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
FLOATS = {1: "float32", 10: "float16"}  # of onnx.TensorProto.DataType
FUSED = ("Relu", "Clip")  # with the convolution before them, where no pair stands between

# Operations that the parser marks as supported (constants and control flow of no use here left out).
OPERATIONS = frozenset(
    """Abs Add ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv ConvTranspose
    DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements
    Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid Identity InstanceNormalization LeakyRelu Less Log
    LogSoftmax MatMul Max MaxPool Mean Min Mul Neg PRelu Pad Pow QuantizeLinear ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Relu Reshape Resize Selu Shape Sigmoid Slice Softmax Softplus Softsign SpaceToDepth
    Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where""".split()
)


class Breach(NamedTuple):
    """One rule broken at one place.

    Attributes:
        rule: short name, such as `zero point`.
        place: node, tensor or input.
        text: one line: what is wrong, and what TensorRT does about it.
        is_fatal: TensorRT refuses the graph; else it runs slower or less exactly than it could.
    """

    rule: str
    place: str
    text: str
    is_fatal: bool = True


class _View:
    """An ONNX graph with its tensors looked up by name."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.model, self.nodes = model, list(model.graph.node)
        self.outputs = {info.name for info in model.graph.output}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.takers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.takers[name].append(node)
        self.constants: dict[str, NDArray[Any]] = {}
        for tensor in model.graph.initializer:
            if not tensor.external_data:
                self.constants[tensor.name] = numpy_helper.to_array(tensor)
        for node in self.nodes:
            if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)


def read_graph(data: bytes) -> Any:
    """Return the bytes of an ONNX file as an `onnx.ModelProto`.

    Raises:
        ModelError: not ONNX, or damaged.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and checker have no common base
        raise ModelError(f"this is no whole ONNX file ({one_line(error)}): export it again") from error
    return model


def check_rules(model: Any, tensorrt: str = OLDEST) -> tuple[Breach, ...]:
    """Return what TensorRT is known to refuse or to do badly in an `onnx.ModelProto`; empty when clean.

    Raises:
        ConfigError: a version of TensorRT that is not in `OPSETS`.
    """
    if tensorrt not in OPSETS:
        raise ConfigError(f"TensorRT {tensorrt!r} is not in the table: give {', '.join(OPSETS)}")
    view = _View(model)
    found: list[Breach] = []
    for rule in (_opset, _operations, _shapes, _numbers, _quantisers, _pairs, _biases, _fusions, _half_sums):
        found += rule(view, tensorrt)
    return tuple(found)


def _opset(view: _View, tensorrt: str) -> Iterator[Breach]:
    for opset in view.model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield Breach("opset", opset.domain, f"operations of {opset.domain} are unknown to TensorRT")
        elif opset.version > OPSETS[tensorrt]:
            yield Breach(
                "opset", str(opset.version),
                f"opset {opset.version}: TensorRT {tensorrt} takes at most {OPSETS[tensorrt]}",
            )  # fmt: skip


def _operations(view: _View, tensorrt: str) -> Iterator[Breach]:
    for node in view.nodes:
        if node.op_type not in OPERATIONS:
            yield Breach("operation", node.name, f"{node.op_type} at {node.name} is not in TensorRT's parser")
        if node.op_type in ("Conv", "ConvTranspose") and _weight(view, node.input[1]) is None:
            yield Breach("operation", node.name, f"{node.op_type} at {node.name}: its weights are computed")


def _shapes(view: _View, tensorrt: str) -> Iterator[Breach]:
    constants = {tensor.name for tensor in view.model.graph.initializer}
    for port in [*view.model.graph.input, *view.model.graph.output]:
        if port.name in constants:
            continue
        sizes = [size.dim_value for size in port.type.tensor_type.shape.dim]
        if not sizes or not all(sizes):
            yield Breach(
                "shape", port.name, f"{port.name} has open sizes: export it with a static batch of 1"
            )
        if port.type.tensor_type.elem_type not in FLOATS:
            yield Breach(
                "type", port.name, f"{port.name} is neither float32 nor float16: TensorRT binds those"
            )


def _numbers(view: _View, tensorrt: str) -> Iterator[Breach]:
    for tensor in view.model.graph.initializer:
        if tensor.external_data:
            yield Breach("file", tensor.name, f"{tensor.name} lies in another file: save the graph as one")
    for name, values in view.constants.items():
        if values.dtype.kind != "f":
            continue
        if values.dtype == np.float64:
            yield Breach("type", name, f"{name} is float64: TensorRT casts it down", is_fatal=False)
        peak = float(np.abs(values.astype(np.float64)).max(initial=0))
        if not np.isfinite(peak):
            yield Breach("fp16 range", name, f"{name} holds values that are not finite")
        elif peak > FLOAT16_MAX:
            text = f"{name} reaches {peak:.3g}: beyond fp16, which a board may compute in"
            yield Breach("fp16 range", name, text, is_fatal=False)


def _quantisers(view: _View, tensorrt: str) -> Iterator[Breach]:
    """Scales and zero points of every Q and DQ."""
    for node in view.nodes:
        if node.op_type not in (QUANTISE, DEQUANTISE):
            continue
        yield from _zero_point(view, node)
        scale = view.constants.get(node.input[1])
        if scale is None:
            yield Breach("scale", node.name, f"{node.name}: its scale is computed, TensorRT wants a constant")
            continue
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Breach("scale", node.name, f"{node.name}: a scale is zero, negative or not finite")
        if scale.size > 1:
            yield from _axis(view, node, scale)


def _zero_point(view: _View, node: Any) -> Iterator[Breach]:
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == QUANTISE:  # ONNX then means uint8
            yield Breach(
                "int8", node.name, f"{node.name} has no zero point, which means uint8: TensorRT wants int8"
            )
        return
    zero = view.constants.get(node.input[2])
    if zero is None:
        yield Breach("zero point", node.name, f"{node.name}: its zero point is computed")
    elif zero.dtype != np.int8:
        yield Breach("int8", node.name, f"{node.name} is {zero.dtype}: TensorRT takes int8 only")
    elif zero.any():
        yield Breach("zero point", node.name, f"{node.name}: zero point {int(np.abs(zero).max())}, not 0")


def _axis(view: _View, node: Any, scale: NDArray[Any]) -> Iterator[Breach]:
    """Several scales: on constants only, and along the output channels of the operation that takes them."""
    weight = view.constants.get(_source_of(view, node))
    if weight is None:
        yield Breach("axis", node.name, f"{node.name}: several scales for an activation, which takes one")
        return
    axis = _attribute(node, "axis", 1) % weight.ndim
    if weight.shape[axis] != scale.size:
        yield Breach(
            "axis", node.name, f"{node.name}: {scale.size} scales along {weight.shape[axis]} channels"
        )
    for taker in _end_takers(view, node):
        wanted = WEIGHT_AXES.get(taker.op_type, axis)
        if taker.op_type == "Gemm" and _attribute(taker, "transB", 0):
            wanted = 0
        if axis != wanted:
            text = (
                f"{node.name}: scales along axis {axis}, {taker.op_type} wants its output channels, {wanted}"
            )
            yield Breach("axis", node.name, text)


def _pairs(view: _View, tensorrt: str) -> Iterator[Breach]:
    for node in view.nodes:
        if node.op_type == QUANTISE:
            takers = view.takers[node.output[0]]
            if node.output[0] in view.outputs or not takers:
                yield Breach("pair", node.name, f"{node.name} ends the graph in int8: dequantise the output")
            for taker in takers:
                if taker.op_type != DEQUANTISE:
                    yield Breach("pair", node.name, f"{node.name} feeds {taker.op_type}, not {DEQUANTISE}")
        elif node.op_type == DEQUANTISE:
            source = view.producers.get(node.input[0])
            if source is None or source.op_type != QUANTISE:
                text = f"{node.name} does not follow {QUANTISE}: weights are kept as float32 constants"
                yield Breach("pair", node.name, text)
            elif not _same_constants(view, node, source):
                yield Breach("pair", node.name, f"{node.name} has another scale than its {QUANTISE}")


def _biases(view: _View, tensorrt: str) -> Iterator[Breach]:
    for node in view.nodes:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2:
            source = view.producers.get(node.input[2])
            if source is not None and source.op_type == DEQUANTISE:
                yield Breach(
                    "bias", node.name, f"{node.name}: its bias is quantised, TensorRT wants it float"
                )


def _fusions(view: _View, tensorrt: str) -> Iterator[Breach]:
    """A pair between a convolution and its ReLU keeps the two from becoming one kernel."""
    for node in view.nodes:
        if node.op_type not in FUSED:
            continue
        dequantised = view.producers.get(node.input[0])
        if dequantised is None or dequantised.op_type != DEQUANTISE:
            continue
        origin = view.producers.get(_source_of(view, dequantised))
        if origin is not None and origin.op_type in WEIGHT_AXES:
            text = f"a pair stands between {origin.op_type} and {node.op_type} at {node.name}: no fusion"
            yield Breach("fusion", node.name, text, is_fatal=False)


def _half_sums(view: _View, tensorrt: str) -> Iterator[Breach]:
    """A sum of a quantised and a plain tensor is computed in float, with two conversions around it."""
    for node in view.nodes:
        if node.op_type == "Add":
            sources = [view.producers.get(name) for name in node.input if name not in view.constants]
            kinds = {source is not None and source.op_type == DEQUANTISE for source in sources}
            if len(kinds) > 1:
                text = f"{node.name} adds a quantised and a plain tensor: the sum stays float"
                yield Breach("sum", node.name, text, is_fatal=False)


def _weight(view: _View, name: str) -> NDArray[Any] | None:
    """Return the constant behind a tensor, through its Q and DQ; None when it is computed."""
    node = view.producers.get(name)
    while node is not None and node.op_type in (QUANTISE, DEQUANTISE):
        name = node.input[0]
        node = view.producers.get(name)
    return view.constants.get(name)


def _source_of(view: _View, node: Any) -> str:
    """Return the tensor that a Q or DQ began with."""
    name = str(node.input[0])
    before = view.producers.get(name)
    return str(before.input[0]) if before is not None and before.op_type == QUANTISE else name


def _end_takers(view: _View, node: Any) -> list[Any]:
    """Return what computes with the output of a Q or DQ, behind its pair."""
    takers = view.takers[node.output[0]]
    ends = []
    for taker in takers:
        ends += view.takers[taker.output[0]] if taker.op_type == DEQUANTISE else [taker]
    return ends


def _same_constants(view: _View, one: Any, other: Any) -> bool:
    pairs = zip(one.input[1:], other.input[1:], strict=False)
    return all(
        a == b or np.array_equal(view.constants.get(a, np.nan), view.constants.get(b, np.nan))
        for a, b in pairs
    )


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), default)
