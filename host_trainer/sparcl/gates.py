"""Puts a gate into each convolution: while it is closed, the weight's gradient is not computed at all (DGM).

A mask on a gradient saves nothing, for the gradient is there before it is masked. Here the backward pass asks
the gate at run time: input gradients always flow, so that earlier layers learn; the kernel's own one costs a
convolution only while the gate is open. A gate is a variable, so switching it compiles nothing anew.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

import numpy as np

from edge_cl.learning.masking import most_important
from host_trainer.compression.channels import CONVOLUTION, DEPTHWISE
from host_trainer.quantisation.graph import Wiring, copied, redrawn, wiring
from host_trainer.training.gradients import unknown_backend

PACKAGE = "edge_cl"
GATED = {CONVOLUTION: "GatedConv2D", DEPTHWISE: "GatedDepthwiseConv2D"}
OPEN, CLOSED = 1.0, 0.0

Operation = Callable[..., Any]  # (inputs, kernel) -> maps; linear in each


def gated(model: Any) -> tuple[Any, dict[str, Any]]:
    """Return the network with a gate in each convolution that learns, and the gates by layer, all open.

    Layer names, weights and their paths are those of `model`, which is not changed; a gate's path is
    LAYER/gate. On JAX a stepper holds the gates as it holds statistics: settle it before they are switched,
    resume it after.

    Raises:
        EngineError: Keras runs on a backend that this module does not know.
    """

    def make(layer: Any) -> Any:
        kind = GATED.get(type(layer).__name__) if _may_be_gated(layer) else None
        return copied(layer) if kind is None else _layers()[kind].from_config(layer.get_config())

    drawn = _with_weights(model, make)
    return drawn, {layer.name: layer.gate for layer in drawn.layers if hasattr(layer, "gate")}


def plain(model: Any) -> Any:
    """Return a gated network without its gates: Keras' own layers, as they are saved and exported."""
    import keras

    plain_of = {kind: name for name, kind in GATED.items()}

    def make(layer: Any) -> Any:
        kind = plain_of.get(type(layer).__name__)
        return copied(layer) if kind is None else getattr(keras.layers, kind).from_config(layer.get_config())

    return _with_weights(model, make)


def switch(gates: Mapping[str, Any], moving: Collection[str]) -> None:
    """Open the gates of the layers named in `moving`, and close the others."""
    for name, gate in gates.items():
        gate.assign(OPEN if name in moving else CLOSED)


def blocks_of(model: Any) -> dict[str, list[str]]:
    """Return the convolutions that freeze together, in order, by the name of the first.

    What lies beside a shortcut is one block, the shortcut's own convolution included. On a straight stretch
    a block ends with a full convolution, but for one that only expands what a depthwise convolution takes
    next: so expand, depthwise, project are one, and depthwise, pointwise are one. The stem is its own.

    Raises:
        ModelError: no functional network, or one that uses a layer twice.
    """
    wires, layers = wiring(model), {layer.name: layer for layer in model.layers}
    straight = _straight(wires)
    found: list[list[str]] = [[]]
    for name in wires.sources:
        kind = _kind(layers[name])
        if kind is not None and layers[name].trainable:
            found[-1].append(name)
        full = kind == CONVOLUTION and name in straight and found[-1]
        if full and not (len(found) > 1 and _expands(name, found[-1], wires, layers)):
            found.append([])
        elif name in straight and len(wires.sources[name]) > 1:  # a shortcut ends here
            found.append([])
    return {block[0]: block for block in found if block}


def choose_blocks(block_importance: Mapping[str, float], count: int) -> list[str]:
    """Return the `count` most important blocks, in order: those that move until the next choice."""
    names = list(block_importance)
    worth = np.array([block_importance[name] for name in names])
    chosen = most_important(np.ones(len(names), bool), worth, count)
    return [name for name, moves in zip(names, chosen, strict=True) if moves]


@cache
def _layers() -> dict[str, Any]:
    """Return the gated layers by name; classes, because Keras is imported only where it is needed."""
    import keras
    from keras import ops

    registered = keras.saving.register_keras_serializable(PACKAGE)

    def add_gate(layer: Any) -> Any:
        return layer.add_weight(name="gate", shape=(), initializer="ones", trainable=False, autocast=False)

    @registered
    class GatedConv2D(keras.layers.Conv2D):
        """A convolution whose kernel learns only while its gate is open."""

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.gate = add_gate(self)

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            return _linear(self, super().convolution_op, inputs, kernel)

    @registered
    class GatedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
        """A depthwise convolution whose kernel learns only while its gate is open."""

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.gate = add_gate(self)

        def call(self, inputs: Any) -> Any:
            maps = _linear(self, self._depthwise, inputs, self.kernel)
            return self.activation(maps + self.bias if self.use_bias else maps)

        def _depthwise(self, inputs: Any, kernel: Any) -> Any:
            return ops.depthwise_conv(
                inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
            )

    return {kind.__name__: kind for kind in (GatedConv2D, GatedDepthwiseConv2D)}


