"""Makes pointwise convolutions block-sparse, and stores them in TFLite files as sparse kernels need them.

Sources: Elsen et al., Fast Sparse ConvNets, CVPR 2020; the conditions are those of XNNPACK's rewriting for
sparse inference (`xnn_subgraph_rewrite_for_nchw`, `xnn_check_nchw_compatibility` in its src/subgraph.c):
weights that TFLite stores sparse and DENSIFY unpacks, float values, and only operations that exist for maps
kept channel by channel. On x86 with AVX XNNPACK never takes that path (`xnn_is_chw_compatible_config`).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, ModelError
from edge_cl.learning.masking import live_count, shrink
from edge_cl.vision.extractor import operator_name, pack_model, port_of, unpack_model
from host_trainer.backbones.tflite.constants import stored_values
from host_trainer.backbones.tflite.graph import (
    Activation,
    Addition,
    Convolution,
    Depthwise,
    GlobalAverage,
    Graph,
    Padding,
    Step,
    read_graph,
)
from host_trainer.network import Network

OUTPUTS = 4  # channels in a block: XNNPACK's widest sparse kernel writes four outputs from one input
LEAST_ZEROS = 2 / 3  # of all pointwise weights, below which XNNPACK stays dense
WORTH_ENCODING = 0.5  # zeros of one kernel; a float32 weight costs 4 bytes dense, 6 with its place
SMALL_KERNELS = {(3, 3): 1, (5, 5): 2}  # depthwise kernels with a sparse-layout form, and their padding
DENSIFY_CODE = 124  # BuiltinOperator in schema.fbs
DENSE_DIMENSION, SPARSE_DIMENSION = 0, 1  # DimensionType


def block_mask(scores: NDArray, density: float, outputs: int = OUTPUTS) -> NDArray[np.bool_]:
    """Return which weights of a pointwise kernel live: (1, 1, I, O) scores to a mask of that shape.

    A block is one input channel and `outputs` neighbouring output channels; the last one of a row may be
    narrower. Blocks live or die whole, by the sum of their scores; their number is exact.

    Raises:
        ConfigError: a density outside of 0..1, or blocks of no channel.
    """
    if not 0 < density <= 1 or outputs < 1:
        raise ConfigError(f"blocks of {outputs} at density {density:g} are none: give 0 < density <= 1")
    sums = np.add.reduceat(scores[0, 0], np.arange(0, scores.shape[3], outputs), axis=1)
    surplus = sums.size - live_count(sums.size, density)
    mask = np.ones(sums.size, bool)
    live = shrink(mask, sums.reshape(-1), surplus) if surplus else mask
    wide = np.repeat(live.reshape(sums.shape), outputs, axis=1)[:, : scores.shape[3]]
    return wide[np.newaxis, np.newaxis]


def compress(network: Network, density: float, outputs: int = OUTPUTS) -> Network:
    """Zero the weakest blocks of every pointwise convolution; the network's model is changed in place."""
    for layer in network.model.layers:
        if type(layer).__name__ == "Conv2D" and tuple(layer.kernel_size) == (1, 1):
            kernel = np.asarray(layer.kernel.value)
            layer.kernel.assign(kernel * block_mask(np.abs(kernel), density, outputs))
    told = {"density": density, "outputs": outputs}
    return network._replace(origin={**network.origin, "block_sparse": told})


def obstacles(data: bytes) -> list[str]:
    """Return what in a TFLite file keeps XNNPACK's sparse kernels away, in its order; empty if nothing.

    Give the dense file, before `encode`.

    Raises:
        ModelError: no network that can be read.
    """
    graph = read_graph(data)
    if graph.image.dtype != "float32":
        return [f"its input is {graph.image.dtype}: sparse kernels are for float networks only"]
    found = [reason for step in graph.steps if (reason := _obstacle(step, graph))]
    kernels = [step.layer.kernel for step in graph.steps if _is_pointwise(step)]  # type: ignore[union-attr]
    zeros = 1 - sum(map(np.count_nonzero, kernels)) / max(1, sum(kernel.size for kernel in kernels))
    if zeros < LEAST_ZEROS:
        found.append(f"{zeros:.0%} of its pointwise weights are zero: less than two thirds")
    return found


def encode(data: bytes) -> bytes:
    """Store the pointwise kernels of a float TFLite file sparse, where enough of their weights are zero.

    Each gets a DENSIFY operation that unpacks it when the file is loaded. The same kernels give the same
    bits; sparse ones add in another order. TensorFlow's converter does alike (EXPERIMENTAL_SPARSITY); this
    works on the file that was proven already.

    Raises:
        ModelError: not TFLite, or damaged.
    """
    model = unpack_model(data)
    graph = model.subgraphs[0]
    unpacking = []
    for operator in graph.operators:
        if operator_name(model, operator) == "CONV_2D":
            unpacking += _unpacked_by(model, graph, operator)
    graph.operators = unpacking + list(graph.operators)
    return pack_model(model)


def csr(matrix: NDArray) -> tuple[NDArray, NDArray[np.int64], NDArray[np.int64]]:
    """Return the non-zero values of (O, I) row by row, where each row starts in them, and their columns."""
    rows, columns = np.nonzero(matrix)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=matrix.shape[0]))])
    return matrix[rows, columns], starts, columns


