"""Removes whole channels from inside a network's blocks: the smaller network is faster on every kernel.

A channel may go where it begins in one convolution, passes layers that keep channels apart (normalisation,
depthwise, ReLU, padding) with nobody else taking it, and ends in one convolution: the expansion of a
MobileNetV2 block, the pointwise of MobileNetV1, the inner maps of a residual block. What is added to a
shortcut, and the linear bottleneck (no ReLU between, Sandler et al. 2018, section 3.2), stay whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from edge_cl.learning.masking import shrink
from host_trainer.compression.saliency import magnitude
from host_trainer.network import Network
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.graph import Wiring, copied, redrawn, wiring
from host_trainer.training.normalisation import NORM

CONVOLUTION, DEPTHWISE = "Conv2D", "DepthwiseConv2D"
CHANNELWISE = (DEPTHWISE, NORM, "ReLU", "ZeroPadding2D")
BENDS = "ReLU"  # what a chain must hold to be more than one linear map
STEP = 8  # kept channels are multiples of it, as kernels and the Edge TPU like them


class Chain(NamedTuple):
    """Layers through which the same channels flow: where they begin, those between, and where they end.

    `end` takes the channels in; its own output is not touched.
    """

    begin: str
    between: tuple[str, ...]
    end: str


@dataclass(frozen=True)
class Cut:
    """How much to remove.

    Attributes:
        keep: share of each chain's channels that stay, rounded to `step`.
        step: kept channels are a multiple of it where there are more than that.
    """

    keep: float
    step: int = STEP

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or self.step < 1:
            raise ConfigError(
                f"keeping {self.keep:g} of the channels by {self.step} is no cut: give 0 < keep <= 1"
            )

    def kept(self, channels: int) -> int:
        """Return how many of so many channels stay."""
        step = 1 if self.keep == 1 else min(self.step, channels)
        return min(channels, max(step, round(channels * self.keep / step) * step))


def chains(model: Any) -> list[Chain]:
    """Return where channels can be removed, in the network's order.

    Raises:
        ModelError: no functional network.
    """
    wires, kinds = wiring(model), {layer.name: layer for layer in model.layers}
    found = (_chain(name, wires, kinds) for name in kinds if _is_convolution(kinds[name]))
    return [chain for chain in found if chain is not None]


def magnitudes(model: Any) -> dict[str, NDArray]:
    """Return {layer: |w|} of the kernels as the deployed network has them, normalisation folded in."""
    folded = fold(model)
    weighted = (layer for layer in folded.layers if hasattr(layer, "kernel"))
    return {layer.name: magnitude(np.asarray(layer.kernel.value)) for layer in weighted}


def channel_saliency(chain: Chain, scores: Mapping[str, NDArray]) -> NDArray[np.float64]:
    """Return what each channel of a chain is worth: (C,), the product over kernels of its mean score there.

    The product, because a factor moved from one kernel to the next through a ReLU changes nothing, and
    because a channel that is zero in one of them is worth nothing.

    Args:
        chain: one of `chains`.
        scores: saliency of each kernel's weights by layer name, in the kernel's shape.
    """
    worth = scores[chain.begin].mean(axis=(0, 1, 2), dtype=np.float64)
    worth = worth * scores[chain.end].mean(axis=(0, 1, 3), dtype=np.float64)
    for name in chain.between:
        if name in scores:  # depthwise
            worth = worth * scores[name].mean(axis=(0, 1, 3), dtype=np.float64)
    return worth


def compress(network: Network, cut: Cut, scores: Mapping[str, NDArray] | None = None) -> Network:
    """Return a network without its least important inner channels; the given one is not changed.

    Args:
        network: with or without normalisation.
        cut: how much.
        scores: see `channel_saliency`; magnitudes by default. For OBD give `saliency.obd` of each kernel.

    Raises:
        ConfigError: there is no channel that can go.
    """
    found = chains(network.model)
    if not found:
        raise ConfigError(f"{network.name} has no inner channels that can be removed")
    scores = magnitudes(network.model) if scores is None else scores
    kept = {}
    for chain in found:
        saliency = channel_saliency(chain, scores)
        surplus = saliency.size - cut.kept(saliency.size)
        everything = np.ones(saliency.size, bool)
        kept[chain] = np.flatnonzero(shrink(everything, saliency, surplus) if surplus else everything)
    told = {"keep": cut.keep, "chains": len(found)}
    return network._replace(
        model=without(network.model, kept), origin={**network.origin, "channels_pruned": told}
    )


def without(model: Any, kept: Mapping[Chain, NDArray[np.intp]]) -> Any:
    """Return the network with only the `kept` channels of each chain: {chain: rising channel numbers}."""
    outputs = {chain.begin: channels for chain, channels in kept.items()}
    inputs = {chain.end: channels for chain, channels in kept.items()}
    between = {name: channels for chain, channels in kept.items() for name in chain.between}

    def make(layer: Any) -> Any:
        if layer.name not in outputs:
            return copied(layer)
        return type(layer).from_config({**layer.get_config(), "filters": int(outputs[layer.name].size)})

    smaller = redrawn(model, make, lambda layer, *given, **options: layer(*given, **options))
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in between:
            weights = [_between(layer, values, between[layer.name]) for values in weights]
        if layer.name in inputs:
            weights[0] = weights[0][:, :, inputs[layer.name]]
        if layer.name in outputs:
            weights = [values[..., outputs[layer.name]] for values in weights]
        smaller.get_layer(layer.name).set_weights(weights)
    return smaller


def _chain(begin: str, wires: Wiring, layers: Mapping[str, Any]) -> Chain | None:
    between: list[str] = []
    at = _only_taker(begin, wires)
    while at is not None and _keeps_channels(layers[at]):
        between.append(at)
        at = _only_taker(at, wires)
    bends = any(type(layers[name]).__name__ == BENDS for name in between)
    return (
        Chain(begin, tuple(between), at) if at is not None and _is_convolution(layers[at]) and bends else None
    )


def _only_taker(name: str, wires: Wiring) -> str | None:
    takers = wires.takers[name]
    return takers[0] if len(takers) == 1 and name not in wires.outputs else None


def _is_convolution(layer: Any) -> bool:
    return type(layer).__name__ == CONVOLUTION and layer.groups == 1 and layer.activation.__name__ == "linear"


def _keeps_channels(layer: Any) -> bool:
    kind = type(layer).__name__
    return kind in CHANNELWISE and (kind != DEPTHWISE or layer.depth_multiplier == 1)


def _between(layer: Any, values: NDArray, channels: NDArray[np.intp]) -> NDArray:
    """Take channels out of a depthwise kernel (kh, kw, C, 1), or out of a vector (C,)."""
    return values[:, :, channels] if values.ndim == 4 else values[..., channels]
