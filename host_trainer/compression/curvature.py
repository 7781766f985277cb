"""Estimates the loss' diagonal second derivative for every kernel of a network, on any Keras backend."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.compression.saliency import Curvature, curvature_of
from host_trainer.datasets.batches import Source
from host_trainer.training.collector import Collector
from host_trainer.training.gradients import Loss


class Estimator:
    """Estimates curvatures of one network by one loss, as often as asked; the step is compiled once."""

    def __init__(self, model: Any, loss: Loss) -> None:
        self._collector = Collector(model, loss, squared=True)

    def estimate(self, source: Source, batches: int) -> dict[str, NDArray[np.float64]]:
        """Return the curvature of each trainable variable by its Keras path; the network is left as it is.

        Args:
            source: step to batch; steps 0 to `batches` - 1 are used.
            batches: how many; 32 of 64 pictures tell layers and channels apart.
        """
        first = source(0)
        size = len(next(iter(first.values())))
        squares = self._collector.collect(lambda step: source(step) if step else first, batches)
        return {
            path: curvature_of(Curvature(total.astype(np.float64), batches, size))
            for path, total in squares.items()
        }


def curvatures(model: Any, loss: Loss, source: Source, batches: int) -> dict[str, NDArray[np.float64]]:
    """Return the curvature of each trainable variable by its Keras path, once; see `Estimator`."""
    return Estimator(model, loss).estimate(source, batches)
