"""Decides whether a model's input and output can serve a backbone, and how pixels reach its input."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError

TFLITE_MAGIC = b"TFL3"  # flatbuffer file identifier, bytes 4..8
MAX_FEATURE_SIZE = 4096  # values; the learner keeps a D x D matrix, 128 MB of float64 at this size
MAX_INPUT_PIXELS = 1024 * 1024  # a backbone beyond this takes seconds a frame on a small board
RANGE_TOLERANCE = 0.05  # of the range's width; exporters end at 0.992 where the recipe says 1.0

InputRange = tuple[float, float]  # what the network saw in training for pixel values 0 and 255
USUAL_RANGES: tuple[InputRange, ...] = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))


class Port(NamedTuple):
    """One input or output of a model, as its file describes it.

    Attributes:
        name: the tensor's name in the file.
        shape: sizes with the batch fixed at 1.
        signature: sizes as exported; -1 where the file leaves them open.
        dtype: numpy name of the stored values.
        scales: one value per tensor, several per channel, none for float.
        zero_point: stored value that stands for zero (of the first channel).
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_point: int


def image_port(inputs: tuple[Port, ...], name: str) -> Port:
    """Return the input that takes the picture.

    Raises:
        ModelError: not exactly one input of shape (1, H, W, 3) in int8, uint8 or float32.
    """
    if len(inputs) != 1:
        raise ModelError(f"{name} has {len(inputs)} inputs: a backbone takes one picture")
    port = inputs[0]
    if len(port.shape) != 4 or port.shape[3] != 3:
        raise ModelError(
            f"{name} takes {_shown(port.shape)}, not an RGB picture (1, H, W, 3): give an image model"
        )
    if any(size == -1 for size in port.signature[1:]):
        raise ModelError(f"{name} leaves its picture size open: export it with a fixed height and width")
    if port.shape[0] != 1:
        raise ModelError(f"{name} has a fixed batch of {port.shape[0]}: export it with a batch of 1")
    if port.shape[1] * port.shape[2] > MAX_INPUT_PIXELS:
        raise ModelError(f"{name} takes {port.shape[2]} x {port.shape[1]} pixels: too large for a device")
    _check_numbers(port, name, "input")
    return port


def feature_port(outputs: tuple[Port, ...], name: str) -> Port:
    """Return the output that is the feature.

    Raises:
        ModelError: not exactly one output, or one that no learner here can keep.
    """
    if len(outputs) != 1:
        raise ModelError(f"{name} has {len(outputs)} outputs: a backbone gives one feature")
    port = outputs[0]
    if port.shape[:1] != (1,) or not 2 <= int(np.prod(port.shape)) <= MAX_FEATURE_SIZE:
        raise ModelError(
            f"{name} gives {_shown(port.shape)}, not a feature of 2 to {MAX_FEATURE_SIZE} values: "
            "export it with global pooling"
        )
    _check_numbers(port, name, "output")
    return port


def choose_input_range(port: Port, asked: InputRange | None = None) -> tuple[InputRange, str]:
    """Decide what pixel values 0 and 255 become, and say what had to be assumed (empty if nothing).

    A quantised input holds the answer: its real range is that of the training data. Within 5 % of a usual
    recipe it is that recipe; else (mean and deviation of a data set) the bytes span the file's own range.
    """
    if asked is not None:
        return asked, ""
    if port.dtype == "float32":
        return (-1.0, 1.0), "float input: pixels are scaled to -1..1; give the input range if it was another"
    limits = np.iinfo(port.dtype)
    low, high = (float((stored - port.zero_point) * port.scales[0]) for stored in (limits.min, limits.max))
    for usual in USUAL_RANGES:
        if max(abs(low - usual[0]), abs(high - usual[1])) <= RANGE_TOLERANCE * (usual[1] - usual[0]):
            return usual, ""
    return (low, high), f"unusual input range {low:.4g}..{high:.4g}: pixels 0..255 are spread over it"


def pixel_table(port: Port, input_range: InputRange) -> NDArray[Any]:
    """Return what each of the 256 pixel values becomes at the input: (256,) in the input's dtype.

    stored = round(real / scale) + zero_point. Where that is the byte itself to within one step, it *is*
    the byte (shifted by 128 for int8): the step is the exporter's rounding, and keeping bytes apart is what
    Coral does. So MobileNet's uint8 input (scale 1/128, zero point 128) takes pixels as they are.
    """
    low, high = input_range
    real = low + (high - low) * np.arange(256) / 255.0
    if port.dtype == "float32":
        return real.astype(np.float32)
    limits = np.iinfo(port.dtype)
    stored = np.clip(np.round(real / port.scales[0]) + port.zero_point, limits.min, limits.max)
    shifted = np.arange(256) + limits.min
    return (shifted if np.abs(stored - shifted).max() <= 1 else stored).astype(port.dtype)


def quantise(pixels: NDArray[np.uint8], table: NDArray[Any]) -> NDArray[Any]:
    """Look every pixel value up; uint8 in, the table's dtype out, same shape."""
    if table.itemsize == 1:  # four times faster than numpy's take, which widens its indices to 64 bits
        translated = pixels.tobytes().translate(table.tobytes())
        return np.frombuffer(translated, table.dtype).reshape(pixels.shape)
    return table.take(pixels)


def _check_numbers(port: Port, name: str, side: str) -> None:
    if port.dtype not in {"int8", "uint8", "float32"}:
        raise ModelError(f"{name} has an {side} of {port.dtype}: only int8, uint8 and float32 serve")
    if port.dtype == "float32":
        return
    if len(port.scales) != 1 or not 0 < port.scales[0] < float("inf"):
        raise ModelError(
            f"{name} does not say how its {side} is quantised: export it with one scale and zero point"
        )


def _shown(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"
