"""Widens a trained network and all that is kept with it, so that it can go on with classes it has not met.

A new class begins with a row of zeros in the classifier: its logit is zero for every picture of the past,
which is also what the buffer is told that the network answered then.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.backbones.networks import LOGITS

Arrays = Mapping[str, NDArray[Any]]
BY_CLASS = (f"{LOGITS}/kernel", f"{LOGITS}/bias")  # of a network: the last axis counts classes
STATE_BY_CLASS = ("reservoir/logits", "taught")  # of a learner


def widened_weights(weights: Arrays, classes: int) -> dict[str, NDArray[Any]]:
    """Return a network's variables by path, its classifier wide enough for so many classes."""
    return {path: _padded(values, classes) if _by_class(path) else values for path, values in weights.items()}


def widened_state(state: Arrays, classes: int) -> dict[str, NDArray[Any]]:
    """Return a learner's state for so many classes: its buffer, its averages, its gradients."""
    return {
        name: _padded(values, classes) if name in STATE_BY_CLASS or _by_class(name) else values
        for name, values in state.items()
    }


def _by_class(path: str) -> bool:
    return path.endswith(BY_CLASS)


def _padded(values: NDArray[Any], classes: int) -> NDArray[Any]:
    """Return values with zeros behind the last axis, up to `classes`."""
    more = classes - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, more)])
