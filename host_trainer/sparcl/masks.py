"""Says what masks of a network are, of single weights or of whole channels, and which a plan asks for."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from host_trainer.sparcl.importance import Importance
from host_trainer.sparcl.plan import Plan
from host_trainer.sparcl.schedule import EDGE, Move
from host_trainer.sparcl.structured import ChannelMasks
from host_trainer.sparcl.weights import WeightMasks


class Masking(Protocol):
    """Which part of a network lives and moves: single weights, or whole channels."""

    model: Any

    def lead(self, followers: list[Any]) -> None:
        """Move these copies of the model too."""
        ...

    @property
    def guarded(self) -> tuple[str, ...]:
        """Paths of the variables whose gradients pass a mask."""
        ...

    def guards(self) -> dict[str, NDArray[Any]]:
        """Return those masks."""
        ...

    def move(
        self, move: Move, found: Importance | None, seed: tuple[int, ...]
    ) -> dict[str, NDArray[np.bool_]]:
        """Prune and grow (TDM); return, by path, which entries are weights that lived before and live now."""
        ...

    def release(self) -> None:
        """Let gradients of everything be taken, as the importance needs them; `choose` comes after."""
        ...

    def choose(self, found: Importance) -> None:
        """Choose what moves (DGM)."""
        ...

    def densities(self) -> dict[str, float]:
        """Return which share of each kernel lives, by path."""
        ...

    def movements(self) -> dict[str, float]:
        """Return which share of each kernel moves, by path."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what `restore` needs."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a saved state."""
        ...

    def saved(self) -> Any:
        """Return the model as it is saved: of Keras' own layers."""
        ...

    def take(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Give the model the weights of a saved one."""
        ...

    def finished(self, model: Any) -> Any:
        """Return a model as it is given away."""
        ...


def open_masking(model: Any, plan: Plan) -> Masking | None:
    """Return the masks that a plan asks for, in force on the model; None for a dense network.

    Raises:
        ConfigError: masks that this network cannot have.
    """
    rules = plan.sparsity
    if rules is None or not (rules.masks or rules.gradients):
        return None
    return (ChannelMasks if rules.mode == EDGE else WeightMasks)(model, rules, plan.seed)
