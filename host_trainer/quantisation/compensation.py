"""Rounds the weights of a trained network so that each layer still gives what it gave, on real pictures.

Rounding every weight to its nearest step is not the best a layer can do: its inputs go together, so the error
of one weight can be made good by the next ones. Weights are rounded one input after another, and what is lost
is spread over those that are still free (GPTQ: Frantar et al. 2023, after OBS: Hassibi and Stork 1993); the
mean that remains goes into the bias (Nagel et al. 2019). No training, no labels; some seconds a network.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.network import to_input
from host_trainer.quantisation.fake_quant import SMALLEST_RANGE, WEIGHT_STEPS
from host_trainer.quantisation.graph import redrawn_alike

PICTURES = 32  # of the representative ones; with their positions, tens of thousands of rows a layer
MAX_ROWS = 16_384  # positions whose inputs are looked at; more change nothing
DAMPING = 0.01  # of the mean variance: inputs that never vary must not divide by nothing


def compensated(
    folded: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float] = (-1.0, 1.0)
) -> Any:
    """Return a copy of a folded network whose weights lie on int8 steps, one symmetric scale a channel.

    Args:
        folded: functional network without batch normalisation.
        pixels: (N, H, W, 3) uint8 pictures like those it will see.
        input_range: what pixel values 0 and 255 become.
    """
    import keras

    rounded = redrawn_alike(folded)
    images = to_input(pixels[:: max(1, len(pixels) // PICTURES)][:PICTURES], input_range)
    for layer in rounded.layers:
        if type(layer).__name__ in PATCHES and layer.use_bias:
            # What comes in is already changed by the layers before: their errors are seen, and met.
            seen = keras.Model(rounded.input, layer.input)(images, training=False)
            layer.set_weights(_fitted(layer, _some(PATCHES[type(layer).__name__](layer, seen))))
    return rounded


def rounded_against(weights: NDArray, moments: NDArray) -> NDArray[np.float64]:
    """Round weights to steps of max|w| / 127 so that the change of their outputs is small.

    Args:
        weights: (B, K, O), B independent problems of K inputs and O outputs.
        moments: (B, K, K) second moments of the inputs.

    Returns:
        (B, K, O) on the steps; the largest weight of a channel keeps its value, and with it the scale.
    """
    batch, inputs, _ = weights.shape
    wide = weights.astype(np.float64)
    scale = np.maximum(np.abs(wide).max(axis=1), SMALLEST_RANGE) / WEIGHT_STEPS
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=1, kind="stable")
    back = np.argsort(order, axis=1, kind="stable")
    rest = np.take_along_axis(wide, order[:, :, None], axis=1)
    anchor = np.abs(rest).argmax(axis=1)
    ends = np.sign(np.take_along_axis(rest, anchor[:, None], axis=1)[:, 0]) * WEIGHT_STEPS
    upper = _upper(moments[np.arange(batch)[:, None, None], order[:, :, None], order[:, None, :]])
    found = np.empty_like(rest)
    for i in range(inputs):
        steps = np.clip(np.rint(rest[:, i] / scale), -WEIGHT_STEPS, WEIGHT_STEPS)
        steps = np.where(anchor == i, ends, steps)
        found[:, i] = steps * scale
        error = (rest[:, i] - found[:, i]) / upper[:, i, i, None]
        rest[:, i + 1 :] -= upper[:, i, i + 1 :, None] * error[:, None, :]
    return np.take_along_axis(found, back[:, :, None], axis=1)


def _upper(moments: NDArray) -> NDArray[np.float64]:
    """Return U with U'U the inverse of the damped moments, (B, K, K)."""
    size = moments.shape[1]
    spread = np.trace(moments, axis1=1, axis2=2)[:, None, None] / size
    damped = moments + np.eye(size) * (DAMPING * spread + SMALLEST_RANGE)
    return np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(1, 2)


def _fitted(layer: Any, rows: NDArray) -> list[NDArray]:
    """Return kernel and bias, from inputs (rows, B, K)."""
    kernel, bias = layer.get_weights()
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=0)
    centred = (wide - mean).transpose(1, 2, 0)
    shaped = _as_problems(layer, kernel)
    rounded = rounded_against(shaped, centred @ centred.swapaxes(1, 2) / len(rows))
    lost = np.einsum("bk,bko->bo", mean, shaped - rounded).reshape(-1)
    return [_as_kernel(layer, rounded, kernel.shape).astype(np.float32), (bias + lost).astype(np.float32)]


def _as_problems(layer: Any, kernel: NDArray) -> NDArray:
    """Return a kernel as (B, K, O): a depthwise one is a problem a channel, any other a single one."""
    if type(layer).__name__ != "DepthwiseConv2D":
        return kernel.reshape(1, -1, kernel.shape[-1])
    height, width, channels, multiplier = kernel.shape
    return kernel.reshape(height * width, channels, multiplier).transpose(1, 0, 2)


def _as_kernel(layer: Any, problems: NDArray, shape: tuple[int, ...]) -> NDArray:
    if type(layer).__name__ != "DepthwiseConv2D":
        return problems.reshape(shape)
    return problems.transpose(1, 0, 2).reshape(shape)


def _conv_patches(layer: Any, seen: Any) -> NDArray:
    """Return what a convolution looks at: (positions, 1, kh * kw * C)."""
    patches = _patches(layer, seen)
    return patches.reshape(-1, 1, patches.shape[-1])


def _depthwise_patches(layer: Any, seen: Any) -> NDArray:
    """Return what each channel's filter looks at: (positions, C, kh * kw)."""
    channels = seen.shape[-1]
    patches = _patches(layer, seen)
    return patches.reshape(-1, patches.shape[-1] // channels, channels).swapaxes(1, 2)


def _dense_rows(layer: Any, seen: Any) -> NDArray:
    return np.asarray(seen).reshape(-1, 1, seen.shape[-1])


def _patches(layer: Any, seen: Any) -> NDArray:
    from keras import ops

    return np.asarray(
        ops.image.extract_patches(
            seen, layer.kernel_size, layer.strides, layer.dilation_rate[0], layer.padding
        )
    )


def _some(rows: NDArray) -> NDArray:
    """Return rows evenly spread, MAX_ROWS at most."""
    return rows[:: max(1, -(-len(rows) // MAX_ROWS))]


PATCHES = {"Conv2D": _conv_patches, "DepthwiseConv2D": _depthwise_patches, "Dense": _dense_rows}
