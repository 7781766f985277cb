"""Decides which samples leave as features and pictures, which are taken back, and in which contents they go.

A sample is sent once for each level and label; what was sent and may not be there any more - forgotten, its
class private now - is taken back. Contents are small enough that a day's quota always takes one more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.config import LEVELS
from edge_cl.sample import label_key
from edge_cl.wire.messages import FEATURES, IMAGES, MAX_CLASSES, MAX_SAMPLES, Features, Images

PARCEL_BYTES = 1 << 20  # of a content, about; a picture alone may be larger
MAX_SENDING = 64  # contents of one level at a time


class Held(NamedTuple):
    """A sample at hand: number, label, views kept of its features, and bytes of its picture, 0: none."""

    sample: int
    label: str
    views: int
    picture_bytes: int


class Parcel(NamedTuple):
    """A content that is to be sent, before its bytes are made.

    Attributes:
        level: FEATURES or IMAGES.
        edition: version of the label registry that the labels follow.
        samples: (number, label) of each, by number.
    """

    level: str
    edition: int
    samples: tuple[tuple[int, str], ...]


Sent = Mapping[str, Mapping[int, str]]  # level -> sample -> label it was sent under


def tells(level: str, wanted: str) -> bool:
    """Tell whether a level lets what belongs to another one leave."""
    return LEVELS.index(level) >= LEVELS.index(wanted)


def missing(held: Iterable[Held], sent: Sent, level_of: Callable[[str], str], wanted: str) -> list[Held]:
    """Return the samples at hand that may leave at a level and did not yet, or did under another label."""
    before = sent.get(wanted, {})
    return [
        each
        for each in held
        if tells(level_of(each.label), wanted)
        and (each.picture_bytes if wanted == IMAGES else each.views)
        and label_key(before.get(each.sample, "")) != label_key(each.label)
    ]


def withdrawn(sent: Sent, labels: Mapping[int, str], level_of: Callable[[str], str]) -> list[int]:
    """Return the samples that were sent and may not be with the host any more, rising.

    `labels` are those of all samples that this device remembers; what it does not is forgotten.
    """
    gone = {
        sample
        for level, samples in sent.items()
        for sample in samples
        if sample not in labels or not tells(level_of(labels[sample]), level)
    }
    return sorted(gone)[:MAX_SAMPLES]


def packed(held: Iterable[Held], level: str, edition: int, view_bytes: int) -> Iterator[Parcel]:
    """Put samples into parcels of about PARCEL_BYTES; those of one have the same number of views."""
    groups: dict[int, list[Held]] = {}
    for each in sorted(held):
        groups.setdefault(each.views if level == FEATURES else 0, []).append(each)
    for group in groups.values():
        batch: list[Held] = []
        room = PARCEL_BYTES
        for each in group:
            size = each.picture_bytes if level == IMAGES else each.views * view_bytes
            is_full = len(batch) == MAX_SAMPLES or len({one.label for one in batch}) == MAX_CLASSES
            if batch and (size > room or is_full):
                yield _parcel(batch, level, edition)
                batch, room = [], PARCEL_BYTES
            batch.append(each)
            room -= size
        if batch:
            yield _parcel(batch, level, edition)


def _parcel(batch: Iterable[Held], level: str, edition: int) -> Parcel:
    return Parcel(level, edition, tuple((each.sample, each.label) for each in batch))


def features(device: str, space: str, parcel: Parcel, found: Mapping[int, NDArray]) -> Features | None:
    """Return the content of a parcel, from (V, D) features by sample; None when one is not there any more."""
    if any(sample not in found for sample, _ in parcel.samples):
        return None
    labels, numbers = _classes(parcel)
    rows = np.stack([found[sample] for sample, _ in parcel.samples])
    return Features(device, space, parcel.edition, labels, _samples(parcel), numbers, rows)


def images(device: str, parcel: Parcel, found: Mapping[int, bytes]) -> Images | None:
    """Return the content of a parcel, from JPEG files by sample; None when one is not there any more."""
    if any(sample not in found for sample, _ in parcel.samples):
        return None
    labels, numbers = _classes(parcel)
    files = [found[sample] for sample, _ in parcel.samples]
    sizes = np.array([len(each) for each in files], np.int32)
    pixels = np.frombuffer(b"".join(files), np.uint8)
    return Images(device, parcel.edition, labels, _samples(parcel), numbers, sizes, pixels)


def _classes(parcel: Parcel) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    labels = tuple(dict.fromkeys(label for _, label in parcel.samples))
    numbers = np.array([labels.index(label) for _, label in parcel.samples], np.int32)
    return labels, numbers


def _samples(parcel: Parcel) -> NDArray[np.int64]:
    return np.array([sample for sample, _ in parcel.samples], np.int64)
