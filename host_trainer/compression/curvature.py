"""Estimates the loss' diagonal second derivative for every kernel of a network, on any Keras backend."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.compression.saliency import Curvature, curvature_of
from host_trainer.datasets.batches import Source
from host_trainer.training.gradients import Loss, open_stepper


def curvatures(model: Any, loss: Loss, source: Source, batches: int) -> dict[str, NDArray[np.float64]]:
    """Return the curvature of each trainable variable by its Keras path; weights are left as they are.

    Args:
        model: the network.
        loss: as for a training; dropout and batch statistics act as it asks for.
        source: step to batch; steps 0 to `batches` - 1 are used.
        batches: how many; 32 of 64 pictures tell layers and channels apart.
    """
    before = [np.asarray(variable.value).copy() for variable in model.variables]
    optimizer = _squares_collector()
    stepper = open_stepper(model, optimizer, loss)
    size = 0
    for step in range(batches):
        batch = source(step)
        size = len(next(iter(batch.values())))
        stepper.step(batch)
    stepper.settle()
    squares = [np.asarray(variable.value, np.float64) for variable in optimizer.squares]
    for variable, values in zip(model.variables, before, strict=True):
        variable.assign(values)  # the running statistics of a normalisation have moved
    return {
        variable.path: curvature_of(Curvature(square, batches, size))
        for variable, square in zip(model.trainable_variables, squares, strict=True)
    }


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
