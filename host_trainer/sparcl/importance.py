"""Finds what each weight is worth to the current task and to the memory, from averaged gradients."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.masking import gradient_importance, weight_importance
from host_trainer.datasets.batches import Source
from host_trainer.sparcl.losses import WHOLE, stream_loss
from host_trainer.sparcl.schedule import Sparsity
from host_trainer.training.collector import Collector
from host_trainer.training.gradients import Loss
from host_trainer.training.workers import Workers

Gradients = Mapping[str, NDArray[np.float32]]  # by the variable's Keras path


class Importance(NamedTuple):
    """Gradients by path: of the current task's single-head loss, and of the memory's loss.

    In the authors' code one combined gradient stands for both (`memory` is None), and is weighed by alpha.
    """

    stream: Gradients
    memory: Gradients | None


class Assessor:
    """Averages the gradients of both losses on one model; the model is left as it is."""

    def __init__(self, model: Any, workers: Workers | None = None) -> None:
        # One compiled step serves both: the memory's loss is the single-head one that knows of all classes.
        self._collector = Collector(model, stream_loss, workers=workers, whole=WHOLE)

    def assess(self, stream: Source, memory: Source | None, batches: int) -> Importance:
        """Return the mean gradients over so many batches each; without a memory the second is zero.

        A batch of either has images, labels, and the classes that are `known`.
        """
        found = _mean(self._collector.collect(stream, batches), batches)
        if memory is None:
            return Importance(found, {path: np.zeros_like(values) for path, values in found.items()})
        return Importance(found, _mean(self._collector.collect(memory, batches), batches))


class Snapshot:
    """Takes the gradient of one batch by the whole objective, as the authors' code does."""

    def __init__(self, model: Any, loss: Loss, workers: Workers | None = None) -> None:
        self._collector = Collector(model, loss, workers=workers, whole=WHOLE)

    def take(self, batch: Mapping[str, NDArray[Any]], masks: Mapping[str, NDArray[Any]]) -> Importance:
        """Return the gradient, where the masks let it pass."""
        found = self._collector.collect(lambda step: batch, 1)
        return Importance({path: g * masks[path] if path in masks else g for path, g in found.items()}, None)


def standing(
    kernels: Mapping[str, Any], found: Importance | None, rules: Sparsity
) -> dict[str, NDArray[Any]]:
    """Return each weight's CWI (SparCL eq. 1) by path; its magnitude before any gradient is known."""
    weights = {path: np.asarray(kernel.value) for path, kernel in kernels.items()}
    if found is None:
        return {path: np.abs(values) for path, values in weights.items()}
    return {
        path: weight_importance(values, found.stream[path], *_memory(found, path, rules))
        for path, values in weights.items()
    }


def movement(found: Importance, rules: Sparsity) -> dict[str, NDArray[Any]]:
    """Return each weight's CGI (SparCL eq. 3) by path: which weights move."""
    return {
        path: gradient_importance(gradient, *_memory(found, path, rules))
        for path, gradient in found.stream.items()
    }


def _memory(found: Importance, path: str, rules: Sparsity) -> tuple[NDArray[np.float32], float, float]:
    if found.memory is None:
        return np.zeros(1, np.float32), rules.alpha, 0.0
    return found.memory[path], rules.alpha, rules.beta


def _mean(sums: Gradients, batches: int) -> dict[str, NDArray[np.float32]]:
    return {path: total / np.float32(batches) for path, total in sums.items()}
