"""Takes back the mean error that rounding a convolution's weights to int8 makes, by its bias.

Rounding changes each output channel by a sum that does not average out: b' = b - sum (W_q - W) E[x]
(Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2;
here with E[x] measured on pictures). Borders, where padding adds zeros, are ignored.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.export.onnx_graph import IMAGE
from host_trainer.export.onnxruntime_session import open_session

INT8_MAX = 127


def corrected(graph: Any, images: NDArray[np.float32]) -> Any:
    """Return an fp32 `onnx.ModelProto` whose biases allow for int8 weights; the given one is not changed.

    Arguments:
        graph: of `onnx_graph.translate`.
        images: (N, H, W, 3) float32 as the network takes them; the inputs' means are taken over them.
    """
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}
    convolutions = [node for node in changed.graph.node if node.op_type == "Conv" and len(node.input) == 3]
    means = _input_means(graph, sorted({node.input[0] for node in convolutions}), images)
    for node in convolutions:
        kernel, bias = (onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:])
        better = bias - mean_error(kernel, means[node.input[0]])
        constants[node.input[2]].CopyFrom(
            onnx.numpy_helper.from_array(better.astype(np.float32), node.input[2])
        )
    return changed


def mean_error(kernel: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far rounding shifts each output channel: (out, in/groups, kh, kw), (in,) to (out,).

    Weights are rounded to 127 steps a side, one scale an output channel, as `qdq.quantise` rounds them.
    """
    weights = kernel.astype(np.float64)
    steps = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / INT8_MAX
    steps[steps == 0] = 1.0
    errors = (np.round(weights / steps) * steps - weights).sum(axis=(2, 3))
    groups = len(mean) // errors.shape[1]
    by_group = mean.reshape(groups, -1).repeat(len(errors) // groups, axis=0)
    return np.asarray((errors * by_group).sum(axis=1))


def _input_means(graph: Any, names: list[str], images: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel of the named tensors, over places and pictures: {name: (C,)}."""
    import onnx

    seen = onnx.ModelProto()
    seen.CopyFrom(graph)
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(seen.SerializeToString())
    sums = dict.fromkeys(names, np.float64(0))
    for image in images:
        for name, values in zip(names, session.run(names, {IMAGE: image[np.newaxis]}), strict=True):
            sums[name] = sums[name] + values[0].mean(axis=(1, 2), dtype=np.float64)
    return {name: np.asarray(total / len(images)) for name, total in sums.items()}
