"""Decides how much of the residual is added to the base: only what a before-you-learn comparison has shown
to help.

Some taught samples are held back: the residual never trains on them, so whenever it answers them it has not
learned them, and the base answers leave-one-out. After every consolidation they are asked again, all classes
in memory alike. (Arriving samples alone would not do: they speak for the newest classes only, and would open
the gate just when it favours those.)
"""

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.calibration import log_softmax

HELD_BACK = 6  # every so manieth sample judges the residual instead of teaching it
CANDIDATES = np.array([0.0, 0.125, 0.25, 0.375, 0.5])  # weights of the residual
CAUTION = 1.0  # standard errors taken from a gain first (one-standard-error rule: Breiman et al. 1984)
LEAST = 16  # held-back samples before any weight above 0 is used
LARGEST_GAIN = 3.0  # nats; one wrong label must not decide for many


def is_held_back(samples: NDArray) -> NDArray[np.bool_]:
    """Return which sample ids judge the residual."""
    return samples % HELD_BACK == 0


def opening(base: NDArray, residual: NDArray, classes: NDArray) -> float:
    """Return the weight to use now, one of CANDIDATES; 0 wins ties and stands where there is no evidence.

    Args:
        base: (n, V, C) held-out logits of the base on held-back samples.
        residual: (n, V, C) what the residual would add.
        classes: (n,).
    """
    if len(classes) < LEAST:
        return 0.0
    rows = np.arange(len(classes))
    losses = np.stack([-log_softmax(base + c * residual)[rows, :, classes].mean(axis=1) for c in CANDIDATES])
    gains = np.clip(losses[0] - losses, -LARGEST_GAIN, LARGEST_GAIN)
    cautious = gains.mean(axis=1) - CAUTION * gains.std(axis=1) / np.sqrt(len(classes))
    return float(CANDIDATES[int(np.argmax(cautious))])
