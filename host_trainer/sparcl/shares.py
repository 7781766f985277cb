"""Decides how much of each class a step shows beyond its due, which logit adjustment takes off the logits.

A step shows much of the task at hand and little of all before; who learns from it answers a class of long
ago too seldom. Adjusted by these shares, the cross-entropy is that of a learner who was shown all classes as
often as they came (Menon et al. 2021, Long-tail learning via logit adjustment, eq. 10; with replay: Huang et
al. 2024, Online continual learning via logit adjusted softmax).
"""

import numpy as np
from numpy.typing import NDArray

from host_trainer.sparcl.methods import Method


def shares_of(
    stream: NDArray[np.int32], memory: NDArray[np.int32], taught: NDArray[np.int64], method: Method
) -> NDArray[np.float32]:
    """Return the shares (C,) in [0, 1], the largest 1; 0 for a class of which nothing can be shown.

    Args:
        stream: labels of the task's pictures. Those that left early count: they are known.
        memory: labels of those that are remembered.
        taught: (C,) pictures of each class in all tasks so far, this one too.
        method: how much each of both weighs, and for how much of that what is remembered counts: the few are
            soon known by heart, and teach less each time.
    """
    classes = len(taught)
    shown = method.share * _frequencies(stream, classes)
    shown += method.adjustment * method.labels * _frequencies(memory, classes)
    beyond = np.divide(shown, taught, out=np.zeros(classes), where=taught > 0)
    return np.asarray(beyond / beyond.max(), np.float32)


def _frequencies(labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    return np.bincount(labels, minlength=classes) / max(1, len(labels))
