"""Splits pointwise convolutions into two thinner ones where that saves work.

Source: Denton et al. 2014 (singular values of a layer); for 1x1 kernels W (I, O) = U (I, r) V (r, O).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from host_trainer.network import Network
from host_trainer.quantisation.graph import copied, redrawn

INNER = "_inner"  # ends the name of the first of two convolutions
POINTWISE = "Conv2D"


class Factors(NamedTuple):
    """W = left @ right to the energy asked, (I, r) and (r, O); each has the roots of the singular values."""

    left: NDArray[np.float32]
    right: NDArray[np.float32]


def rank_of(singular: NDArray, energy: float) -> int:
    """Return the least rank that keeps `energy` in (0, 1] of the sum of squared singular values (falling)."""
    if not 0 < energy <= 1:
        raise ConfigError(f"an energy of {energy:g} is no share: give more than 0, at most 1")
    kept = np.cumsum(np.square(np.asarray(singular, np.float64)))
    enough = kept >= energy * kept[-1] * (1 - 1e-12)
    return int(np.argmax(enough)) + 1


def factorise(matrix: NDArray, energy: float) -> Factors:
    """Split (I, O) so that |W - left right|_F^2 <= (1 - energy) |W|_F^2.

    No factors of a lower rank do (Eckart and Young 1936).
    """
    left, singular, right = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    rank = rank_of(singular, energy)
    roots = np.sqrt(singular[:rank])
    return Factors(
        (left[:, :rank] * roots).astype(np.float32), (roots[:, None] * right[:rank]).astype(np.float32)
    )


def saves(shape: tuple[int, int], rank: int) -> bool:
    """Tell whether two convolutions of this rank take less work than the one they replace."""
    return rank * sum(shape) < shape[0] * shape[1]


def compress(network: Network, energy: float = 0.95) -> Network:
    """Return a network whose pointwise convolutions are split where that saves work; the given one stays.

    The second of two convolutions keeps the layer's name, bias and activation; the first is linear, without
    bias, and has the strides.
    """
    model = network.model
    factors = {
        layer.name: factors for layer in model.layers if (factors := _worth(layer, energy)) is not None
    }
    made: dict[str, Any] = {}

    def make(layer: Any) -> Any:
        if layer.name not in factors:
            return copied(layer)
        first, second = _pair(layer, factors[layer.name].left.shape[1])
        made[layer.name] = first
        return second

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        first = made.get(layer.name)
        return layer(*inputs, **options) if first is None else layer(first(*inputs, **options))

    thinner = redrawn(model, make, call)
    for layer in model.layers:
        if layer.name in factors:
            made[layer.name].set_weights([factors[layer.name].left[None, None]])
            thinner.get_layer(layer.name).set_weights(
                [factors[layer.name].right[None, None], *layer.get_weights()[1:]]
            )
        else:
            thinner.get_layer(layer.name).set_weights(layer.get_weights())
    told = {"energy": energy, "layers": len(factors)}
    return network._replace(model=thinner, origin={**network.origin, "low_rank": told})


def _worth(layer: Any, energy: float) -> Factors | None:
    if type(layer).__name__ != POINTWISE or tuple(layer.kernel_size) != (1, 1) or layer.groups != 1:
        return None
    matrix = np.asarray(layer.kernel.value)[0, 0]
    factors = factorise(matrix, energy)
    return factors if saves(matrix.shape, factors.left.shape[1]) else None


def _pair(layer: Any, rank: int) -> tuple[Any, Any]:
    config = layer.get_config()
    inner = {"filters": rank, "use_bias": False, "activation": "linear", "name": f"{layer.name}{INNER}"}
    make = type(layer).from_config
    return make({**config, **inner}), make({**config, "strides": (1, 1)})
