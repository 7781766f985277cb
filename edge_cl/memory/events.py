"""The events a learner is made of: its state is a fold over them, in order of `seq`."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from edge_cl.sample import label_key


class EventKind(IntEnum):
    """What happened; the numbers are kept on disk and never change their meaning."""

    TEACH = 1
    RELABEL = 2
    FORGET_SAMPLE = 3
    FORGET_CLASS = 4
    CONSOLIDATE = 5
    REFRESH = 6
    RENAME = 7


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
        source: the picture's file name, for people only; for RENAME what the class is called from then on;
            for RELABEL who said so, "" for a person here.
        jpeg: the picture itself when it is to be kept; the log never hands it back (see `Store.jpeg`).
        twin: (V, D) of the store's other space, for TEACH while it has two; the log never hands it back.
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
    twin: np.ndarray | None = None


class SampleInfo(NamedTuple):
    """What is known of a taught sample without its features; `label` is the latest one given to it."""

    sample: int
    seq: int
    label: str
    image_hash: bytes
    session: str
    source: str
    views: int


def idle_renames(events: Iterable[Event], names: Iterable[str]) -> list[int]:
    """Return the positions of renamings that speak of these names and that no taught sample needs any more.

    `events` come in order; those of forgotten samples are gone already.
    """
    wanted, keys = {label_key(name) for name in names}, dict[int, str]()
    idle: list[int] = []
    for event in events:
        if event.kind in (EventKind.TEACH, EventKind.RELABEL):
            keys[event.sample] = label_key(event.label)
        elif event.kind is EventKind.RENAME:
            old, new = label_key(event.label), label_key(event.source)
            moved = [sample for sample, key in keys.items() if key == old]
            keys |= dict.fromkeys(moved, new)
            if not moved and wanted & {old, new}:
                idle.append(event.seq)
    return idle
