"""Keeps what the label audit thinks of each remembered sample, and who left the memory as a suspect."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.audit import Opinion
from edge_cl.memory.buffer import Slots

RECORDED = 1000  # suspects still listed after they have left the memory


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


class Docket:
    """What was last thought of the label in each of K slots; changes in place.

    Attributes:
        doubt: (K,) probability that the label is wrong.
        suggestion: (K,) class that each looks like.
        departed: suspects that have left the memory.
    """

    def __init__(self, slots: int) -> None:
        self.doubt = np.zeros(slots)
        self.suggestion = np.zeros(slots, np.int32)
        self.departed = Record.empty()

    def take(self, slots: NDArray[np.intp], opinion: Opinion) -> None:
        """Take down what is thought of the labels in slots (n,)."""
        self.doubt[slots], self.suggestion[slots] = opinion.doubt, opinion.suggestion

    def depart(self, sample: int, number: int, opinion: Opinion) -> None:
        """Record a suspect of class `number` that leaves the memory; the opinion is of it alone."""
        self.departed = self.departed.with_one(
            sample, number, int(opinion.suggestion[0]), float(opinion.doubt[0])
        )

    def clear(self, sample: int) -> NDArray[np.int32]:
        """Take a departed suspect off the record; return the class it was taught as, (1,), or (0,)."""
        numbers = self.departed.number[self.departed.sample == sample]
        self.departed = self.departed.without_sample(sample)
        return numbers

    def mentions(self, number: int) -> bool:
        """Whether a departed suspect was taught as a class or looked like it."""
        return bool(((self.departed.number == number) | (self.departed.suggestion == number)).any())

    def join_classes(self, source: int, target: int) -> None:
        """Make class `source` a part of class `target`; later classes move down by one."""
        self.departed = self.departed.joined(source, target)
        self.suggestion[self.suggestion == source] = target
        self.suggestion -= self.suggestion > source

    def drop_class(self, number: int, slots: Slots) -> None:
        """Forget a class, which `slots` have forgotten; who looked like it looks like itself."""
        self.departed = self.departed.without_class(number)
        gone = self.suggestion == number
        self.suggestion -= self.suggestion > number
        self.suggestion[gone] = slots.number[gone]

    def suspects(self, slots: Slots, labels: tuple[str, ...]) -> list[Suspect]:
        """Return those set aside in memory and the departed, the most doubtful first."""
        found = np.flatnonzero(slots.suspect)
        columns = slots.sample[found], slots.number[found], self.suggestion[found], self.doubt[found]
        rows = [*zip(*columns, strict=True), *zip(*self.departed, strict=True)]
        named = [Suspect(int(s), labels[n], labels[g], float(d)) for s, n, g, d in rows]
        return sorted(named, key=lambda suspect: (-suspect.doubt, suspect.sample))
