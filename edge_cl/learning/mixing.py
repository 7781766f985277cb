"""Decides which samples make up a training batch: old with chance lambda, new otherwise.

Kaeding, Rodner, Freytag, Denzler, Fine-tuning Deep Neural Networks in Continuous Learning Scenarios, ACCV
workshops 2016. Here lambda weighs the OLD data: 0 forgets, 1 leaves the new samples to the next update, when
they have become old.
"""

import numpy as np
from numpy.typing import NDArray


def draw_batch(
    old: NDArray[np.intp], new: NDArray[np.intp], size: int, lam: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Draw `size` samples with replacement and say which are new.

    Where one side is empty the other fills every place.

    Args:
        old: (N,) indices of samples learned in earlier updates.
        new: (U,) indices of the update set.
        size: B.
        lam: chance that a place is old, in [0, 1].
        rng: the step's own generator.

    Raises:
        ValueError: both sides are empty.
    """
    if not len(old) and not len(new):
        raise ValueError("nothing to draw from")
    is_new = rng.random(size) >= lam
    if not len(new):
        is_new[:] = False
    elif not len(old):
        is_new[:] = True
    chosen = np.empty(size, dtype=np.intp)
    chosen[is_new] = new[rng.integers(len(new), size=int(is_new.sum()))] if len(new) else 0
    chosen[~is_new] = old[rng.integers(len(old), size=int((~is_new).sum()))] if len(old) else 0
    return chosen, is_new
