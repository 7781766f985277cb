"""Decides how a device follows the fleet's registry: which classes and samples are called otherwise here.

A class that is private here keeps its name: under a public one it would be told. A sample that a person here
corrected keeps the person's word where an edit speaks of it alone; a whole class goes with all its samples.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from edge_cl.sample import label_key
from edge_cl.wire.labels import Edit, Edits, followed


class Known(NamedTuple):
    """A sample that the device remembers: its label; `is_free` while it can be relabelled by others."""

    label: str
    is_free: bool


class Steps(NamedTuple):
    """What an edit asks of a device, in this order: some samples, classes, the other samples.

    Cut off in between, the rest is found again: only who is to have a name that is given up comes last.
    """

    first: Mapping[int, str]
    classes: Mapping[str, str]
    last: Mapping[int, str]


def steps(
    edit: Edit,
    device: str,
    labels: Iterable[str],
    samples: Mapping[int, Known],
    is_private: Callable[[str], bool],
) -> Steps:
    """Return what to do about an edit; nothing is left to do once it was done.

    Args:
        edit: of the registry.
        device: this one's name.
        labels: of the classes that were taught here.
        samples: that are remembered here.
        is_private: whether a class may not be told.
    """
    sources = {label_key(each) for each in edit.sources}
    moving = [
        label
        for label in labels
        if label_key(label) in sources and (not is_private(label) or is_private(edit.into))
    ]
    keys = {label_key(label) for label in moving}
    alone = {
        each.sample: each.label
        for each in edit.assigned
        if each.device == device
        and each.sample in samples
        and samples[each.sample].is_free
        and label_key(samples[each.sample].label) in keys
    }
    classes = {label: edit.into for label in moving if label != edit.into}
    into = label_key(edit.into)
    apart = {sample: label for sample, label in alone.items() if label_key(label) != into}
    first = {sample: label for sample, label in apart.items() if label_key(label) not in keys}
    last = {sample: label for sample, label in apart.items() if sample not in first}
    return Steps(first, classes, last)


def sent_now(sent: Mapping[int, str], edits: Edits, device: str) -> dict[int, str]:
    """Return what the host calls samples that it has, {number: label}, after more edits."""
    return {sample: followed(label, edits, 0, device, sample) for sample, label in sent.items() if label}
