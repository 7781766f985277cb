"""Reads a TFLite file into plain values: its tensors, and its operations in the order they run."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from edge_cl.vision.engines.edgetpu import CUSTOM_OP
from edge_cl.vision.extractor import operator_name, port_of, unpack_model
from edge_cl.vision.files import one_line, open_plain, shown

ABSENT = -1  # index that stands for an optional input left out
NO_BUFFER = 0  # by convention the empty one
MAX_FILE_BYTES = 512 * 1024 * 1024  # sixty times the chip's memory; a larger file is not for an Edge TPU
OUTSIDE_OFFSET = 1  # of a buffer: constants beyond it lie after the flatbuffer (schema.fbs)


class Tensor(NamedTuple):
    """One tensor of the graph.

    Attributes:
        name: in the file.
        shape: sizes with the batch fixed at 1.
        signature: sizes as exported; -1 where the file leaves them open.
        dtype: numpy name of the stored values.
        scales: how many: 0 for float, 1 per tensor, more per channel.
        zero_point: stored value that stands for zero (of the first channel).
        is_constant: its values are in the file.
        constant_bytes: how many bytes of it are in the file.
        values: those bytes as uint8; empty where they lie after the flatbuffer, or there are none.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    scales: int
    zero_point: int
    is_constant: bool
    constant_bytes: int
    values: NDArray[np.uint8]


class Operation(NamedTuple):
    """One operation of the graph.

    Attributes:
        number: its place in running order, from 0.
        name: as schema.fbs spells it, or the custom operation's own.
        version: of the kernel that it asks for.
        is_custom: not a standard operation.
        inputs: indices of tensors; -1 for an optional one left out.
        outputs: indices of tensors.
        options: numbers and switches among its options, by their names in schema.fbs.
        payload: what a custom operation carries; empty for others.
    """

    number: int
    name: str
    version: int
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, float]
    payload: bytes


class Graph(NamedTuple):
    """The first subgraph of a file: `tensors`, `operations` in running order, and how many `subgraphs`."""

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    subgraphs: int

    @property
    def is_compiled(self) -> bool:
        """The Edge TPU compiler has made this file."""
        return any(o.is_custom and o.name.encode() == CUSTOM_OP for o in self.operations)

    def inputs_of(self, operation: Operation) -> tuple[Tensor, ...]:
        """Return the tensors that an operation reads; optional ones left out are not among them."""
        return tuple(self.tensors[i] for i in operation.inputs if i != ABSENT)

    def outputs_of(self, operation: Operation) -> tuple[Tensor, ...]:
        """Return the tensors that an operation writes."""
        return tuple(self.tensors[i] for i in operation.outputs)


def load_graph(path: Path) -> Graph:
    """Read the graph of a file that somebody named.

    Raises:
        ModelError: absent, not a plain file, too large, not TFLite, or damaged.
        EngineError: the schema of LiteRT is not installed.
    """
    return read_graph(load_model(path))


def load_model(path: Path) -> bytes:
    """Return the bytes of a file that somebody named.

    Raises:
        ModelError: absent, not a plain file, or too large.
    """
    file, size_bytes = open_plain(path, ModelError)
    with file:
        if size_bytes > MAX_FILE_BYTES:
            raise ModelError(
                f"{path.name} has {size_bytes // 2**20} MiB: an Edge TPU keeps 8, give a smaller model"
            )
        return file.read()


def read_graph(data: bytes) -> Graph:
    """Read the graph of a TFLite file without running it.

    Raises:
        ModelError: not TFLite, or damaged.
        EngineError: the schema of LiteRT is not installed.
    """
    model = unpack_model(data)
    try:
        graph = model.subgraphs[0]
        tensors = tuple(_tensor(model, tensor) for tensor in graph.tensors)
        operations = tuple(_operation(model, i, each) for i, each in enumerate(graph.operators))
        _check_indices(operations, len(tensors))
    except Exception as error:  # indices and lengths come from the file
        raise ModelError(
            f"the model file is damaged or cut off ({one_line(error)}): download it again"
        ) from error
    return Graph(tensors, operations, len(model.subgraphs))


def _tensor(model: Any, tensor: Any) -> Tensor:
    port = port_of(tensor)
    values, size_bytes = _constant(model, tensor.buffer)
    return Tensor(
        port.name, port.shape, port.signature, port.dtype, len(port.scales), port.zero_point,
        size_bytes > 0, size_bytes, values,
    )  # fmt: skip


def _constant(model: Any, place: int) -> tuple[NDArray[np.uint8], int]:
    """Return a constant's bytes as far as they are at hand, and how many it has."""
    if place == NO_BUFFER:
        return np.empty(0, np.uint8), 0
    buffer = model.buffers[place]
    values = np.asarray(buffer.data if buffer.data is not None else (), np.uint8)
    outside = int(buffer.size) if buffer.offset > OUTSIDE_OFFSET else 0
    return values, max(len(values), outside)


def _operation(model: Any, number: int, operator: Any) -> Operation:
    code = model.operatorCodes[operator.opcodeIndex]
    held = operator.customOptions if operator.customOptions is not None else ()
    return Operation(
        number, _name(model, operator), int(code.version), code.customCode is not None,
        _indices(operator.inputs), _indices(operator.outputs), _options(operator),
        np.asarray(held, np.uint8).tobytes(),
    )  # fmt: skip


def _name(model: Any, operator: Any) -> str:
    try:
        return shown(operator_name(model, operator))
    except KeyError as unknown:  # newer than the schema that is installed
        return f"OPERATION_{unknown.args[0]}"


def _options(operator: Any) -> dict[str, float]:
    options = operator.builtinOptions
    held = {} if options is None else vars(options)
    return {name: value for name, value in held.items() if isinstance(value, int | float)}


def _indices(numbers: Any) -> tuple[int, ...]:
    return () if numbers is None else tuple(int(i) for i in numbers)


def _check_indices(operations: tuple[Operation, ...], count: int) -> None:
    for operation in operations:
        if not all(ABSENT <= i < count for i in operation.inputs):
            raise ValueError(f"{operation.name} reads a tensor that is not there")
        if not all(0 <= i < count for i in operation.outputs):
            raise ValueError(f"{operation.name} writes a tensor that is not there")
