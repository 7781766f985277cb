"""One training step on whichever backend Keras runs on: the loss is written once, in `keras.ops`.

TensorFlow keeps the numbers in the model and changes them in place; JAX passes them through a pure function.
A `Stepper` hides which, and nothing else: no loop, no data, no disk.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from edge_cl.errors import EngineError

Batch = Mapping[str, np.ndarray]
Call = Callable[..., Any]  # call(images, training=True) runs the network
Loss = Callable[
    [Call, Mapping[str, Any]], tuple[Any, dict[str, Any]]
]  # (call, batch) -> (loss, more scalars)


class Stepper(Protocol):
    """Trains one model by one loss. The model's variables are true after `settle` only."""

    def step(self, batch: Batch) -> dict[str, float]:
        """Change the weights once; return `loss` and what else the loss function told."""
        ...

    def settle(self) -> None:
        """Write the weights, statistics and optimizer state back into the Keras objects."""
        ...

    def resume(self) -> None:
        """Take weights, statistics and optimizer state from the Keras objects, which were changed."""
        ...


def open_stepper(model: Any, optimizer: Any, loss: Loss, *, jit: bool | None = None) -> Stepper:
    """Return the stepper of the backend that Keras runs on.

    Args:
        model: functional Keras model, built.
        optimizer: a Keras optimizer; gets the model's trainable variables.
        loss: `(call, batch) -> (loss, scalars)` in keras.ops; `call(images, training=...)` runs the network.
        jit: compile with XLA. By default where it pays: on JAX always, on TensorFlow with a GPU. XLA's
            depthwise convolutions on a CPU take six times as long as TensorFlow's own.

    Raises:
        EngineError: Keras runs on a backend that this trainer does not know.
    """
    import keras

    backend = keras.backend.backend()
    optimizer.build(model.trainable_variables)
    if backend == "tensorflow":
        return _TensorFlowStepper(model, optimizer, loss, jit)
    if backend == "jax":
        return _JaxStepper(model, optimizer, loss)
    raise EngineError(f"Keras runs on {backend}: set KERAS_BACKEND to tensorflow or jax")


class _TensorFlowStepper:
    def __init__(self, model: Any, optimizer: Any, loss: Loss, jit: bool | None) -> None:
        import tensorflow as tf

        if jit is None:
            jit = bool(tf.config.list_physical_devices("GPU"))

        def step(batch: dict[str, Any]) -> dict[str, Any]:
            values = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                value, more = loss(model, batch)
            optimizer.apply(tape.gradient(value, values), model.trainable_variables)
            return {"loss": value, **more}

        # Shapes are those of the first batch; a last, shorter one traces once more.
        self._step = tf.function(step, jit_compile=jit, reduce_retracing=True)
        self._tensor = tf.convert_to_tensor

    def step(self, batch: Batch) -> dict[str, float]:
        told = self._step({name: self._tensor(values) for name, values in batch.items()})
        return {name: float(value) for name, value in told.items()}

    def settle(self) -> None:
        pass  # the variables are changed in place

    def resume(self) -> None:
        pass


class _JaxStepper:
    def __init__(self, model: Any, optimizer: Any, loss: Loss) -> None:
        import jax

        self._model, self._optimizer = model, optimizer

        def judged(trained: Any, other: Any, batch: Any) -> Any:
            state = [other]

            def call(images: Any, training: bool = False) -> Any:
                out, changed = model.stateless_call(trained, state[0], images, training=training)
                state[0] = changed if training else state[0]
                return out

            value, more = loss(call, batch)
            return value, (more, state[0])

        graded = jax.value_and_grad(judged, has_aux=True)

        def step(trained: Any, other: Any, moments: Any, batch: Any) -> Any:
            (value, (more, other)), gradients = graded(trained, other, batch)
            trained, moments = optimizer.stateless_apply(moments, gradients, trained)
            return {"loss": value, **more}, trained, other, moments

        self._step = jax.jit(step, donate_argnums=(0, 1, 2))
        self._state: list[Any] = []
        self.resume()

    def step(self, batch: Batch) -> dict[str, float]:
        told, *self._state = self._step(*self._state, dict(batch))
        return {name: float(value) for name, value in told.items()}

    def settle(self) -> None:
        for variables, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def resume(self) -> None:
        # Copies: the step gives its inputs' memory to its outputs.
        self._state = [
            [np.array(variable.value) for variable in variables] for variables in self._variables()
        ]

    def _variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        model = self._model
        return model.trainable_variables, model.non_trainable_variables, self._optimizer.variables


def predict(model: Any, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Run a network on (N, H, W, 3) float32 images, `batch` at a time: (N, D) float32."""
    import keras

    parts = [images[at : at + batch] for at in range(0, len(images), batch)]
    return np.concatenate([keras.ops.convert_to_numpy(model(part, training=False)) for part in parts])
