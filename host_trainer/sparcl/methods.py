"""Decides what each method of continual training is: which losses, which replay, what is averaged.

Definitions as in mammoth (Buzzega et al. 2020), CLS-ER's authors' code (Arani et al. 2022) and SparCL (Wang
et al. 2022). The rates are the published ones for Split CIFAR-10 at a buffer of 200.
"""

from dataclasses import dataclass
from enum import Enum

from edge_cl.errors import ConfigError


class Scope(Enum):
    """Which classes a stream picture's cross-entropy knows of; the logits of the others do not count."""

    ALL = "all"
    TASK = "task"  # those of the current task: SparCL's single-head loss L~
    PRESENT = "present"  # those of the batch, and all not seen yet, from the second task on: ER-ACE


@dataclass(frozen=True)
class Averages:
    """Exponential averages of the weights.

    Attributes:
        spans: how far each reaches back, in tasks; the first one answers questions. A step changes an average
            with chance `chances`, so its decay is 1 - 1 / (span * steps of a task * chance).
        chances: of a change at each step.
        weight: of the averages' answers on replayed pictures: MSE against the one that is surer of the truth.
    """

    spans: tuple[float, ...]
    chances: tuple[float, ...]
    weight: float


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as `--method` takes it.
        scope: of the stream's cross-entropy.
        draws: independent draws from the buffer in a step.
        merged: one forward for stream and draws, so that normalisation sees them as one batch.
        share: weight of the stream's cross-entropy.
        labels: weight of the cross-entropy of the last draw.
        logits: weight of the MSE to the logits kept with the first draw (DER).
        rate: learning rate of plain SGD.
        first_task: replays in the first task too.
        averages: of the weights; None for none.
        adjustment: how much remembered pictures count among those shown, where each class' share of them is
            taken off its logit; 0 where nothing is taken off.
        sparse: SparCL's masks and removal apply.
        joint: all tasks at once: the upper bound.
    """

    name: str
    scope: Scope = Scope.ALL
    draws: int = 0
    merged: bool = False
    share: float = 1.0
    labels: float = 0.0
    logits: float = 0.0
    rate: float = 0.03
    first_task: bool = True
    averages: Averages | None = None
    adjustment: float = 0.0
    sparse: bool = False
    joint: bool = False


# At 50 epochs of 10,000 pictures, spans of 0.64 and 0.21 tasks are CLS-ER's published decay of 0.999.
STABLE_AND_PLASTIC = Averages(spans=(0.64, 0.21), chances=(0.1, 0.3), weight=0.15)

METHODS = {
    method.name: method
    for method in (
        Method("sgd", rate=0.1),
        Method("joint", rate=0.1, joint=True),
        # One mean over stream and replay together: half the weight each.
        Method("er", draws=1, merged=True, share=0.5, labels=0.5, rate=0.1),
        Method("der", draws=1, logits=0.3),
        Method("derpp", draws=2, logits=0.1, labels=0.5),
        Method("er-ace", Scope.PRESENT, draws=1, labels=1.0, first_task=False),
        Method("cls-er", draws=1, merged=True, share=0.5, labels=0.5, rate=0.1, averages=STABLE_AND_PLASTIC),
        Method("sparcl-er", Scope.TASK, draws=1, share=0.5, labels=0.5, sparse=True),
        Method("sparcl-derpp", Scope.TASK, draws=2, logits=0.1, labels=0.5, sparse=True),
    )
}


def method_of(name: str) -> Method:
    """Return the method of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}: give one of {', '.join(METHODS)}")
    return METHODS[name]
