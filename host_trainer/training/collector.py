"""Adds up a network's gradients over some batches, on any Keras backend, and changes nothing in it."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.datasets.batches import Source
from host_trainer.training.gradients import Loss, open_stepper
from host_trainer.training.workers import Workers


class Collector:
    """Adds up gradients of one network by one loss, as often as asked; the step is compiled once."""

    def __init__(
        self,
        model: Any,
        loss: Loss,
        *,
        squared: bool = False,
        workers: Workers | None = None,
        whole: Collection[str] = (),
    ) -> None:
        """Sum gradients, or their squares; `workers` share each batch, as `open_stepper` has it."""
        self._model, self._optimizer = model, _summing(squared)
        self._stepper = open_stepper(model, self._optimizer, loss, workers=workers, whole=whole)

    def collect(self, source: Source, batches: int) -> dict[str, NDArray[np.float32]]:
        """Return each trainable variable's gradients, by Keras path, summed over steps 0 to `batches` - 1."""
        before = [np.asarray(variable.value).copy() for variable in self._model.variables]
        for total in self._optimizer.sums:
            total.assign(np.zeros(total.shape, np.float32))
        self._stepper.resume()
        for step in range(batches):
            self._stepper.step(source(step))
        self._stepper.settle()
        for variable, values in zip(self._model.variables, before, strict=True):
            variable.assign(values)  # the running statistics of a normalisation have moved
        pairs = zip(self._model.trainable_variables, self._optimizer.sums, strict=True)
        return {variable.path: np.asarray(total.value) for variable, total in pairs}


def _summing(squared: bool) -> Any:
    """Return a Keras optimizer that adds up gradients and changes no weight.

    An optimizer is the one place where both backends hand out gradients by the same call.
    """
    import keras

    class Summing(keras.optimizers.Optimizer):
        def build(self, variables: list[Any]) -> None:
            if self.built:
                return
            super().build(variables)
            self.sums = self.add_optimizer_variables(variables, "sums")

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            total = self.sums[self._get_variable_index(variable)]
            value = keras.ops.cast(gradient, total.dtype)
            self.assign_add(total, keras.ops.square(value) if squared else value)

    return Summing(learning_rate=0.0)
