"""Gives the places of dead channels to copies of loud ones, a part of a step apart: their rounding averages.

Depthwise networks have channels that a ReLU shuts for every picture. Such a place costs what any other does.
A channel is made n times instead, each time moved by 1/n of an int8 step, and taken with 1/n of its weight:
the mean of n roundings is as one with a step of 1/n (channel splitting, Zhao et al. 2019, "Improving neural
network quantization without retraining using outlier channel splitting", section 3.3; there for the range of
weights, and at the price of new channels). Nothing is added to the network: no weight, no work.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from host_trainer.network import WEIGHTED
from host_trainer.quantisation.fake_quant import ACTIVATION_STEPS
from host_trainer.quantisation.graph import redrawn_alike, wiring
from host_trainer.quantisation.spaces import Ends, Space, ends, is_linear, is_pointwise, kinds_of, spaces

DEAD = 1e-6  # what a channel may move by, over all pictures


class Chain(NamedTuple):
    """Layers between which a channel has a way of its own: maker, ReLU, depthwise, ReLU, taker; by name."""

    maker: str
    first: str
    depthwise: str
    second: str
    taker: str


def revived(folded: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float] = (-1.0, 1.0)) -> Any:
    """Return a network that computes the same, its dead channels in the service of others.

    Equal up to a step at a border, where padding is zero and a channel is moved.

    Args:
        folded: functional network without batch normalisation.
        pixels: (N, H, W, 3) uint8; a channel that is the same on all of them counts as dead.
        input_range: what pixel values 0 and 255 become.
    """
    made, chains, gains = redrawn_alike(folded), list(_chains(folded)), noise_gains(folded)
    spans = ends(
        folded, [name for chain in chains for name in (chain.first, chain.second)], pixels, input_range
    )
    for chain in chains:
        dead = spans[chain.second].high - spans[chain.second].low <= DEAD
        loudness = np.where(dead, 0.0, gains[chain.first] + gains[chain.second])
        _silence(made, chain, np.flatnonzero(dead), spans[chain.second])
        steps = [float(spans[name].high.max()) / ACTIVATION_STEPS for name in (chain.first, chain.second)]
        for places in copies(loudness):
            _repeat(made, chain, places, *steps)
    return made


def copies(loudness: NDArray[np.float64]) -> list[list[int]]:
    """Decide who is repeated where: the places of each repeated channel, its own first.

    The channel whose noise n copies leave loudest, loudness / n^2, gets the next free place.

    Args:
        loudness: (C,) noise that the rounding of each channel makes, as power; 0 of a free place.
    """
    places = {int(channel): [int(channel)] for channel in np.flatnonzero(loudness > 0)}
    for free in np.flatnonzero(loudness <= 0) if places else ():
        loudest = max(places, key=lambda channel: loudness[channel] / len(places[channel]) ** 2)
        places[loudest].append(int(free))
    return [found for found in places.values() if len(found) > 1]


def noise_gains(model: Any) -> dict[str, NDArray[np.float64]]:
    """Return {layer: (C,)}: the power at the output of white noise of power 1 in a channel of the layer's.

    Noise of a place adds as power, by squared weights; every ReLU counts as open. Layers behind which
    channels lose their order (Flatten, Reshape) count all channels alike.
    """
    wires, gains = wiring(model), dict[str, NDArray[np.float64]]()
    for name in reversed(wires.sources):
        size = int(model.get_layer(name).output.shape[-1])
        gain = np.zeros(size) if wires.takers[name] else np.ones(size)
        for taker in wires.takers[name]:
            back = _back(model.get_layer(taker), gains[taker])
            gain = gain + (back if back.shape == gain.shape else back.mean())
        gains[name] = gain
    return gains


def _back(layer: Any, gain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gain at a layer's input from that at its output."""
    kind = type(layer).__name__
    if kind not in WEIGHTED:
        return gain
    kernel = layer.get_weights()[0].astype(np.float64)
    power = np.square(kernel).reshape(-1, *kernel.shape[-2:]).sum(axis=0)
    return (power * gain.reshape(power.shape)).sum(axis=1) if kind == "DepthwiseConv2D" else power @ gain


def _chains(model: Any) -> Iterator[Chain]:
    kinds = kinds_of(model)
    made_by = {space.makers[0]: space for space in spaces(model) if len(space.makers) == 1}
    for maker, space in made_by.items():
        if kinds[maker] != "Conv2D" or len(space.takers) != 1 or kinds[space.takers[0]] != "DepthwiseConv2D":
            continue
        depthwise = space.takers[0]
        after = made_by.get(depthwise)
        if after is None or len(after.takers) != 1:
            continue
        layers = [model.get_layer(name) for name in (maker, depthwise, after.takers[0])]
        ways = [_only_relu(kinds, each) for each in (space, after)]
        fits = is_linear(layers[0]) and is_linear(layers[1]) and is_pointwise(layers[2])
        if fits and all(ways) and layers[1].depth_multiplier == 1 and all(each.use_bias for each in layers):
            yield Chain(maker, str(ways[0]), depthwise, str(ways[1]), after.takers[0])


def _only_relu(kinds: dict[str, str], space: Space) -> str | None:
    """Return the ReLU behind a space's maker when there is but padding besides; None otherwise."""
    others = [name for name in space.members if name not in space.makers]
    relus = [name for name in others if kinds[name] == "ReLU"]
    padding = all(kinds[name] == "ZeroPadding2D" for name in others if name not in relus)
    return relus[0] if len(relus) == 1 and padding else None


def _silence(made: Any, chain: Chain, dead: NDArray[np.intp], span: Ends) -> None:
    """Put what dead channels give, always the same, into the taker's bias, and cut them off."""
    taker = made.get_layer(chain.taker)
    kernel, bias = taker.get_weights()
    rows = kernel.reshape(kernel.shape[-2:])
    bias = bias + span.high[dead].astype(np.float64) @ rows[dead].astype(np.float64)
    rows[dead] = 0.0
    taker.set_weights([kernel, bias.astype(np.float32)])


def _repeat(made: Any, chain: Chain, places: list[int], step: float, deep_step: float) -> None:
    """Make the first place's channel at all places, moved by fractions of the steps of both its tensors."""
    maker, deep, taker = (made.get_layer(name) for name in (chain.maker, chain.depthwise, chain.taker))
    (kernel, bias), (filters, shift), (onto, last) = (each.get_weights() for each in (maker, deep, taker))
    own, count = places[0], len(places)
    moved = (np.arange(count) - (count - 1) / 2) / count  # their sum is 0: the taker's bias stays
    kernel[..., places] = kernel[..., [own]]
    filters[:, :, places] = filters[:, :, [own]]
    onto[..., places, :] = onto[..., [own], :] / count
    bias[places] = bias[own] + step * moved
    shift[places] = shift[own] + (deep_step - filters[:, :, own].sum() * step) * moved
    for layer, weights in ((maker, [kernel, bias]), (deep, [filters, shift]), (taker, [onto, last])):
        layer.set_weights(weights)
