"""Keeps which weights of each layer live, and moves that set by the rules of `edge_cl.learning.masking`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.masking import grow, moved_count, shrink
from host_trainer.network import WEIGHTED

DEPTHWISE = "DepthwiseConv2D"

Masks = dict[str, NDArray[np.bool_]]  # by the kernel's Keras path, in the kernel's shape


def prunable(model: Any, depthwise: bool = False) -> dict[str, Any]:
    """Return the kernels that may be pruned, by path, in the network's order.

    The first layer that learns weights stays whole (it sees a few channels only, Gale et al. 2019), and so do
    depthwise kernels unless asked: they hold a hundredth of the weights. What is fixed is no first layer.
    """
    kernels = [
        layer.kernel
        for layer in model.layers
        if layer.trainable
        and type(layer).__name__ in WEIGHTED
        and (depthwise or type(layer).__name__ != DEPTHWISE)
    ]
    return {kernel.path: kernel for kernel in kernels[1:]}


def full_masks(kernels: Mapping[str, Any]) -> Masks:
    """Return masks in which every weight lives."""
    return {path: np.ones(tuple(kernel.shape), bool) for path, kernel in kernels.items()}


def moved(
    masks: Masks, scores: Mapping[str, NDArray], counts: Mapping[str, int], seed: tuple[int, ...]
) -> Masks:
    """Return masks with exactly `counts` live weights a layer, the least scored ones gone.

    A layer with fewer gets some back by chance: rounding may ask for one more than it asked for before.
    """
    rng, exact = np.random.default_rng(seed), {}
    for path, mask in masks.items():
        exact[path] = _with(mask.reshape(-1), scores[path].reshape(-1), counts[path], rng).reshape(mask.shape)
    return exact


def regrown(masks: Masks, share: float, seed: tuple[int, ...]) -> Masks:
    """Return masks with a `share` of each layer's live weights more, drawn from the dead; they start at zero.

    The next `moved` takes as many away again, the weakest of old and new: the set moves, its size does not
    (SET, Mocanu et al. 2018, in the other order: new weights have time to grow before they are judged).
    """
    if share <= 0:
        return dict(masks)
    rng = np.random.default_rng(seed)
    more = {}
    for path, mask in masks.items():
        flat = mask.reshape(-1)
        count = min(moved_count(int(flat.sum()), share), int((~flat).sum()))
        more[path] = (grow(flat, count, rng) if count else flat).reshape(mask.shape)
    return more


def hold(kernels: Mapping[str, Any], masks: Masks) -> None:
    """Set every dead weight to exactly zero."""
    for path, kernel in kernels.items():
        kernel.assign(np.where(masks[path], np.asarray(kernel.value), 0).astype(np.float32))


def density_of(masks: Masks) -> float:
    """Return which fraction of all weights under masks lives."""
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())


def _with(
    mask: NDArray[np.bool_], scores: NDArray, count: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    surplus = int(mask.sum()) - count
    if surplus > 0:
        return shrink(mask, scores, surplus)
    return grow(mask, -surplus, rng) if surplus < 0 else mask
