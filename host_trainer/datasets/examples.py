"""The nouns of a data set that is ready to be learned: decoded pictures, their labels, their domains."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Examples(NamedTuple):
    """Pictures that can be shown to a network.

    Attributes:
        values: (N, H, W, 3) uint8; usually mapped from a file, so pages are read when they are used.
        labels: (N,) int32, index of each one's class.
        domains: (N,) int32, index of each one's domain; zeros where the data knows none.
    """

    values: NDArray[np.uint8]
    labels: NDArray[np.int32]
    domains: NDArray[np.int32]


class DataSet(NamedTuple):
    """What there is to learn and what will be asked; both parts number classes and domains alike.

    Attributes:
        name: as it was asked for.
        classes: C names; a label is an index into them.
        domain_names: in their order (session 9 before session 10); empty where the data knows none.
        train: to learn from.
        test: to be asked about.
        refused: for each picture that cannot be read, why: "NAME: REASON".
    """

    name: str
    classes: tuple[str, ...]
    domain_names: tuple[str, ...]
    train: Examples
    test: Examples
    refused: tuple[str, ...] = ()
