"""Trains by Adam in steps of int8: one rate suits every weight, bias and range of every network.

Adam moves each number by about the rate, whatever its gradient. In a folded network weights of one layer are
a thousand times those of another, so no rate in their own units fits both: some are thrown about, others do
not move. In units of the step that each is rounded to they are alike.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.quantisation import qat
from host_trainer.quantisation.fake_quant import ACTIVATION_STEPS, SMALLEST_RANGE, WEIGHT_STEPS
from host_trainer.quantisation.graph import Wiring, wiring

STRETCH = 0.1  # of a range's logarithm: ten of its units are a factor of e


def units(wrapped: Any) -> list[NDArray[np.float32]]:
    """Return the size of a step of each trainable variable, in their order, shaped to multiply it.

    A weight's is max|w| / 127 of its channel, a bias's the step of the tensor that it goes into; where that
    stays float, the bias's own size takes the place of the tensor's.
    """
    ranges, wires = qat.activation_ranges(wrapped), wiring(wrapped)
    found = {
        variable.path: _unit(layer, variable, ranges, wires)
        for layer in wrapped.layers
        for variable in layer.trainable_variables
    }
    return [found[variable.path] for variable in wrapped.trainable_variables]


def _unit(layer: Any, variable: Any, ranges: dict[str, tuple[float, float]], wires: Wiring) -> NDArray:
    if variable.name == "stretch":
        return np.float32(STRETCH)
    behind = _range_behind(layer.name, ranges, wires)
    if variable.name == "bias" and behind:
        low, high = ranges[behind]
        return np.float32(max(high - low, SMALLEST_RANGE) / ACTIVATION_STEPS)
    if variable.name == "bias":
        return np.float32(max(np.abs(np.asarray(variable.value)).max(), SMALLEST_RANGE) / WEIGHT_STEPS)
    values = np.abs(np.asarray(variable.value))
    axes = (0, 1) if "Depthwise" in type(layer).__name__ else tuple(range(values.ndim - 1))
    return np.maximum(values.max(axis=axes), SMALLEST_RANGE).astype(np.float32) / WEIGHT_STEPS


def _range_behind(name: str, ranges: dict[str, tuple[float, float]], wires: Wiring) -> str | None:
    """Return whose range a layer's output goes into: its own, or that of the ReLU that is fused into it.

    None where nothing is behind: the feature of a symmetric network.
    """
    while name not in ranges:
        if not wires.takers[name]:
            return None
        name = wires.takers[name][0]
    return name


def stepwise_adam(rate: Any, units: Sequence[NDArray[np.float32]]) -> Any:
    """Return the optimizer: Adam whose rate, or schedule of rates, counts in `units`."""
    return _kind()(rate, units)


@cache
def _kind() -> Any:
    """Return the class; made late, because Keras is imported only where it is needed."""
    import keras

    class StepwiseAdam(keras.optimizers.Adam):
        def __init__(self, rate: Any, units: Sequence[NDArray[np.float32]]) -> None:
            super().__init__(rate)
            self._units = units

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            unit = self._units[self._get_variable_index(variable)]  # on TensorFlow it comes without a path
            super().update_step(gradient, variable, learning_rate * unit)

    return StepwiseAdam
