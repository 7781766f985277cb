"""Decides which taught labels look wrong; a suspect is set aside and shown to the person, never silently
kept or dropped.

A hard sample and a wrong label both contradict the model. How many hard ones there are is what calibrated
held-out probabilities say; only what exceeds that is evidence of wrong labels, and on clean data there is
none. So the share of wrong labels is estimated (`calibration.fit`), and a sample is a suspect when its label
may well be wrong by the base that has not seen it, and the residual, although it has trained on it, has not
learned it either. A sample is looked at with every consolidation while it is remembered, and once more as it
leaves.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Probability of a wrong label from which a sample is set aside. Low, for the share of wrong labels is found
# too low rather than too high where classes overlap, and a person's glance costs less than a wrong label.
ACCUSED = 0.12
ACQUITTED = 0.06  # below which a suspect is taken back
BEYOND_EXPECTED = 1.5  # times what the doubts of a class add up to may be set aside of it, for that reason
MOST_OF_A_CLASS = 0.5  # ... but never more: what a label means is what most that bear it look like
LEAST_SAMPLES = 8  # a class with fewer has no opinion yet that could contradict anybody
LEAST_MEMORY = 32  # samples in memory below which the share of wrong labels cannot be estimated


class Opinion(NamedTuple):
    """What is thought of taught labels.

    Attributes:
        suspect: (n,) set aside.
        suggestion: (n,) class each looks like.
        doubt: (n,) probability of a wrong label.
    """

    suspect: NDArray[np.bool_]
    suggestion: NDArray[np.intp]
    doubt: NDArray[np.float64]


def judge(
    suspected: NDArray[np.bool_], doubts: NDArray, learned: NDArray[np.bool_], samples_of_class: NDArray
) -> NDArray[np.bool_]:
    """Return (n,) who is a suspect now.

    Args:
        suspected: (n,) who was.
        doubts: (n,) probability that the label is wrong, by the base without the sample.
        learned: (n,) whether base and residual together answer the label, the residual having trained on it.
        samples_of_class: (n,) taught samples of the sample's class.
    """
    accused = (samples_of_class >= LEAST_SAMPLES) & (doubts > ACCUSED) & ~learned
    return np.where(suspected, doubts >= ACQUITTED, accused)


def bounded(suspects: NDArray[np.bool_], doubts: NDArray, numbers: NDArray) -> NDArray[np.bool_]:
    """Return suspects (n,) without the least doubted of classes that would lose too many.

    The doubts of a class add up to the wrong labels expected in it, so few that are wrong allow few suspects.
    And without its majority a small class comes to mean what is left of it, which brings the rest into doubt.

    Args:
        suspects: (n,) of all remembered samples.
        doubts: (n,) probability that the label is wrong.
        numbers: (n,) class of each sample.
    """
    kept = suspects.copy()
    for number in np.unique(numbers[suspects]):
        members = np.flatnonzero(numbers == number)
        accused = members[suspects[members]]
        expected = np.ceil(BEYOND_EXPECTED * doubts[members].sum())
        most = int(min(expected, MOST_OF_A_CLASS * len(members)))
        kept[accused[np.argsort(-doubts[accused], kind="stable")[most:]]] = False
    return kept
