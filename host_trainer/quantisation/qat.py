"""Puts eight-bit rounding into a folded network, reads what it has learned, and takes it out again.

A range stands where a TFLite file keeps a tensor in int8: at the input, and behind every convolution, sum,
mean and dense layer, after the ReLU that the converter will fuse into it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from host_trainer.network import WEIGHTED
from host_trainer.quantisation.fake_quant import ACTIVATION_STEPS, layers, nudged
from host_trainer.quantisation.graph import Wiring, copied, redrawn, wiring
from host_trainer.quantisation.spaces import ends

RANGE = "_range"  # behind a layer's name: the range of its output
COMPUTING = (*WEIGHTED, "Add", "GlobalAveragePooling2D")  # TFLite gives their output a scale of its own
KEEPING = (
    "ZeroPadding2D",
    "AveragePooling2D",
    "MaxPooling2D",
    "Flatten",
    "Reshape",
    "Dropout",
)  # the input's
RELU = "ReLU"
ROUNDED = "Rounded"  # before the name of the Keras class, in `fake_quant`


def wrap(folded: Any, input_range: tuple[float, float] = (-1.0, 1.0), symmetric: bool = False) -> Any:
    """Return a network with the same weights and graph that computes as its int8 file will.

    Its ranges are empty until it has seen pictures: `calibrate` it before anything else. They are those of a
    TFLite file, or as TensorRT has them: symmetric, and the feature at the end stays float.

    Raises:
        ModelError: a layer whose int8 form is not known here, such as a normalisation that was not folded.
    """
    wires = wiring(folded)
    _check_layers(folded)
    kinds = layers()
    ranged = _ranged(folded, wires) - ({*wires.outputs} if symmetric else set())
    rounded = {kind: getattr(kinds, kind) for kind in WEIGHTED}
    at_input: dict[str, Any] = {}

    def make(layer: Any) -> Any:
        kind = rounded.get(type(layer).__name__)
        return kind.from_config(layer.get_config()) if kind else copied(layer)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        sources = wires.sources[layer.name]
        if sources and not wires.sources[sources[0]]:
            if sources[0] not in at_input:
                at_input[sources[0]] = kinds.Range(input_range, symmetric=symmetric, name=sources[0] + RANGE)(
                    inputs[0]
                )
            inputs = (at_input[sources[0]],)
        output = layer(*inputs, **options)
        if layer.name not in ranged:
            return output
        return kinds.Range(symmetric=symmetric, name=layer.name + RANGE)(output)

    wrapped = redrawn(folded, make, call)
    _copy_weights(folded, wrapped)
    return wrapped


def calibrate(
    wrapped: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float] = (-1.0, 1.0)
) -> None:
    """Set each range of a wrapped network to all that pictures (N, H, W, 3) uint8 reach there unrounded.

    To all of it: where a few pictures are cut, those are the ones whose features suffer most. How much is
    worth its steps is learned later. From here on ranges no longer follow what training shows.
    """
    plain, ranges = unwrap(wrapped), {each.name.removesuffix(RANGE): each for each in _range_layers(wrapped)}
    learned = {name: layer for name, layer in ranges.items() if not layer.fixed}
    for name, span in ends(plain, list(learned), pixels, input_range).items():
        learned[name].low.assign(float(span.low.min()))
        learned[name].high.assign(float(span.high.max()))
    for layer in learned.values():
        layer.follows = False


def activation_ranges(wrapped: Any) -> dict[str, tuple[float, float]]:
    """Return {layer: (low, high)} of what each layer gives, the input's under the input's name."""
    return {layer.name.removesuffix(RANGE): _ends(layer) for layer in _range_layers(wrapped)}


def unwrap(wrapped: Any) -> Any:
    """Return the float network with the weights as they were trained, before rounding."""
    return _without_rounding(wrapped, lambda layer, values: values)


def exportable(wrapped: Any) -> Any:
    """Return the network as TensorFlow's converter takes it, each range marked by TensorFlow's own operation.

    Weights are not marked: the converter itself rounds them to the very steps of `rounded_weights`.

    Raises:
        ModelError: not a wrapped network, or one that was never calibrated.
    """
    ranges = {layer.name: _steps(layer) for layer in _range_layers(wrapped)}
    if not ranges:
        raise ModelError("this network has no activation ranges: wrap it, and calibrate it on pictures")
    kind = layers().TFLiteRange
    return _without_rounding(
        wrapped, lambda layer, values: kind(*ranges[layer.name], name=layer.name)(values)
    )


def _without_rounding(wrapped: Any, at_range: Callable[[Any, Any], Any]) -> Any:
    """Return the plain network, with `at_range(range layer, values)` in place of each range."""
    import keras

    ranges = {layer.name for layer in _range_layers(wrapped)}

    def make(layer: Any) -> Any:
        plain = getattr(keras.layers, type(layer).__name__.removeprefix(ROUNDED), None)
        return copied(layer) if plain is None else plain.from_config(layer.get_config())

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return at_range(layer, *inputs) if layer.name in ranges else layer(*inputs, **options)

    plain = redrawn(wrapped, make, call)
    _copy_weights(wrapped, plain)
    return plain


def _ranged(model: Any, wires: Wiring) -> set[str]:
    """Return the layers behind which a range stands."""
    kinds = {layer.name: _kind(layer) for layer in model.layers}
    computing = {name for name, kind in kinds.items() if kind in COMPUTING}
    fused = {name for name, kind in kinds.items() if kind == RELU and wires.only_source(name) in computing}
    alone = {name for name, kind in kinds.items() if kind == RELU} - fused
    return (computing - {wires.only_source(name) for name in fused}) | fused | alone


def _check_layers(model: Any) -> None:
    known = {*COMPUTING, *KEEPING, RELU, "InputLayer"}
    for layer in model.layers:
        if _kind(layer) not in known:
            raise ModelError(
                f"layer {layer.name} ({type(layer).__name__}) has no int8 form here: "
                f"fold normalisations first, and use only {', '.join(sorted(known))}"
            )


def _kind(layer: Any) -> str:
    """Return the class's name; an Activation that is a ReLU counts as one."""
    name = type(layer).__name__
    return RELU if name == "Activation" and layer.activation.__name__ in {"relu", "relu6"} else name


def _ends(layer: Any) -> tuple[float, float]:
    """Return the ends of a range, stretched as it was learned."""
    factor = float(np.exp(np.asarray(layer.stretch)))
    return float(np.asarray(layer.low)) * factor, float(np.asarray(layer.high)) * factor


def _steps(layer: Any) -> tuple[float, float]:
    """Return the ends of a range, moved so that zero is a step."""
    low, high = _ends(layer)
    if not high > low:
        raise ModelError(f"{layer.name} is empty: calibrate the network on pictures before its export")
    low, scale = (float(np.asarray(each)) for each in nudged(low, high))
    return low, low + ACTIVATION_STEPS * scale


def _range_layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, layers().Range)]


def _copy_weights(source: Any, target: Any) -> None:
    for layer in target.layers:
        if layer.weights and not isinstance(layer, layers().Range):
            layer.set_weights(source.get_layer(layer.name).get_weights())
