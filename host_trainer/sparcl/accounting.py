"""Counts the operations of a continual training, in SparCL's published convention and in an honest one.

The published convention is reconstructed from the tables of Wang et al. 2022 (SparCL), whose dense and sparse
cells it gives to within 2 %. It flatters: replay is charged its forward only, and gradient masks shorten both
halves of the backward pass, though the gradient of the activations needs every live weight. The honest one
charges what is run. Neither counts normalisation, activations, or the making of masks and batches.
"""

from collections.abc import Iterable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

from edge_cl.errors import ModelError
from host_trainer.network import WEIGHTED

FLOPS_OF_A_MAC = 2  # a multiplication and an addition
DENSE: Mapping[str, float] = MappingProxyType({})  # no layer is named, so each is whole


class Work(NamedTuple):
    """What a part of a training ran: an epoch as a rule, during which the masks' densities are constant.

    Attributes:
        samples: pictures of the stream shown.
        replayed: pictures of the buffer shown, all draws together; 0 where there was no replay.
        forward_only: pictures only answered, as by an average of the weights that teaches.
        assessed: pictures whose gradient was taken for the importance of weights, and moved nothing.
        draws: of the method from the buffer a step, whether they happened or not: 0 SGD, 1 ER, 2 DER++.
        live: share of live weights by the kernel's path; what is not named is dense.
        moving: share of moving weights by the kernel's path, of the kernels under a gradient mask: 0 where a
            kernel's gradient was not taken; None where no gradient mask was in force.
    """

    samples: int
    replayed: int = 0
    forward_only: int = 0
    assessed: int = 0
    draws: int = 0
    live: Mapping[str, float] = DENSE
    moving: Mapping[str, float] | None = None


class Flops(NamedTuple):
    """Floating point operations in both conventions."""

    published: float
    honest: float


def forward_macs(model: Any) -> dict[str, int]:
    """Return the multiply-adds of one picture's forward pass by kernel path, in the network's order.

    Every place of the output uses each weight once, of ordinary, grouped and depthwise convolutions alike.

    Raises:
        ModelError: a layer with a matrix of another kind, or an input whose size is not fixed.
    """
    counted = {}
    for layer in model.layers:
        if type(layer).__name__ in WEIGHTED:
            counted[layer.kernel.path] = _places(layer) * prod(layer.kernel.shape)
        elif any(len(weight.shape) > 1 for weight in layer.weights):
            raise ModelError(
                f"the work of layer {layer.name} ({type(layer).__name__}) cannot be counted:"
                f" give a network of {', '.join(WEIGHTED)}"
            )
    return counted


def published(work: Work, macs: Mapping[str, int]) -> float:
    """Return the operations as SparCL's tables count them: [(1 + draws) (1 - s') + 2 (1 - q)] F samples.

    F is a dense forward pass, 1 - s' its share through live weights, 1 - q the share of moving weights in the
    kernels under a gradient mask; without one a backward pass costs 2 (1 - s').
    """
    live = _share(work.live, macs)
    moving = live if work.moving is None else _share(work.moving, _named(work.moving, macs))
    return ((1 + work.draws) * live + 2 * moving) * _forward(macs) * work.samples


def honest(work: Work, macs: Mapping[str, int]) -> float:
    """Return the operations that were run: forward and backward for every picture that was shown.

    The gradient of the activations passes each live weight but those of the first layer, whose input is the
    picture; the gradient of the weights is taken where they move. An assessment takes it of all live weights.
    """
    answer = _weighted(work.live, macs)
    back = answer - _weighted(work.live, _first(macs))
    learn = _weighted(_moving(work), macs)
    shown = work.samples + work.replayed
    passes = shown * (answer + back + learn) + work.assessed * (2 * answer + back)
    return FLOPS_OF_A_MAC * (passes + work.forward_only * answer)


def flops(works: Iterable[Work], macs: Mapping[str, int]) -> Flops:
    """Return the operations of several parts together, in both conventions."""
    parts = [Flops(published(work, macs), honest(work, macs)) for work in works]
    return Flops(sum(part.published for part in parts), sum(part.honest for part in parts))


def dense_like(work: Work, offered: int, draws: int | None = None) -> Work:
    """Return the same part of the dense method: no masks, no removal, no assessment, no average that teaches.

    Args:
        work: of the sparse method.
        offered: pictures of the stream before any were removed.
        draws: of the dense method, where the sparse one saves some; None for as many.
    """
    wanted = work.draws if draws is None else draws
    return Work(offered, replayed=wanted * offered if work.replayed else 0, draws=wanted)


def _places(layer: Any) -> int:
    """Return at how many places of its output a layer applies its kernel."""
    shape = tuple(layer.output.shape)[1:]
    places = shape[1:] if getattr(layer, "data_format", "") == "channels_first" else shape[:-1]
    if None in places:
        raise ModelError(f"layer {layer.name} takes pictures of any size: fix the network's input size")
    return prod(places)


def _moving(work: Work) -> Mapping[str, float]:
    """Return the share of moving weights by path: all live ones where no gradient mask says otherwise."""
    return {**work.live, **(work.moving or {})}


def _forward(macs: Mapping[str, int]) -> float:
    return FLOPS_OF_A_MAC * sum(macs.values())


def _weighted(shares: Mapping[str, float], macs: Mapping[str, int]) -> float:
    return sum(shares.get(path, 1.0) * count for path, count in macs.items())


def _share(shares: Mapping[str, float], macs: Mapping[str, int]) -> float:
    return _weighted(shares, macs) / sum(macs.values()) if macs else 1.0


def _named(shares: Mapping[str, float], macs: Mapping[str, int]) -> dict[str, int]:
    return {path: count for path, count in macs.items() if path in shares}


def _first(macs: Mapping[str, int]) -> dict[str, int]:
    return dict(list(macs.items())[:1])
