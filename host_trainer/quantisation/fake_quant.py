"""Decides how a number is rounded to eight bits while a network trains, and the layers that do it.

The rounding is written in Keras' own operations, so that it runs on every backend; `TFLiteRange` alone, which
stands in for a range at the export, uses the operation that TensorFlow's converter knows. Weights are
symmetric, one scale a channel, without -128 (narrow range); activations have one range a tensor, nudged so
that zero is a step of it (Jacob et al. 2018, section 3). Gradients pass straight through inside the range,
and stop outside.
"""

import math
from functools import cache
from typing import Any, NamedTuple

WEIGHT_STEPS = 127  # of each sign: int8 without -128
ACTIVATION_STEPS = 255  # between the ends of an activation's range
SMALLEST_RANGE = 1e-6  # of a channel or tensor that is all zero: a scale must stay above nothing
PACKAGE = "edge_cl"  # under which Keras files name these layers
MOMENTUM = 0.99  # of the activation ranges: they follow a hundred batches


def rounded_weights(weights: Any) -> Any:
    """Round weights (..., C) to the steps that int8 keeps, one symmetric scale for each of the last axis.

    scale_c = max|w_c| / 127. Nothing lies outside the range, so the gradient passes everywhere.
    """
    from keras import ops

    axes = tuple(range(len(weights.shape) - 1))
    largest = ops.maximum(ops.max(ops.abs(weights), axis=axes), SMALLEST_RANGE)
    scale = ops.stop_gradient(largest) / WEIGHT_STEPS
    return weights + ops.stop_gradient(ops.round(weights / scale) * scale - weights)


def rounded_activations(values: Any, low: Any, high: Any, stretch: Any = 1.0) -> Any:
    """Round values to the steps of a range that holds zero; outside they are cut, as is their gradient.

    `stretch` multiplies the range's ends, its zero point stays. Its gradient weighs finer steps against what
    is cut: round(v) - v inside and the end outside, v = values / scale (LSQ: Esser et al. 2020, eq. 3).
    """
    from keras import ops

    low, scale = nudged(low, high)
    zero, scale = ops.round(-low / scale), scale * stretch
    steps = ops.clip(values / scale, -zero, ACTIVATION_STEPS - zero)
    # Steps times scale, not low + steps * scale: zero stays zero, and a second rounding changes nothing.
    return (steps + ops.stop_gradient(ops.round(steps) - steps)) * scale


def rounded_symmetric(values: Any, largest: Any) -> Any:
    """Round values to the 255 steps of -largest to largest, as TensorRT keeps activations: no zero point.

    What is outside is cut. The gradient of `largest` is that of `rounded_activations`.
    """
    from keras import ops

    scale = ops.maximum(largest, SMALLEST_RANGE) / WEIGHT_STEPS
    steps = ops.clip(values / scale, -WEIGHT_STEPS, WEIGHT_STEPS)
    return (steps + ops.stop_gradient(ops.round(steps) - steps)) * scale


def nudged(low: Any, high: Any) -> tuple[Any, Any]:
    """Return the low end and the scale of a range moved so that zero is one of its 256 steps."""
    from keras import ops

    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    scale = ops.maximum(high - low, SMALLEST_RANGE) / ACTIVATION_STEPS
    zero = ops.clip(ops.round(-low / scale), 0.0, float(ACTIVATION_STEPS))
    return -zero * scale, scale


def pinned(low: float, high: float) -> tuple[float, float]:
    """Return the input range as a device stores it: byte p is step p, and zero is a step.

    For [-1, 1] that is scale 1/127.5 and int8 zero point -1, what the converter makes of pixels.
    """
    scale = (high - low) / ACTIVATION_STEPS
    zero = min(max(math.ceil(-low / scale - 0.5), 0), ACTIVATION_STEPS)
    return -zero * scale, (ACTIVATION_STEPS - zero) * scale


class Layers(NamedTuple):
    """The layers of this module; classes, because Keras is imported only where it is needed."""

    Conv2D: Any
    DepthwiseConv2D: Any
    Dense: Any
    Range: Any
    TFLiteRange: Any


