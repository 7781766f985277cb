"""The events a learner is made of: its state is a fold over them, in order of `seq`."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class EventKind(IntEnum):
    """What happened; the numbers are kept on disk and never change their meaning."""

    TEACH = 1
    RELABEL = 2
    FORGET_SAMPLE = 3
    FORGET_CLASS = 4
    CONSOLIDATE = 5
    REFRESH = 6


class Event(NamedTuple):
    """One entry of the log.

    Attributes:
        seq: position in the log, from 1; strictly increasing, never used twice.
        kind: what happened.
        sample: id of the sample concerned, from 1; 0 where none is.
        label: name of the class concerned, or "".
        amount: SGD steps for CONSOLIDATE, else 0.
        features: (V, D) in the stored dtype for TEACH, else None.
        image_hash: first 16 bytes of the picture's SHA-256 for TEACH, else b"".
        session: when or where the picture was taken, or "".
        source: the picture's file name, for people only.
        jpeg: the picture itself when it is to be kept; the log never hands it back (see `Store.jpeg`).
    """

    seq: int
    kind: EventKind
    sample: int = 0
    label: str = ""
    amount: int = 0
    features: np.ndarray | None = None
    image_hash: bytes = b""
    session: str = ""
    source: str = ""
    jpeg: bytes | None = None


class SampleInfo(NamedTuple):
    """What is known of a taught sample without its features; `label` is the latest one given to it."""

    sample: int
    seq: int
    label: str
    image_hash: bytes
    session: str
    source: str
    views: int
