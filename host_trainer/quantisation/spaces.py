"""Finds which channels go through a network together: who makes them, who takes them, what they span.

Letters: N pictures, H W pixels, C channels.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from host_trainer.network import WEIGHTED, to_input
from host_trainer.quantisation.graph import Wiring, wiring

BATCH = 32  # pictures looked at together


class Space(NamedTuple):
    """The channels of one or more layers' outputs, tied together by sums and by what works on each alone.

    Attributes:
        members: layers whose outputs have these channels.
        makers: the weighted layers among them.
        takers: weighted layers that take a member's output.
    """

    members: tuple[str, ...]
    makers: tuple[str, ...]
    takers: tuple[str, ...]


class Ends(NamedTuple):
    """The least and the greatest value of each channel: (C,) float32 each."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def spaces(model: Any) -> list[Space]:
    """Return the spaces between the weighted layers of a functional network, those of its ends left out."""
    wires, kinds = wiring(model), kinds_of(model)
    found = []
    for members in _tied(wires, kinds):
        makers = tuple(name for name in members if kinds[name] in WEIGHTED)
        taking = (taker for name in members for taker in wires.takers[name] if kinds[taker] in WEIGHTED)
        inside = not any(name in wires.outputs or not wires.sources[name] for name in members)
        if inside:
            found.append(Space(members, makers, tuple(dict.fromkeys(taking))))
    return found


def kinds_of(model: Any) -> dict[str, str]:
    """Return {layer: name of its class}."""
    return {layer.name: type(layer).__name__ for layer in model.layers}


def is_linear(layer: Any) -> bool:
    """Tell whether a weighted layer has no activation of its own."""
    return layer.activation.__name__ == "linear"


def is_pointwise(layer: Any) -> bool:
    """Tell whether a layer sees one place at a time, all channels of it: no border, no neighbours."""
    kind = type(layer).__name__
    return kind == "Dense" or (kind == "Conv2D" and layer.kernel_size == (1, 1) and layer.groups == 1)


def ends(
    model: Any, names: Sequence[str], pixels: NDArray[np.uint8], input_range: tuple[float, float]
) -> dict[str, Ends]:
    """Return what each channel of some layers spans on pictures (N, H, W, 3) uint8, by layer."""
    import keras

    if not names:
        return {}
    watched = keras.Model(model.input, [model.get_layer(name).output for name in names])
    parts = [_ends(watched, part, input_range) for part in _parts(pixels)]
    return {
        name: Ends(
            np.min([part[number].low for part in parts], axis=0),
            np.max([part[number].high for part in parts], axis=0),
        )
        for number, name in enumerate(names)
    }


def _ends(watched: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float]) -> list[Ends]:
    seen = watched(to_input(pixels, input_range), training=False)
    rows = [np.asarray(maps).reshape(-1, maps.shape[-1]) for maps in (seen if type(seen) is list else [seen])]
    return [Ends(each.min(axis=0), each.max(axis=0)) for each in rows]


def _parts(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for at in range(0, len(pixels), BATCH):
        yield pixels[at : at + BATCH]


def _tied(wires: Wiring, kinds: dict[str, str]) -> list[tuple[str, ...]]:
    """Return groups of layers: one that has no weights belongs to all that it takes."""
    group = {name: {name} for name in kinds}
    for name in kinds:
        if kinds[name] in WEIGHTED:
            continue
        for source in wires.sources[name]:
            joined = group[source] | group[name]
            for member in joined:
                group[member] = joined
    distinct = {id(members): members for members in group.values()}
    return [tuple(name for name in kinds if name in members) for members in distinct.values()]
