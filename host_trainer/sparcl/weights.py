"""Holds the masks of single weights over a whole network, and moves them: TDM and DGM in their dense form.

Dead weights are exact zeros in dense kernels, so this saves no time: it is the paper's simulation, and the
reference that the compact form must equal. The rules are those of `edge_cl.learning.masking`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.masking import live_count, most_important, moved_count, random_mask
from host_trainer.checkpoints import set_weights
from host_trainer.compression.distribution import counts
from host_trainer.compression.masks import Masks, full_masks, hold, moved
from host_trainer.sparcl.importance import Importance, movement, standing
from host_trainer.sparcl.schedule import Move, Sparsity

CONVOLUTION = "Conv2D"
WHOLE = "network"  # the one group of a global threshold
LIVE, MOVING = "live", "moving"
SAVED = "the saved network"  # what a refusal calls it


def sparse_kernels(model: Any) -> dict[str, Any]:
    """Return the kernels under masks, by path: convolutions that learn, but for the first and the shortcuts'.

    As in the authors' code: of a ResNet its 3x3 convolutions; of a network without others (MobileNets), the
    pointwise ones. Classifier, normalisation and depthwise kernels stay dense.
    """
    convolutions = [layer for layer in model.layers if type(layer).__name__ == CONVOLUTION]
    kernels = [layer.kernel for layer in convolutions if layer.trainable][1:]
    wide = [kernel for kernel in kernels if max(kernel.shape[:2]) > 1]
    return {kernel.path: kernel for kernel in wide or kernels}


class WeightMasks:
    """The masks of one model and of those that follow it; changes their weights in place."""

    def __init__(self, model: Any, sparsity: Sparsity, seed: int) -> None:
        """Choose the first masks and set the dead weights to zero."""
        self.model, self._rules = model, sparsity
        self._kernels = [sparse_kernels(model)]
        shapes = {path: tuple(kernel.shape) for path, kernel in self._kernels[0].items()}
        self._sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
        spread = "erk" if sparsity.initial == "erk" else "uniform"
        self._counts = counts(shapes, sparsity.density, spread) if sparsity.density < 1 else dict(self._sizes)
        self.live = self._first(seed)
        self.moving = dict(self.live)
        self._hold()

    def lead(self, followers: list[Any]) -> None:
        """Keep the dead weights of these copies of `model` at zero too."""
        self._kernels = [sparse_kernels(each) for each in (self.model, *followers)]

    @property
    def guarded(self) -> tuple[str, ...]:
        """Paths of the variables whose gradients pass a mask."""
        return tuple(self._kernels[0])

    def guards(self) -> dict[str, NDArray[np.bool_]]:
        """Return which weights move, by path; inside of those that live."""
        return dict(self.moving)

    def move(self, move: Move, found: Importance | None, seed: tuple[int, ...]) -> Masks:
        """Prune and grow (TDM): the least important become zeros; return which lived before and live now."""
        before = self.live
        scores = standing(self._kernels[0], found, self._rules)
        for number, offset in enumerate(move):
            wanted = {path: self._count(path, offset) for path in self.live}
            self.live = self._moved(scores, wanted, (*seed, number))
        self.moving = dict(self.live)
        self._hold()
        return {path: before[path] & mask for path, mask in self.live.items()}

    def release(self) -> None:
        """Do nothing: gradients are taken whole, and masked after."""

    def choose(self, found: Importance) -> None:
        """Let only the most important live weights move until the next choice (DGM)."""
        scores = movement(found, self._rules)
        self.moving = {}
        for path, mask in self.live.items():
            count = min(int(mask.sum()), live_count(mask.size, 1 - self._rules.still))
            chosen = most_important(mask.reshape(-1), scores[path].reshape(-1), count)
            self.moving[path] = chosen.reshape(mask.shape)

    def densities(self) -> dict[str, float]:
        """Return the share of weights that live, by path."""
        return {path: float(mask.mean()) for path, mask in self.live.items()}

    def movements(self) -> dict[str, float]:
        """Return the share of weights that move, by path."""
        return {path: float(mask.mean()) for path, mask in self.moving.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that `restore` needs."""
        groups = {LIVE: self.live, MOVING: self.moving}
        return {f"{name}/{path}": mask for name, masks in groups.items() for path, mask in masks.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a saved state; the models' weights are restored elsewhere."""
        self.live = {path: state[f"{LIVE}/{path}"].astype(bool) for path in self.live}
        self.moving = {path: state[f"{MOVING}/{path}"].astype(bool) for path in self.live}

    def saved(self) -> Any:
        """Return the model as it is saved: the same."""
        return self.model

    def take(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Give the model the weights of a saved one.

        Raises:
            MismatchError: they are of another network.
        """
        set_weights(self.model, weights, SAVED)

    def finished(self, model: Any) -> Any:
        """Return a model as it is given away: the same, its zeros in place."""
        return model

    def _first(self, seed: int) -> Masks:
        full = full_masks(self._kernels[0])
        if self._rules.initial == "magnitude":
            scores = {path: np.abs(np.asarray(k.value)) for path, k in self._kernels[0].items()}
            return moved(full, scores, self._counts, (seed, 0))
        rng = np.random.default_rng(seed)
        return {
            path: random_mask(mask.size, self._counts[path], rng).reshape(mask.shape)
            for path, mask in full.items()
        }

    def _count(self, path: str, offset: float) -> int:
        if not offset or self._rules.density == 1:
            return self._counts[path]
        change = moved_count(self._sizes[path], abs(offset))
        return max(1, min(self._sizes[path], self._counts[path] + (change if offset > 0 else -change)))

    def _moved(
        self, scores: Mapping[str, NDArray], wanted: Mapping[str, int], seed: tuple[int, ...]
    ) -> Masks:
        if self._rules.scope == "layer":
            return moved(self.live, scores, wanted, seed)
        joined = moved(
            {WHOLE: _joined(self.live)}, {WHOLE: _joined(scores)}, {WHOLE: sum(wanted.values())}, seed
        )
        return _parted(joined[WHOLE], self.live)

    def _hold(self) -> None:
        for kernels in self._kernels:
            hold(kernels, self.live)


def _joined(parts: Mapping[str, NDArray]) -> NDArray:
    return np.concatenate([values.reshape(-1) for values in parts.values()])


def _parted(values: NDArray, like: Masks) -> Masks:
    ends = np.cumsum([mask.size for mask in like.values()])[:-1]
    pieces = zip(like.items(), np.split(values, ends), strict=True)
    return {path: piece.reshape(mask.shape) for (path, mask), piece in pieces}
