"""Decides which samples are easy enough to leave out of training for now: SparCL's DDR.

After each stage up to a cutoff, the samples with the fewest misclassifications leave this round's training
set; a new round starts with everybody again. Wang et al. 2022, section 3.2; the published schedule on 10,000
samples keeps 10000, 9250, 8500, 7750, 7000.
"""

import numpy as np
from numpy.typing import NDArray


def kept_count(total: int, share: float, cutoff: int, stage: int) -> int:
    """Return how many of `total` samples are still trained on after `stage` stages.

    Args:
        total: samples at the start of the round.
        share: rho / total, the share removed in the whole round, in [0, 1).
        cutoff: stages after which nothing more is removed.
        stage: stages completed.
    """
    return total - round(total * share * min(stage, cutoff) / cutoff)


def drop_easiest(
    kept: NDArray[np.bool_], mistakes: NDArray, count: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return `kept` reduced to its `count` samples with the most misclassifications; ties are drawn by lot.

    Args:
        kept: (K,) samples still in this round.
        mistakes: (K,) misclassifications, or their rate, in this round.
        count: samples to keep.
        rng: decides among equals, which early on are nearly all.
    """
    candidates = np.flatnonzero(kept)
    hardest_first = candidates[np.lexsort((rng.random(len(candidates)), -mistakes[candidates]))]
    reduced = np.zeros_like(kept)
    reduced[hardest_first[:count]] = True
    return reduced
