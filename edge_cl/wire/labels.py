"""The fleet's registry of classes: which names became which, in order, so that all devices say the same.

One rule serves renaming, merging and splitting: every sample of the `sources` becomes one of `into`, except
those that are assigned one by one. A device keeps the version up to which it has followed, and applies what
came later; applied again, an edit changes nothing. Names are compared by `label_key`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from edge_cl.errors import ProtocolError
from edge_cl.sample import label_key
from edge_cl.wire.fields import MAX_COUNT, Count, Label, Name, Record, Whole, many

MAX_SOURCES = 64
MAX_ASSIGNED = 256  # of one edit; a larger split takes several, each from what the last one left
MAX_EDITS = 64  # sent at once; a device that is further behind asks again


@dataclass(frozen=True)
class Assigned(Record):
    """One sample of one device, and the class it belongs to."""

    device: Name
    sample: Count
    label: Label


@dataclass(frozen=True)
class Edit(Record):
    """A change of classes.

    Attributes:
        version: of the registry with it; rises by one.
        sources: classes that are no more afterwards, unless `into` is one of them.
        into: what their samples are now.
        assigned: samples of the sources that are something else; a split.
    """

    version: Annotated[int, Whole(1, MAX_COUNT)]
    sources: Annotated[tuple[str, ...], many(Label, MAX_SOURCES, is_set=True)]
    into: Label
    assigned: Annotated[tuple[Assigned, ...], many(Assigned, MAX_ASSIGNED)]

    def check(self) -> None:
        """See `Record`."""
        if not self.sources or len({label_key(each) for each in self.sources}) != len(self.sources):
            raise ValueError("an edit has no sources, or one of them twice")
        if len({(each.device, each.sample) for each in self.assigned}) != len(self.assigned):
            raise ValueError("a sample is assigned twice")


Edits = tuple[Edit, ...]  # of rising versions without a gap


def extended(edits: Edits, sources: Sequence[str], into: str, assigned: Iterable[Assigned] = ()) -> Edits:
    """Return the registry with one more edit; ValueError when it makes no sense."""
    version = edits[-1].version + 1 if edits else 1
    return (*edits, Edit(version, tuple(sources), into, tuple(assigned)))


def later(edits: Edits, version: int) -> Edits:
    """Return the edits that a device of `version` lacks, MAX_EDITS at most."""
    return tuple(edit for edit in edits if edit.version > version)[:MAX_EDITS]


def check_order(edits: Edits, version: int) -> None:
    """Raise ProtocolError unless the edits go on from `version` without a gap."""
    for number, edit in enumerate(edits, version + 1):
        if edit.version != number:
            raise ProtocolError(
                f"edit {edit.version} of the labels where {number} was due: ask for them again"
            )


def followed(label: str, edits: Edits, version: int = 0, device: str = "", sample: int = 0) -> str:
    """Return what a class is called after the edits later than `version`.

    With a device and a sample number, what that sample is; without, what the class as a whole is, which is
    all that can be said of statistics.
    """
    for edit in edits:
        if edit.version > version and label_key(label) in map(label_key, edit.sources):
            own = (each.label for each in edit.assigned if (each.device, each.sample) == (device, sample))
            label = next(own, edit.into)
    return label


def moves(labels: Iterable[str], edits: Edits, version: int = 0) -> Mapping[str, str]:
    """Return {old name: new name} of the classes that are called something else now, as wholes."""
    named = {label: followed(label, edits, version) for label in labels}
    return {old: new for old, new in named.items() if old != new}


def reassigned(edits: Edits, device: str, version: int = 0) -> frozenset[int]:
    """Return the samples of a device that later edits speak of one by one."""
    return frozenset(
        each.sample
        for edit in edits
        if edit.version > version
        for each in edit.assigned
        if each.device == device
    )
