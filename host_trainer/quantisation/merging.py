"""Multiplies out two convolutions of one place with nothing between them, where that is hardly more work.

A narrow linear layer is a tensor in int8, and the coarsest one of a MobileNetV2: its first has 8 channels,
and what is rounded there is what all the rest is made from. W = W_1 W_2 and b = b_1 W_2 + b_2 need no such
tensor: exact, one layer and one rounding fewer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.quantisation.graph import copied, redrawn, wiring
from host_trainer.quantisation.spaces import is_linear, is_pointwise

MOST_WORK = 1.5  # of the two layers' multiplications, and
MOST_WEIGHTS = 1024  # more than the two had: what was split in two to be small (low rank) stays split


def merged(folded: Any) -> Any:
    """Return a network that computes the same, with such pairs as one layer under the second's name."""
    pairs = _pairs(folded)
    gone = set(pairs.values())
    made = redrawn(
        folded,
        copied,
        lambda layer, *inputs, **options: inputs[0] if layer.name in gone else layer(*inputs, **options),
    )
    for layer in made.layers:
        if layer.name in pairs:
            layer.set_weights(_product(folded.get_layer(pairs[layer.name]), folded.get_layer(layer.name)))
        elif layer.weights:
            layer.set_weights(folded.get_layer(layer.name).get_weights())
    return made


def _pairs(model: Any) -> dict[str, str]:
    """Return {second layer: the one before it}, where they may be one."""
    wires, pairs = wiring(model), dict[str, str]()
    for layer in model.layers:
        source = wires.only_source(layer.name)
        # Of three in a row the first two are one already: the third keeps its own input.
        if source and source not in pairs and _may_be_one(model.get_layer(source), layer):
            pairs[layer.name] = source
    return pairs


def _may_be_one(first: Any, second: Any) -> bool:
    plain = all(
        is_pointwise(layer) and getattr(layer, "strides", (1, 1)) == (1, 1) for layer in (first, second)
    )
    if not plain or type(first) is not type(second) or not is_linear(first) or not second.use_bias:
        return False
    (inputs, narrow), outputs = first.kernel.shape[-2:], second.kernel.shape[-1]
    before, after = narrow * (inputs + outputs), inputs * outputs
    return bool(after <= MOST_WORK * before and after - before <= MOST_WEIGHTS)


def _product(first: Any, second: Any) -> list[NDArray[np.float32]]:
    """Return kernel and bias of two layers in one; sums in float64."""
    kernel, *bias = (values.astype(np.float64) for values in first.get_weights())
    onto, shift = (values.astype(np.float64) for values in second.get_weights())
    moved = shift + (bias[0] @ onto.reshape(onto.shape[-2:]) if bias else 0.0)
    return [(kernel @ onto).astype(np.float32), moved.astype(np.float32)]
