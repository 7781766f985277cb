"""Folds batch normalisation into the weights before it, as every deployed network has it.

With s = gamma / sqrt(variance + epsilon): W' = s W and b' = s (b - mean) + beta (Jacob et al. 2018, eq. 14).
"""

from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import ModelError
from host_trainer.network import WEIGHTED
from host_trainer.quantisation.graph import copied, redrawn, wiring
from host_trainer.training.normalisation import NORM


class Norm(NamedTuple):
    """What a batch normalisation does at inference: (C,) arrays, and epsilon."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


def fold(model: Any) -> Any:
    """Return a network that computes the same without batch normalisation; the given one is not changed.

    Layers keep their names; networks without normalisation come back as a copy.

    Raises:
        ModelError: a normalisation that does not follow a Conv2D, DepthwiseConv2D or Dense of its own.
    """
    folded_into = _pairs(model)
    norms = {norm: model.get_layer(norm) for norm in folded_into.values()}

    def make(layer: Any) -> Any:
        if layer.name in folded_into:
            return type(layer).from_config({**layer.get_config(), "use_bias": True})
        return copied(layer)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in norms else layer(*inputs, **options)

    folded = redrawn(model, make, call)
    for layer in folded.layers:
        source = model.get_layer(layer.name)
        if layer.name in folded_into:
            layer.set_weights(_folded(source, norms[folded_into[layer.name]]))
        else:
            layer.set_weights(source.get_weights())
    return folded


def folded_weights(
    kernel: np.ndarray, bias: np.ndarray | None, norm: Norm, depthwise: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias with a normalisation worked in; sums in float64, results float32.

    Args:
        kernel: output channels last; (kh, kw, C, multiplier) when `depthwise`, channel C * multiplier + m.
        bias: (C_out,) or None.
        norm: of the C_out channels that come out.
    """
    scale = norm.gamma.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    shift = -norm.mean.astype(np.float64) if bias is None else bias.astype(np.float64) - norm.mean
    per_weight = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return (kernel * per_weight).astype(np.float32), (scale * shift + norm.beta).astype(np.float32)


def _pairs(model: Any) -> dict[str, str]:
    """Return {weighted layer: the normalisation that follows it}."""
    wires, pairs = wiring(model), {}
    for layer in model.layers:
        if type(layer).__name__ != NORM:
            continue
        source = wires.only_source(layer.name)
        if source is None or not _takes_norm(model.get_layer(source)):
            raise ModelError(
                f"normalisation {layer.name} does not follow a convolution of its own: it cannot be folded"
            )
        pairs[source] = layer.name
    return pairs


def _takes_norm(layer: Any) -> bool:
    return type(layer).__name__ in WEIGHTED and layer.activation.__name__ == "linear"


def _folded(layer: Any, norm: Any) -> list[np.ndarray]:
    kernel, *bias = layer.get_weights()
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    return list(folded_weights(kernel, bias[0] if bias else None, _norm(norm), depthwise))


def _norm(layer: Any) -> Norm:
    mean, variance = np.asarray(layer.moving_mean.value), np.asarray(layer.moving_variance.value)
    gamma = np.asarray(layer.gamma.value) if layer.scale else np.ones_like(mean)
    beta = np.asarray(layer.beta.value) if layer.center else np.zeros_like(mean)
    return Norm(gamma, beta, mean, variance, float(layer.epsilon))
