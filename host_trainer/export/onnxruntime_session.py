"""Opens an ONNX graph in onnxruntime as it is written, to compare it with what it was made from."""

from typing import Any

from edge_cl.errors import ModelError
from edge_cl.vision.files import one_line


def open_session(data: bytes) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU, one thread, no optimisation.

    Raises:
        ModelError: onnxruntime refuses the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # what it finds unusual about a graph is not for the person
    # Pair by pair, as written: its own int8 kernels saturate 16-bit sums on CPUs without VNNI, no GPU does.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise ModelError(f"onnxruntime refuses the graph: {one_line(error)}") from error