def _linear(layer: Any, operation: Operation, inputs: Any, kernel: Any) -> Any:
    """Apply an operation whose backward pass looks at the layer's gate."""
    import keras
    from keras import ops

    if isinstance(inputs, keras.KerasTensor):  # the graph is only being drawn
        return operation(inputs, kernel)
    given = (inputs, ops.convert_to_tensor(kernel), ops.convert_to_tensor(layer.gate))
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow(layer, operation)(*given)
    if backend == "jax":
        return _jax(operation)(*given)
    raise unknown_backend(backend)


def _tensorflow(layer: Any, operation: Operation) -> Operation:
    import tensorflow as tf

    ops, depthwise = tf.raw_ops, type(layer).__name__ == GATED[DEPTHWISE]
    to_input = ops.DepthwiseConv2dNativeBackpropInput if depthwise else ops.Conv2DBackpropInput
    to_kernel = ops.DepthwiseConv2dNativeBackpropFilter if depthwise else ops.Conv2DBackpropFilter
    geometry = {
        "strides": [1, *layer.strides, 1],
        "dilations": [1, *layer.dilation_rate, 1],
        "padding": layer.padding.upper(),
    }

    @tf.custom_gradient
    def linear(inputs: Any, kernel: Any, gate: Any) -> Any:
        def backward(upstream: Any) -> Any:
            def computed() -> Any:
                return to_kernel(input=inputs, filter_sizes=kernel.shape, out_backprop=upstream, **geometry)

            sizes = tf.shape(inputs)
            to_inputs = to_input(input_sizes=sizes, filter=kernel, out_backprop=upstream, **geometry)
            return to_inputs, tf.cond(gate > CLOSED, computed, lambda: tf.zeros_like(kernel)), None

        return operation(inputs, kernel), backward

    # Read here: a function with its own gradient may not read variables itself.
    return lambda *given: linear(*map(tf.convert_to_tensor, given))


def _jax(operation: Operation) -> Operation:
    import jax

    @jax.custom_vjp
    def linear(inputs: Any, kernel: Any, gate: Any) -> Any:
        return operation(inputs, kernel)

    def forward(inputs: Any, kernel: Any, gate: Any) -> Any:
        return operation(inputs, kernel), (inputs, kernel, gate)

    def backward(kept: Any, upstream: Any) -> Any:
        inputs, kernel, gate = kept

        def computed() -> Any:
            return jax.linear_transpose(lambda values: operation(inputs, values), kernel)(upstream)[0]

        (to_inputs,) = jax.linear_transpose(lambda values: operation(values, kernel), inputs)(upstream)
        to_kernel = jax.lax.cond(gate > CLOSED, computed, lambda: jax.numpy.zeros_like(kernel))
        return to_inputs, to_kernel, jax.numpy.zeros_like(gate)

    linear.defvjp(forward, backward)
    return linear


def _with_weights(model: Any, make: Callable[[Any], Any]) -> Any:
    """Redraw a network and give it the weights that both have; gates are in only one of them."""
    drawn = redrawn(model, make, lambda layer, *inputs, **options: layer(*inputs, **options))
    values = {variable.path: variable.value for variable in model.variables}
    for variable in drawn.variables:
        if variable.path in values:
            variable.assign(values[variable.path])
    return drawn


def _may_be_gated(layer: Any) -> bool:
    return layer.trainable and getattr(layer, "groups", 1) == 1


def _kind(layer: Any) -> str | None:
    """Return CONVOLUTION or DEPTHWISE, gated or not; None for other layers."""
    name = type(layer).__name__
    return next((kind for kind, gate in GATED.items() if name in (kind, gate)), None)


def _straight(wires: Wiring) -> set[str]:
    """Return the layers that every path through the network passes: no edge goes around them."""
    place = {name: number for number, name in enumerate(wires.sources)}
    found, farthest = set(), 0
    for name, number in place.items():
        if farthest <= number:
            found.add(name)
        farthest = max([farthest, *(place[taker] for taker in wires.takers[name])])
    return found


def _expands(name: str, block: list[str], wires: Wiring, layers: Mapping[str, Any]) -> bool:
    """Tell whether a convolution only widens what a depthwise one takes next, the first of its block."""
    if any(_kind(layers[other]) == DEPTHWISE for other in block):
        return False
    while len(wires.takers[name]) == 1:
        (name,) = wires.takers[name]
        if (kind := _kind(layers[name])) is not None:
            return kind == DEPTHWISE
    return False