@cache
def layers() -> Layers:
    """Return the layers, known to Keras by name from now on; needed before a file that holds them is read."""
    import keras
    from keras import ops

    registered = keras.saving.register_keras_serializable(PACKAGE)

    @registered
    class RoundedConv2D(keras.layers.Conv2D):
        """A convolution whose kernel is rounded to int8, one scale an output channel."""

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            return super().convolution_op(inputs, rounded_weights(kernel))

    @registered
    class RoundedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
        """A depthwise convolution whose kernel is rounded to int8, one scale a channel."""

        def call(self, inputs: Any) -> Any:
            height, width, channels, multiplier = self.kernel.shape
            flat = ops.reshape(self.kernel, (height, width, channels * multiplier))
            kernel = ops.reshape(rounded_weights(flat), self.kernel.shape)
            maps = ops.depthwise_conv(
                inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
            )
            return self.activation(maps + self.bias if self.use_bias else maps)

    @registered
    class RoundedDense(keras.layers.Dense):
        """A dense layer whose kernel is rounded to int8, one scale an output."""

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            values = ops.matmul(inputs, rounded_weights(self.kernel))
            return self.activation(values + self.bias if self.use_bias else values)

    @registered
    class Range(keras.layers.Layer):
        """Rounds activations to the 256 steps of a range.

        While it follows, low and high become moving averages of each training batch's ends: the plain mean of
        the first batches, then exponential. Once it does not, its size is learned: e^stretch multiplies both
        ends. A fixed range is that of pixels: it stays, and bytes fall on its steps as on a device. A
        symmetric one reaches as far below zero as above.
        """

        def __init__(
            self,
            fixed: tuple[float, float] | None = None,
            momentum: float = MOMENTUM,
            follows: bool = True,
            symmetric: bool = False,
            **options: Any,
        ):
            super().__init__(**options)
            self.fixed, self.momentum, self.follows, self.symmetric = fixed, momentum, follows, symmetric

        def build(self, input_shape: Any) -> None:
            low, high = pinned(*self.fixed) if self.fixed else (0.0, 0.0)
            self.low = self.add_weight(shape=(), initializer=constant(low), trainable=False, name="low")
            self.high = self.add_weight(shape=(), initializer=constant(high), trainable=False, name="high")
            self.batches = self.add_weight(
                shape=(), initializer=constant(0.0), trainable=False, name="batches"
            )
            self.stretch = self.add_weight(
                shape=(), initializer=constant(0.0), trainable=not self.fixed, name="stretch"
            )

        def call(self, values: Any, training: bool | None = None) -> Any:
            if self.fixed and not self.symmetric:
                # Every pixel lies half way between two steps: a hair upwards decides as a device does.
                hair = (self.fixed[1] - self.fixed[0]) / ACTIVATION_STEPS / 16
                return rounded_activations(values + hair, self.low, self.high)
            if training and self.trainable and self.follows and not self.fixed:
                self._follow(ops.stop_gradient(values))
            if self.symmetric:
                return rounded_symmetric(
                    values, ops.maximum(ops.abs(self.low), ops.abs(self.high)) * ops.exp(self.stretch)
                )
            return rounded_activations(values, self.low, self.high, ops.exp(self.stretch))

        def _follow(self, values: Any) -> None:
            kept = ops.minimum(self.batches / (self.batches + 1), self.momentum)
            self.low.assign(kept * self.low + (1 - kept) * ops.min(values))
            self.high.assign(kept * self.high + (1 - kept) * ops.max(values))
            self.batches.assign(self.batches + 1)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

        def get_config(self) -> dict[str, Any]:
            own = {"fixed": self.fixed, "momentum": self.momentum, "follows": self.follows}
            return {**super().get_config(), **own, "symmetric": self.symmetric}

    @registered
    class TFLiteRange(keras.layers.Layer):
        """A range as TensorFlow's converter reads it; for the export only."""

        def __init__(self, low: float, high: float, **options: Any):
            super().__init__(**options)
            self.low, self.high = low, high

        def call(self, values: Any) -> Any:
            import tensorflow

            return tensorflow.quantization.fake_quant_with_min_max_args(values, self.low, self.high)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "low": self.low, "high": self.high}

    def constant(value: float) -> Any:
        return keras.initializers.Constant(value)

    return Layers(RoundedConv2D, RoundedDepthwiseConv2D, RoundedDense, Range, TFLiteRange)
