"""Gives the channels of a linear tensor the same middle and the same span; the network computes the same.

One tensor has one step and one zero in int8: where one channel spans -50..60 and another 0..1, five steps are
left to the second. Between layers without an activation each channel can be moved and divided where it is
made, and both undone where it is taken: y = W x + b = (W s) ((x - m) / s) + (b + W m) (Nagel et al. 2019,
"Data-free quantization through weight equalization and bias correction", sections 4.1 and 4.2). There s
balances weights; ours have a scale a channel, so s is all for the tensor: what the channel spans on pictures.

Channels behind a ReLU6 are left alone: 6 is the end for all of them, whatever they are divided by.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.quantisation.fake_quant import SMALLEST_RANGE
from host_trainer.quantisation.graph import Wiring, redrawn_alike, wiring
from host_trainer.quantisation.spaces import Ends, Space, ends, is_linear, is_pointwise, kinds_of, spaces

LEAST_SHARE = 1e-3  # of the widest channel's span: one that hardly moves is not blown up to the full range


def levelled(folded: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float] = (-1.0, 1.0)) -> Any:
    """Return a network whose linear tensors use their range alike in all channels.

    Args:
        folded: functional network without batch normalisation.
        pixels: (N, H, W, 3) uint8 pictures like those it will see.
        input_range: what pixel values 0 and 255 become.
    """
    made, wires = redrawn_alike(folded), wiring(folded)
    found = [space for space in spaces(folded) if _may_be_levelled(folded, space)]
    spans = ends(folded, [name for space in found for name in space.members], pixels, input_range)
    for space in found:
        moved = _middles(space, wires, spans)
        scale = _scale([_moved(spans[name], moved[name]) for name in space.members])
        for name in space.makers:
            _divide(made.get_layer(name), moved[name], scale)
        for name in space.takers:
            _multiply(made.get_layer(name), moved[wires.sources[name][0]], scale)
    return made


def _may_be_levelled(model: Any, space: Space) -> bool:
    kinds = kinds_of(model)
    plain = all(kinds[name] == "Add" or name in space.makers for name in space.members)
    layers = [model.get_layer(name) for name in (*space.makers, *space.takers)]
    makers = all(is_linear(model.get_layer(name)) for name in space.makers)
    takers = all(is_pointwise(model.get_layer(name)) for name in space.takers)
    return plain and makers and takers and bool(space.takers) and all(layer.use_bias for layer in layers)


def _middles(space: Space, wires: Wiring, spans: dict[str, Ends]) -> dict[str, NDArray[np.float64]]:
    """Return by how much each member's channels are moved: makers to their middle, sums by their parts'."""
    moved = {name: (spans[name].low + spans[name].high).astype(np.float64) / 2 for name in space.makers}
    for name in wires.sources:  # in the order of the data
        if name in space.members and name not in moved:
            moved[name] = np.sum([moved[source] for source in wires.sources[name]], axis=0)
    return moved


def _moved(span: Ends, by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each channel reaches from zero after the move, (C,)."""
    return np.maximum(np.abs(span.low - by), np.abs(span.high - by))


def _scale(reaches: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return what channels are divided by, (C,): the largest share that one has of any tensor's reach."""
    shares = [reach / max(float(reach.max()), SMALLEST_RANGE) for reach in reaches]
    return np.maximum(np.max(shares, axis=0), LEAST_SHARE)


def _divide(layer: Any, moved: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
    kernel, bias = layer.get_weights()
    shape = kernel.shape[2:] if type(layer).__name__ == "DepthwiseConv2D" else scale.shape
    _set(layer, kernel / scale.reshape(shape), (bias - moved) / scale)


def _multiply(layer: Any, moved: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
    kernel, bias = layer.get_weights()
    _set(layer, kernel * scale[:, None], bias + moved @ kernel.reshape(kernel.shape[-2:]).astype(np.float64))


def _set(layer: Any, kernel: NDArray, bias: NDArray) -> None:
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
