"""Decides which weights live and which of them move: SparCL's TDM and DGM as rules on arrays.

Wang et al., SparCL: Sparse Continual Learning on the Edge, NeurIPS 2022. The rules know nothing of layers or
blocks: `importance` may score single weights or, summed by the caller, blocks of them. Every rule keeps an
exact count.
"""

import numpy as np
from numpy.typing import NDArray


def weight_importance(
    weights: NDArray, new_gradient: NDArray, memory_gradient: NDArray, alpha: float, beta: float
) -> NDArray:
    """Score weights; the lowest are pruned next: CWI, SparCL eq. (1).

    |w| + alpha |dL~(D_t)/dw| + beta |dL(M)/dw|, with L~ the loss over the current task's classes only, and M
    the memory. The authors' code merges the last two by alpha = beta; here they are separate, as in the
    paper.
    """
    return np.abs(weights) + gradient_importance(new_gradient, memory_gradient, alpha, beta)


def gradient_importance(
    new_gradient: NDArray, memory_gradient: NDArray, alpha: float, beta: float
) -> NDArray:
    """Score weights; the highest may move: CGI, SparCL eq. (3) - eq. (1) without its first term."""
    return alpha * np.abs(new_gradient) + beta * np.abs(memory_gradient)


def live_count(total: int, density: float) -> int:
    """Return how many of `total` units live at `density` in [0, 1]; at least one."""
    return min(total, max(1, round(total * density)))


def moved_count(total: int, share: float) -> int:
    """Return how many of `total` units one adjustment moves (p_inter or p_intra); at least one."""
    return max(1, round(total * share))


def random_mask(total: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask (total,) with exactly `count` live units."""
    mask = np.zeros(total, dtype=bool)
    mask[rng.choice(total, size=count, replace=False)] = True
    return mask


def grow(mask: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return `mask` with `count` more live units, drawn evenly from those that do not live (TDM expand).

    Raises:
        ValueError: fewer than `count` units are free.
    """
    grown = mask.copy()
    grown[rng.choice(np.flatnonzero(~mask), size=count, replace=False)] = True
    return grown


def shrink(mask: NDArray[np.bool_], importance: NDArray, count: int) -> NDArray[np.bool_]:
    """Return `mask` without its `count` least important live units (TDM shrink); ties: lower index first.

    Args:
        mask: (N,).
        importance: (N,); values of units that do not live are ignored.
        count: how many to prune; at least one unit must stay.

    Raises:
        ValueError: nothing would stay.
    """
    live = np.flatnonzero(mask)
    if count >= len(live):
        raise ValueError(f"cannot prune {count} of {len(live)} live units")
    shrunk = mask.copy()
    shrunk[live[np.argsort(importance[live], kind="stable")[:count]]] = False
    return shrunk


def most_important(mask: NDArray[np.bool_], importance: NDArray, count: int) -> NDArray[np.bool_]:
    """Return the mask of the `count` most important live units (DGM); always inside `mask`."""
    live = np.flatnonzero(mask)
    chosen = np.zeros_like(mask)
    chosen[live[np.argsort(-importance[live], kind="stable")[:count]]] = True
    return chosen
