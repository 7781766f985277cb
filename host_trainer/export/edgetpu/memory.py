"""Estimates how much of the Edge TPU's 8 MB the parameters take, and what must be streamed at each inference.

The chip keeps weights and biases in a layout of its own: output channels in groups of 64, input channels in
groups of 4, and 8 bytes of bias and scale for each channel (16 where each channel has its own scale). These
numbers are fitted to the parameters inside Google's compiled files, and stay within 5 % of them for networks
above 0.5 MB (benchmarks/edgetpu_pairs.py). What remains of the 8 MB for parameters depends on the
instructions and the activations; logs of the compiler for real networks show 6.1 to 7.9 MiB.
"""

from math import prod
from typing import NamedTuple

from host_trainer.export.edgetpu.graph import ABSENT, Graph, Operation
from host_trainer.export.edgetpu.mapping import Verdict

CHIP_BYTES = 8 * 2**20
LEAST_ROOM_BYTES = int(6.1 * 2**20)  # for parameters, the least and the most that compiler logs show
MOST_ROOM_BYTES = int(7.86 * 2**20)

OUTPUT_GROUP, INPUT_GROUP = 64, 4  # channels
CHANNEL_BYTES = 8  # bias and multiplier of an output channel
CHANNEL_SCALE_BYTES = 8  # more, where each channel has its own scale
DEPTHWISE_CHANNEL_BYTES = 12
SOFTMAX_VALUE_BYTES = 48  # tables, for each value; newer compilers add them, older ones did not


class Cache(NamedTuple):
    """How the parameters of the operations that could be mapped fit.

    Attributes:
        operations: bytes by number of operation; only those that have parameters.
        total_bytes: of all of them.
        streamed_at_least: bytes a frame over the bus with the most room.
        streamed_at_most: with the least room; 0 when everything surely fits.
    """

    operations: dict[int, int]
    total_bytes: int
    streamed_at_least: int
    streamed_at_most: int

    @property
    def answer(self) -> str:
        """Whether the parameters stay on the chip: yes, perhaps or no."""
        if not self.streamed_at_most:
            return "yes"
        return "no" if self.streamed_at_least else "perhaps"


def estimate(graph: Graph, verdict: Verdict) -> Cache:
    """Return how the parameters of what could be mapped would fit into the chip."""
    sizes = {
        each.operation.number: parameter_bytes(graph, each.operation)
        for each in verdict.placements
        if each.could_map
    }
    total = sum(sizes.values())
    held = {index: size for index, size in sizes.items() if size}
    return Cache(held, total, max(0, total - MOST_ROOM_BYTES), max(0, total - LEAST_ROOM_BYTES))


def parameter_bytes(graph: Graph, operation: Operation) -> int:
    """Return the bytes that one operation's constants take on the chip; 0 where it has none."""
    if operation.name == "SOFTMAX":
        return SOFTMAX_VALUE_BYTES * sum(prod(tensor.shape) for tensor in graph.outputs_of(operation))
    if operation.name in {"CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"}:
        return _weights_bytes(graph, operation)
    # The rest are few: a factor, a table, an LSTM's matrices.
    constants = {i for i in operation.inputs if i != ABSENT and graph.tensors[i].is_constant}
    held = (graph.tensors[i] for i in constants if graph.tensors[i].dtype != "int32")
    return sum(tensor.constant_bytes for tensor in held)


def _weights_bytes(graph: Graph, operation: Operation) -> int:
    tensors = graph.inputs_of(operation)
    if len(tensors) < 2 or len(tensors[1].shape) < 2:
        return 0
    shape, is_per_channel = tensors[1].shape, tensors[1].scales > 1
    each = CHANNEL_SCALE_BYTES if is_per_channel else 0
    if operation.name == "DEPTHWISE_CONV_2D":  # (1, height, width, channels)
        return prod(shape) + shape[-1] * (DEPTHWISE_CHANNEL_BYTES + each)
    outputs, inputs = _rounded(shape[0], OUTPUT_GROUP), _rounded(shape[-1], INPUT_GROUP)
    return outputs * prod(shape[1:-1]) * inputs + outputs * (CHANNEL_BYTES + each)


def _rounded(count: int, group: int) -> int:
    return -(-count // group) * group
