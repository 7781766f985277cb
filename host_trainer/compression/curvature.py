"""Estimates the loss' diagonal second derivative for every kernel of a network, on any Keras backend."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.compression.saliency import Curvature, curvature_of
from host_trainer.datasets.batches import Source
from host_trainer.training.gradients import Loss, open_stepper


class Estimator:
    """Estimates curvatures of one network by one loss, as often as asked; the step is compiled once."""

    def __init__(self, model: Any, loss: Loss) -> None:
        self._model, self._optimizer = model, _squares_collector()
        self._stepper = open_stepper(model, self._optimizer, loss)

    def estimate(self, source: Source, batches: int) -> dict[str, NDArray[np.float64]]:
        """Return the curvature of each trainable variable by its Keras path; the network is left as it is.

        Args:
            source: step to batch; steps 0 to `batches` - 1 are used.
            batches: how many; 32 of 64 pictures tell layers and channels apart.
        """
        before = [np.asarray(variable.value).copy() for variable in self._model.variables]
        for square in self._optimizer.squares:
            square.assign(np.zeros(square.shape, np.float32))
        self._stepper.resume()
        size = 0
        for step in range(batches):
            batch = source(step)
            size = len(next(iter(batch.values())))
            self._stepper.step(batch)
        self._stepper.settle()
        for variable, values in zip(self._model.variables, before, strict=True):
            variable.assign(values)  # the running statistics of a normalisation have moved
        return {
            variable.path: curvature_of(Curvature(np.asarray(square.value, np.float64), batches, size))
            for variable, square in zip(self._model.trainable_variables, self._optimizer.squares, strict=True)
        }


def curvatures(model: Any, loss: Loss, source: Source, batches: int) -> dict[str, NDArray[np.float64]]:
    """Return the curvature of each trainable variable by its Keras path, once; see `Estimator`."""
    return Estimator(model, loss).estimate(source, batches)


def _squares_collector() -> Any:
    """Return a Keras optimizer that adds up squared gradients and changes no weight.

    An optimizer is the one place where both backends hand out gradients by the same call.
    """
    import keras

    class Squares(keras.optimizers.Optimizer):
        def build(self, variables: list[Any]) -> None:
            if self.built:
                return
            super().build(variables)
            self.squares = self.add_optimizer_variables(variables, "squares")

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            square = self.squares[self._get_variable_index(variable)]
            self.assign_add(square, keras.ops.square(keras.ops.cast(gradient, square.dtype)))

    return Squares(learning_rate=0.0)