def _unpacked_by(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Replace an operation's weights by sparse ones; return the operation that unpacks them, if any."""
    from ai_edge_litert import schema_py_generated as schema

    index = int(operator.inputs[1])
    tensor = graph.tensors[index]
    stored = stored_values(model, tensor)
    users = sum(one.buffer == tensor.buffer for one in graph.tensors)
    if stored is None or stored.dtype != np.float32 or stored.shape[1:3] != (1, 1) or users > 1:
        return []
    if np.count_nonzero(stored) > (1 - WORTH_ENCODING) * stored.size:
        return []
    values, starts, columns = csr(stored[:, 0, 0])
    sparse = schema.TensorT()
    sparse.name, sparse.type = port_of(tensor).name + "/sparse", tensor.type
    sparse.shape, sparse.buffer = np.array(stored.shape, np.int32), tensor.buffer
    sparse.sparsity = _sparsity(stored.shape, starts, columns)
    model.buffers[tensor.buffer].data = np.frombuffer(values.astype("<f4").tobytes(), np.uint8)
    tensor.buffer = 0  # from here on it is computed
    graph.tensors.append(sparse)
    unpack = schema.OperatorT()
    unpack.opcodeIndex, unpack.inputs, unpack.outputs = _densify(model), [len(graph.tensors) - 1], [index]
    return [unpack]


def _sparsity(shape: tuple[int, ...], starts: NDArray[np.int64], columns: NDArray[np.int64]) -> Any:
    """Describe (O, 1, 1, I) as three dense dimensions and a sparse last one."""
    from ai_edge_litert import schema_py_generated as schema

    found = schema.SparsityParametersT()
    found.traversalOrder, found.dimMetadata = np.arange(len(shape), dtype=np.int32), []
    for size in shape[:-1]:
        dense = schema.DimensionMetadataT()
        dense.format, dense.denseSize = DENSE_DIMENSION, size
        found.dimMetadata.append(dense)
    last = schema.DimensionMetadataT()
    last.format = SPARSE_DIMENSION
    last.arraySegmentsType, last.arraySegments = _places(starts)
    last.arrayIndicesType, last.arrayIndices = _places(columns)
    found.dimMetadata.append(last)
    return found


def _places(numbers: NDArray[np.int64]) -> tuple[int, Any]:
    """Return the schema's narrowest list of whole numbers."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.SparseIndexVector
    for dtype, kind, held in (
        (np.uint8, kinds.Uint8Vector, schema.Uint8VectorT()),
        (np.uint16, kinds.Uint16Vector, schema.Uint16VectorT()),
        (np.int32, kinds.Int32Vector, schema.Int32VectorT()),
    ):
        if numbers.max(initial=0) <= np.iinfo(dtype).max:
            held.values = numbers.astype(dtype)
            return kind, held
    raise ModelError(f"a kernel has {numbers.max()} weights: more than a sparse tensor can count")


def _densify(model: Any) -> int:
    """Return the place of DENSIFY in the list of the file's operations, added where it is not there yet."""
    from ai_edge_litert import schema_py_generated as schema

    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == DENSIFY_CODE:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = DENSIFY_CODE
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _obstacle(step: Step, graph: Graph) -> str:
    layer = step.layer
    if isinstance(layer, Padding | Activation | Addition | GlobalAverage) or _is_pointwise(step):
        return ""
    if isinstance(layer, Convolution):
        first = layer.kernel.shape[:3] == (3, 3, 3) and layer.strides == (2, 2) and _padding(step, graph) == 1
        return (
            ""
            if first
            else f"{step.name} is no 3x3 stride-2 convolution of the picture, padded by 1 all around"
        )
    if isinstance(layer, Depthwise):
        size = (layer.kernel.shape[0], layer.kernel.shape[1])
        fits = size in SMALL_KERNELS and _padding(step, graph) == SMALL_KERNELS[size]
        return "" if fits else f"{step.name} is not padded alike on all sides: a SAME stride of 2 is not"
    return f"{step.name} has no form for maps kept channel by channel"


def _is_pointwise(step: Step) -> bool:
    layer = step.layer
    return isinstance(layer, Convolution) and layer.kernel.shape[:2] == (1, 1) and layer.strides == (1, 1)


def _padding(step: Step, graph: Graph) -> int:
    """Return by how much a convolution's map is padded on every side; -1 where the sides differ."""
    layer = step.layer
    assert isinstance(layer, Convolution | Depthwise)
    if layer.padding == "same":
        return layer.kernel.shape[0] // 2 if layer.strides == (1, 1) else -1
    before = graph.steps[step.sources[0]].layer if step.sources[0] >= 0 else None
    if not isinstance(before, Padding):
        return 0
    sides = {*before.rows, *before.columns}
    return sides.pop() if len(sides) == 1 else -1


def zeros_of(data: bytes) -> float:
    """Return which fraction of a dense float file's pointwise weights is zero."""
    kernels = [step.layer.kernel for step in read_graph(data).steps if _is_pointwise(step)]  # type: ignore[union-attr]
    total = sum(math.prod(kernel.shape) for kernel in kernels)
    return 1 - sum(int(np.count_nonzero(kernel)) for kernel in kernels) / max(1, total)
