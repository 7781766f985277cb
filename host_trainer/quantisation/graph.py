"""Reads a functional Keras network as a graph: which layer feeds which, and how to draw it anew."""

from collections.abc import Callable
from typing import Any, NamedTuple

from edge_cl.errors import ModelError


class Wiring(NamedTuple):
    """Who is connected to whom inside one network; layers are named.

    Attributes:
        sources: for each layer, the layers whose output it takes, in order.
        takers: for each layer, the layers that take its output; one entry a use.
        outputs: the layers whose output the network gives.
    """

    sources: dict[str, tuple[str, ...]]
    takers: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]

    def only_source(self, layer: str) -> str | None:
        """Return what feeds a layer when nothing else takes that output; None otherwise."""
        sources = self.sources[layer]
        if len(sources) != 1 or sources[0] in self.outputs or len(self.takers[sources[0]]) != 1:
            return None
        return sources[0]


def wiring(model: Any) -> Wiring:
    """Return the wiring of a functional network.

    Raises:
        ModelError: no functional network, or one that uses a layer twice.
    """
    sources: dict[str, tuple[str, ...]] = {}
    for node in _nodes(model):
        name = node.operation.name
        if name in sources:
            raise ModelError(f"layer {name} is used twice: draw the network with a layer for each use")
        sources[name] = tuple(_source(tensor) for tensor in node.input_tensors)
    takers: dict[str, list[str]] = {name: [] for name in sources}
    for name, feeding in sources.items():
        for source in feeding:
            takers[source].append(name)
    outputs = tuple(_source(tensor) for tensor in model.outputs)
    return Wiring(sources, {name: tuple(found) for name, found in takers.items()}, outputs)


def redrawn(model: Any, make: Callable[[Any], Any], call: Callable[..., Any]) -> Any:
    """Return a network of the same graph; `make(layer)` makes a layer, `call(layer, *inputs)` uses it.

    Input and network keep their names, so that equal networks give equal files.
    """
    import keras

    drawn = keras.models.clone_model(model, clone_function=make, call_function=call)
    return keras.Model(drawn.inputs[0], drawn.outputs[0], name=model.name)


def redrawn_alike(model: Any) -> Any:
    """Return a copy of a network with its weights: what is changed there leaves the given one alone."""
    made = redrawn(model, copied, lambda layer, *inputs, **options: layer(*inputs, **options))
    made.set_weights(model.get_weights())
    return made


def copied(layer: Any) -> Any:
    """Return a layer of the same configuration with fresh weights.

    Raises:
        ModelError: a layer that only its own program can make, such as a Lambda.
    """
    try:
        return type(layer).from_config(layer.get_config())
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"layer {layer.name} ({type(layer).__name__}) cannot be drawn anew") from error


def _nodes(model: Any) -> list[Any]:
    # The only place that tells uses inside *this* network from those in others that share the layer.
    by_depth = getattr(model, "_nodes_by_depth", None)
    if by_depth is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError("only a functional network with one input and one output can be quantised")
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if node.operation]


def _source(tensor: Any) -> str:
    return str(tensor._keras_history.operation.name)
