"""Reads the constants of a TFLite file as real numbers: quantised ones become float32 again."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from edge_cl.vision.extractor import port_of

# 4-bit, complex and text tensors are left out: no image network here keeps its weights in them.
STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
OUTSIDE = 1  # a buffer whose offset is larger keeps its bytes behind the flatbuffer


def stored_values(model: Any, tensor: Any) -> NDArray[Any] | None:
    """Return a tensor's constant values as they are stored, None for one that is computed.

    Args:
        model: the schema's object tree (ModelT).
        tensor: one of its tensors (TensorT).

    Raises:
        ModelError: a dtype that no image network here uses, sparse, outside of the file, or of another
            length than its shape says.
    """
    buffer = model.buffers[tensor.buffer]
    if buffer.offset > OUTSIDE:
        raise ModelError("the model keeps its constants outside of its graph: export it as one plain file")
    if buffer.data is None or len(buffer.data) == 0:
        return None
    port = port_of(tensor)
    if tensor.sparsity is not None:
        raise ModelError(f"the constant {port.name} is stored sparse: give the file from before that step")
    if port.dtype not in STORED:
        raise ModelError(f"the constant {port.name} is of {port.dtype}: only {', '.join(STORED)} are read")
    values = np.asarray(buffer.data, np.uint8)
    if values.nbytes != math.prod(port.shape) * STORED[port.dtype].itemsize or min(port.shape, default=1) < 1:
        raise ModelError(f"the constant {port.name} has not the size of its shape: the file is damaged")
    return np.frombuffer(values.tobytes(), STORED[port.dtype]).reshape(port.shape)


def real_values(stored: NDArray[Any], tensor: Any, scales: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Dequantise: real = scale * (stored - zero point), per tensor or along one axis; the stored shape.

    Args:
        stored: as `stored_values` returns them.
        tensor: TensorT that says how they are quantised.
        scales: for the axis' channels, used when the tensor itself names none (biases of old converters).

    Raises:
        ModelError: integers without scales, scales that are no positive numbers or do not fit the shape, or
            values that are not finite.
    """
    port, quantised = port_of(tensor), tensor.quantization
    real: NDArray[Any]
    if stored.dtype.kind == "f":
        real = stored.astype(np.float32)
    else:
        given = np.asarray(port.scales if port.scales else scales if scales is not None else (), np.float64)
        zeros = None if quantised is None or not port.scales else quantised.zeroPoint
        zero_points = np.zeros(given.size) if zeros is None else np.asarray(zeros, np.float64)
        axis = 0 if quantised is None or not port.scales else int(quantised.quantizedDimension)
        _check_scales(port.name, stored, given, zero_points, axis)
        along = [1] * stored.ndim
        if given.size > 1:
            along[axis] = given.size
        real = (given.reshape(along) * (stored - zero_points.reshape(along))).astype(np.float32)
    if not np.isfinite(real).all():
        raise ModelError(f"the constant {port.name} holds values that are not numbers: the file is damaged")
    return real


def _check_scales(
    name: str, stored: NDArray[Any], scales: NDArray[Any], zero_points: NDArray[Any], axis: int
) -> None:
    fits = scales.size == 1 or (0 <= axis < stored.ndim and scales.size == stored.shape[axis])
    if not scales.size or not fits or zero_points.size != scales.size:
        raise ModelError(f"the constant {name} does not say how it is quantised: export the model again")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ModelError(f"the constant {name} has a scale that is no positive number: the file is damaged")
