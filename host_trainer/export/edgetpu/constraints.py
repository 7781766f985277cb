"""Decides for one operation whether the Edge TPU can run it: the table of operations and their constraints.

Two kinds of evidence stand behind the table. *Compiled*: Google's own pairs of a quantised file and the file
that its compiler made of it show the operation inside the compiled part; benchmarks/edgetpu_pairs.py holds
the rules against such pairs. *Documented*: Coral's page "TensorFlow models on the Edge TPU" (supported
operations and their known limitations, compiler 16) lists it and no pair at hand has it; the answer then
carries a doubt. Where the page gives no number (resizing "may not be mapped"), the bounds are the largest
that was seen mapped and the smallest that was seen refused; between them the answer is a guess and says so.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from host_trainer.export.edgetpu.graph import Graph, Operation, Tensor

# The compiler's own words for a reason, as its logs print them.
NOT_SUPPORTED = "Operation not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
VERSION = "Operation version not supported"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"

INNER_DIMENSIONS = 3  # sizes further out must be 1; so a picture's batch is 1
SOFTMAX_LIMIT = 16_000  # values, documented
Z_MULTIPLE = 4  # of a mean over channels, documented
NO_ACTIVATION = 0  # of ActivationFunctionType in schema.fbs
DEFAULT_WEIGHTS = 0  # of FullyConnectedOptionsWeightsFormat in schema.fbs

# Resizing, from pairs and from reports to the compiler's authors: mapped up to 48 x 48 by 2 and for
# 128 x 128 x 32 values, refused from 33 to 513 (15.5 times, 5 MB) and from 1 to 33.
RESIZE_MAPPED_FACTOR, RESIZE_REFUSED_FACTOR = 2.0, 15.5
RESIZE_MAPPED_BYTES, RESIZE_REFUSED_BYTES = 128 * 128 * 32, 513 * 513 * 19

# The largest in a compiled file; the compiler gives up on "large activation tensors", somewhere beyond.
MAPPED_VALUES = 361 * 641 * 48
RESHAPE_MAPPED_VALUES = 48 * 48

REMEDIES = {
    "ARG_MAX": "let the model return the scores, and take the largest on the host",
    "CAST": "feed the model 8-bit values: export with int8 or uint8 input",
    "DEQUANTIZE": "let the model return 8-bit values: export with int8 or uint8 output",
    "DIV": "multiply by the inverse instead",
    "ELU": "train with ReLU or ReLU6",
    "EXP": "leave it out of the model, and do it on the host",
    "GATHER": "leave it out of the model, and do it on the host",
    "GELU": "train with ReLU or ReLU6",
    "HARD_SWISH": "train with ReLU6 in its place, as MobileNetV3's Edge TPU variant does",
    "LEAKY_RELU": "train with ReLU, ReLU6 or PReLU with one alpha per channel",
    "SHAPE": "export with fixed sizes and a batch of 1; then no shape is computed",
    "TFLite_Detection_PostProcess": "keep it last: what follows the Edge TPU's part runs on the CPU",
}
OTHER_REMEDY = "replace it, or move it behind the last layer that should run on the Edge TPU"
QUANTISE = "quantise the whole model: `host-trainer export --target edgetpu`, int8 input and output"


class Refusal(NamedTuple):
    """Why an operation stays on the CPU.

    Attributes:
        constraint: the rule that decided, in few words.
        reason: what the file has.
        remedy: how to mend it.
        status: what the compiler's log says of it.
    """

    constraint: str
    reason: str
    remedy: str
    status: str


Check = Callable[[Graph, Operation], Refusal | None]


class Rule(NamedTuple):
    """What is known of one operation.

    Attributes:
        newest: highest version of the operation that the compiler takes.
        is_compiled: seen inside a compiled file, rather than documented only.
        check: its own constraint, None where it has none.
        doubt: says what about an operation lies beyond what is known to map; None where nothing does.
    """

    newest: int
    is_compiled: bool
    check: Check | None = None
    doubt: Callable[[Graph, Operation], str] | None = None


def refusal(graph: Graph, operation: Operation) -> Refusal | None:
    """Return why the Edge TPU cannot run this operation, None when it can."""
    if operation.is_custom or operation.name not in RULES:
        return _unknown(operation)
    rule = RULES[operation.name]
    return (
        _data_type(graph, operation)
        or _rank(graph, operation)
        or _version(operation, rule.newest)
        or (rule.check(graph, operation) if rule.check else None)
    )


def doubt(graph: Graph, operation: Operation) -> str:
    """Return what makes "it maps" less than certain for an operation not refused; empty if nothing."""
    rule = RULES[operation.name]
    own = rule.doubt(graph, operation) if rule.doubt else ""
    if own or not rule.is_compiled:
        return own or "documented as supported; not seen in a compiled file"
    largest = max((prod(tensor.shape) for tensor in graph.outputs_of(operation)), default=0)
    if largest > MAPPED_VALUES:
        return f"{largest} values in one tensor are more than was seen mapped"
    return ""


def _unknown(operation: Operation) -> Refusal:
    kind = "a custom operation" if operation.is_custom else "not in the Edge TPU's list"
    remedy = REMEDIES.get(operation.name, OTHER_REMEDY)
    return Refusal("operation", f"{operation.name} is {kind}", remedy, NOT_SUPPORTED)


def _data_type(graph: Graph, operation: Operation) -> Refusal | None:
    """Activations are int8 or uint8; constants may also be int32 (biases, axes, shapes)."""
    allowed = {"int8", "uint8"} | ({"int16"} if operation.name.endswith("_LSTM") else set())
    for tensor in graph.inputs_of(operation) + graph.outputs_of(operation):
        if tensor.dtype not in allowed | ({"int32"} if tensor.is_constant else set()):
            return Refusal("data type", f"{_named(tensor)} is {tensor.dtype}", QUANTISE, DATA_TYPE)
    return None


def _rank(graph: Graph, operation: Operation) -> Refusal | None:
    for tensor in graph.inputs_of(operation) + graph.outputs_of(operation):
        if not tensor.is_constant and any(n != 1 for n in tensor.shape[:-INNER_DIMENSIONS]):
            reason = f"{_named(tensor)} is {_shown(tensor.shape)}"
            remedy = "export with a batch of 1; only the three innermost sizes may be larger"
            return Refusal("three dimensions", reason, remedy, RANK)
    return None


def _version(operation: Operation, newest: int) -> Refusal | None:
    if operation.version <= newest:
        return None
    reason = f"{operation.name} is version {operation.version}, the compiler takes up to {newest}"
    remedy = "export with an older TensorFlow, or replace the operation"
    return Refusal("operation version", reason, remedy, VERSION)


def _no_activation(graph: Graph, operation: Operation) -> Refusal | None:
    if operation.options.get("fusedActivationFunction", NO_ACTIVATION) == NO_ACTIVATION:
        return None
    return _own("no fused activation", f"{operation.name} has one", "apply the activation before it")


def _concatenation(graph: Graph, operation: Operation) -> Refusal | None:
    tensors = graph.inputs_of(operation)
    for tensor in tensors:
        if tensor.is_constant and (len(tensors) != 2 or not _is_zero(tensor)):
            reason = f"{_named(tensor)} is constant: allowed as one of two inputs, all zeros"
            return _own("constant input", reason, "pad with zeros instead")
    return _no_activation(graph, operation)


def _convolution(graph: Graph, operation: Operation) -> Refusal | None:
    wide, high = (int(operation.options.get(f"dilation{side}Factor", 1)) for side in "WH")
    if wide != high:
        return _own("equal dilation", f"dilation {wide} x {high}", "use the same dilation in x and y")
    return _constant_weights(graph, operation)


def _constant_weights(graph: Graph, operation: Operation) -> Refusal | None:
    for tensor in graph.inputs_of(operation)[1:]:
        if not tensor.is_constant:
            reason = f"{_named(tensor)} is computed while the model runs"
            return _own("constant parameters", reason, "freeze the weights before the export")
    return None


def _transposed(graph: Graph, operation: Operation) -> Refusal | None:
    shape, weights, *_ = graph.inputs_of(operation) + (None, None)
    if shape is None or weights is None or not (shape.is_constant and weights.is_constant):
        return _own("constant parameters", "shape or weights are computed", "export with fixed sizes")
    return None


def _fully_connected(graph: Graph, operation: Operation) -> Refusal | None:
    if operation.options.get("weightsFormat", DEFAULT_WEIGHTS) != DEFAULT_WEIGHTS:
        return _own("weights format", "shuffled weights", "export with the default weights format")
    for tensor in graph.outputs_of(operation):
        if prod(tensor.shape[:-1]) != 1:
            reason = f"{_named(tensor)} is {_shown(tensor.shape)}"
            return _own("one-dimensional output", reason, "use a 1x1 convolution for maps")
    return _constant_weights(graph, operation)


def _reduction(graph: Graph, operation: Operation) -> Refusal | None:
    tensors = graph.inputs_of(operation)
    axes = _integers(tensors[1]) if len(tensors) > 1 else None
    if axes is None:
        return _own("constant axes", f"the axes of {operation.name} are computed", "give fixed axes")
    rank = len(tensors[0].shape)
    if rank > INNER_DIMENSIONS and 0 in axes % rank:
        return _own("no batch reduction", "reduces the batch", "reduce height and width only")
    channels = tensors[0].shape[-1] if rank else 1
    if operation.name == "MEAN" and rank - 1 in axes % max(rank, 1) and channels % Z_MULTIPLE:
        reason = f"reduces {channels} channels"
        return _own("channels a multiple of 4", reason, f"use a multiple of {Z_MULTIPLE} channels")
    return None


def _pack(graph: Graph, operation: Operation) -> Refusal | None:
    if operation.options.get("axis", 0) != 0:
        return None
    return _own("no packing of batches", "packs along the first axis", "pack along another axis")


def _padding(graph: Graph, operation: Operation) -> Refusal | None:
    tensors = graph.inputs_of(operation)
    amounts = _integers(tensors[1]) if len(tensors) > 1 else None
    if amounts is None:
        return _own("constant padding", "the padding is computed", "give a fixed padding")
    if len(tensors[0].shape) > INNER_DIMENSIONS and any(amounts[:2]):
        return _own("no batch padding", "pads the batch", "pad height and width only")
    return None


def _prelu(graph: Graph, operation: Operation) -> Refusal | None:
    tensors = graph.inputs_of(operation)
    if len(tensors) > 1 and tensors[1].is_constant and prod(tensors[1].shape[:-1]) == 1:
        return None
    return _own("one alpha per channel", "alpha has more than one dimension", "use shared_axes=[1, 2]")


def _resize(graph: Graph, operation: Operation) -> Refusal | None:
    factor, size_bytes = _resizing(graph, operation)
    if factor < RESIZE_REFUSED_FACTOR and size_bytes < RESIZE_REFUSED_BYTES:
        return None
    reason = f"{factor:.1f} times in one side, {size_bytes} values"
    return _own("precise resizing", reason, "resize in smaller steps, or on the host after the model")


def _resize_doubt(graph: Graph, operation: Operation) -> str:
    factor, size_bytes = _resizing(graph, operation)
    if factor <= RESIZE_MAPPED_FACTOR and size_bytes <= RESIZE_MAPPED_BYTES:
        return ""
    return f"resizing {factor:.1f} times to {size_bytes} values lies beyond what was seen mapped"


def _resizing(graph: Graph, operation: Operation) -> tuple[float, int]:
    """Return the largest factor of a side, and the values in the output."""
    before, after = graph.inputs_of(operation)[:1], graph.outputs_of(operation)[:1]
    if not before or not after:
        return 0.0, 0
    sides = zip(before[0].shape[1:3], after[0].shape[1:3], strict=False)
    return max((b / max(a, 1) for a, b in sides), default=0.0), prod(after[0].shape)


def _softmax(graph: Graph, operation: Operation) -> Refusal | None:
    for tensor in graph.inputs_of(operation):
        if prod(tensor.shape[:-1]) != 1 or prod(tensor.shape) > SOFTMAX_LIMIT:
            reason = f"{_named(tensor)} is {_shown(tensor.shape)}"
            return _own(f"one dimension, at most {SOFTMAX_LIMIT}", reason, "take the softmax on the host")
    return None


def _split(graph: Graph, operation: Operation) -> Refusal | None:
    tensors = graph.inputs_of(operation)
    axis = _integers(tensors[0]) if tensors else None
    if axis is None or len(tensors) < 2:
        return _own("constant axis", "the axis is computed", "give a fixed axis")
    rank = len(tensors[1].shape)
    if rank > INNER_DIMENSIONS and 0 in axis % rank:
        return _own("no batch split", "splits the batch", "split another axis")
    return None


def _strided_slice(graph: Graph, operation: Operation) -> Refusal | None:
    tensors = graph.inputs_of(operation)
    strides = _integers(tensors[3]) if len(tensors) > 3 else None
    if strides is None or any(strides != 1):
        return _own("strides of 1", "other strides, or computed ones", "use pooling to skip values")
    if operation.options.get("ellipsisMask", 0) or operation.options.get("newAxisMask", 0):
        return _own("plain slices", "has an ellipsis or a new axis", "slice, then reshape")
    return None


def _own(constraint: str, reason: str, remedy: str) -> Refusal:
    return Refusal(constraint, reason, remedy, UNSPECIFIED)


def _integers(tensor: Tensor) -> NDArray[np.int32] | None:
    """Return the values of an int32 constant, flat; None when they are not in the file."""
    if tensor.dtype != "int32" or not len(tensor.values) or len(tensor.values) % 4:
        return None
    return np.frombuffer(tensor.values.tobytes(), "<i4").copy()


def _is_zero(tensor: Tensor) -> bool:
    return bool(len(tensor.values)) and bool(np.all(tensor.values == tensor.zero_point % 256))


def _named(tensor: Tensor) -> str:
    name = tensor.name or "a tensor"
    name = name.rpartition(";")[2] or name  # converters join the names of all layers that they fused
    return repr(name if len(name) <= 48 else "…" + name[-47:])


def _shown(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"


def _dense_doubt(graph: Graph, operation: Operation) -> str:
    if all(tensor.scales <= 1 for tensor in graph.inputs_of(operation)):
        return ""
    return "dense weights with a scale for each channel were not seen in a compiled file: use one scale"


def _groups_doubt(graph: Graph, operation: Operation) -> str:
    channels = {tensor.shape[-1:] for tensor in graph.inputs_of(operation)[:2]}
    return "grouped convolution was not seen in a compiled file" if len(channels) > 1 else ""


def _reshape_doubt(graph: Graph, operation: Operation) -> str:
    """Documented: "certain reshapes might not be mapped for large tensor sizes"; no number is given."""
    size = max((prod(tensor.shape) for tensor in graph.outputs_of(operation)), default=0)
    return f"reshaping {size} values lies beyond what was seen mapped" if size > RESHAPE_MAPPED_VALUES else ""


def _transpose_doubt(graph: Graph, operation: Operation) -> str:
    return "some orders are not mapped; which ones is not documented"


# Versions: the newest seen in a compiled pair, else the one that int8 needs.
RULES = {
    "ADD": Rule(2, True),
    "AVERAGE_POOL_2D": Rule(2, True, _no_activation),
    "CONCATENATION": Rule(2, True, _concatenation),
    "CONV_2D": Rule(3, True, _convolution, _groups_doubt),
    "DEPTHWISE_CONV_2D": Rule(3, True, _convolution),
    "EXPAND_DIMS": Rule(1, False),
    "FULLY_CONNECTED": Rule(4, True, _fully_connected, _dense_doubt),
    "L2_NORMALIZATION": Rule(2, False),
    "LOGISTIC": Rule(2, True),
    "MAXIMUM": Rule(2, False),
    "MAX_POOL_2D": Rule(2, False, _no_activation),
    "MEAN": Rule(2, True, _reduction),
    "MINIMUM": Rule(2, False),
    "MUL": Rule(2, True),
    "PACK": Rule(2, False, _pack),
    "PAD": Rule(2, True, _padding),
    "PRELU": Rule(1, False, _prelu),
    "QUANTIZE": Rule(1, True),
    "REDUCE_MAX": Rule(2, False, _reduction),
    "REDUCE_MIN": Rule(2, False, _reduction),
    "RELU": Rule(2, False),
    "RELU6": Rule(2, False),
    "RELU_N1_TO_1": Rule(2, False),
    "RESHAPE": Rule(1, True, None, _reshape_doubt),
    "RESIZE_BILINEAR": Rule(3, True, _resize, _resize_doubt),
    "RESIZE_NEAREST_NEIGHBOR": Rule(3, False, _resize, _resize_doubt),
    "RSQRT": Rule(2, False),
    "SLICE": Rule(2, False),
    "SOFTMAX": Rule(2, True, _softmax),
    "SPACE_TO_DEPTH": Rule(2, False),
    "SPLIT": Rule(2, True, _split),
    "SQUARED_DIFFERENCE": Rule(2, False),
    "SQUEEZE": Rule(1, False),
    "STRIDED_SLICE": Rule(2, False, _strided_slice),
    "SUB": Rule(2, True),
    "SUM": Rule(2, False, _reduction),
    "TANH": Rule(2, False),
    "TILE": Rule(1, True),  # not in Coral's list, but inside its compiled DeepLab
    "TRANSPOSE": Rule(2, False, None, _transpose_doubt),
    "TRANSPOSE_CONV": Rule(3, False, _transposed),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Rule(1, True),
}
