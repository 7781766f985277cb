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
RECORDED = 1000  # suspects still listed after they have left the memory
LEAST_MEMORY = 32  # samples in memory below which the share of wrong labels cannot be estimated


class Suspect(NamedTuple):
    """A taught sample whose label looks wrong.

    Attributes:
        sample: id.
        label: as taught.
        suggestion: what it looks like instead.
        doubt: probability that the label is wrong, in [0, 1].
    """

    sample: int
    label: str
    suggestion: str
    doubt: float


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


class Record(NamedTuple):
    """Suspects whose features have left the memory; they stay listed, out of statistics and training.

    Attributes:
        sample: (n,) ids.
        number: (n,) class each was taught as.
        suggestion: (n,) class each looked like.
        doubt: (n,) probability of a wrong label when last judged.
    """

    sample: NDArray[np.int64]
    number: NDArray[np.int32]
    suggestion: NDArray[np.int32]
    doubt: NDArray[np.float64]

    @classmethod
    def empty(cls) -> "Record":
        """Return the record of nobody."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))

    def with_one(self, sample: int, number: int, suggestion: int, doubt: float) -> "Record":
        """Return it with one more, the oldest leaving when it is full."""
        return Record(
            np.append(self.sample, sample)[-RECORDED:].astype(np.int64),
            np.append(self.number, number)[-RECORDED:].astype(np.int32),
            np.append(self.suggestion, suggestion)[-RECORDED:].astype(np.int32),
            np.append(self.doubt, doubt)[-RECORDED:],
        )

    def without_sample(self, sample: int) -> "Record":
        """Return it without one sample."""
        return Record(*(array[self.sample != sample] for array in self))

    def joined(self, source: int, target: int) -> "Record":
        """Return it with class `source` as a part of `target`; who looked like the other is cleared."""
        moved = self._replace(
            number=np.where(self.number == source, target, self.number).astype(np.int32),
            suggestion=np.where(self.suggestion == source, target, self.suggestion).astype(np.int32),
        )
        return Record(*(array[moved.number != moved.suggestion] for array in moved)).without_class(source)

    def without_class(self, number: int) -> "Record":
        """Return it without what was taught as, or looked like, a forgotten class; later ones move down."""
        rest = Record(*(array[(self.number != number) & (self.suggestion != number)] for array in self))
        return rest._replace(
            number=rest.number - (rest.number > number),
            suggestion=rest.suggestion - (rest.suggestion > number),
        )


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
