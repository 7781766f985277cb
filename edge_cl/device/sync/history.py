"""Decides what a row of told statistics comes to: the same fold that the host makes, bit for bit.

Classes are moved to the names of a message's registry before it is added, so both ends move them at the same
place. The scatter about the class means is kept, not the moment: an increment is then simply added.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import StoreDamagedError
from edge_cl.learning import increment, named, snapshot
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import Statistics
from edge_cl.wire import labels as registry
from edge_cl.wire.labels import Edits
from edge_cl.wire.messages import Statistics as Message
from edge_cl.wire.tensors import pack, unpack

Floats = NDArray[np.float64]


class Told(NamedTuple):
    """What was told up to some statistics.

    Attributes:
        labels: of the classes, C.
        counts, sums, residue: as in `base.Statistics`.
        scatter: (D, D) about the class means, whole.
        space: of the features.
        edition: version of the label registry that the labels follow.
        number: of the newest statistics in it; 0: none.
        id: of them; "": none.
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    sums: Floats
    residue: int
    scatter: Floats
    space: str
    edition: int
    number: int = 0
    id: str = ""

    def named(self) -> Named:
        """Return it as statistics."""
        moment = self.scatter + increment.between(self.counts, self.sums)
        return Named(self.labels, Statistics(self.counts.copy(), self.sums.copy(), moment, self.residue))


def nothing(space: str, size: int, edition: int) -> Told:
    """Return that nothing was told of D = `size` features."""
    return Told(
        (), np.zeros(0, np.int64), np.zeros((0, size)), 0, np.zeros((size, size)), space, edition, 0, ""
    )


def after(told: Told | None, rows: Iterable[tuple[str, Message]], edits: Edits) -> Told | None:
    """Return what was told with more statistics, each with its id, in order; None: nothing yet.

    Raises:
        StoreDamagedError: they do not continue each other; that never was written so.
    """
    for name, message in rows:
        told = _with(told, name, message, edits)
    return told


def moved(told: Told, edits: Edits, version: int) -> Told:
    """Return what was told with its classes called as in a later version of the label registry."""
    later = tuple(edit for edit in edits if told.edition < edit.version <= version)
    moves = registry.moves(told.labels, later)
    if not moves:
        return told._replace(edition=max(version, told.edition))
    before = Named(told.labels, Statistics(told.counts, told.sums, np.zeros((0, 0)), 0))
    labels, found = named.moved(before, moves)
    scatter = told.scatter
    if len(labels) < len(told.labels):  # what stood between two classes stands within one now
        apart = increment.between(told.counts, told.sums) - increment.between(found.counts, found.sums)
        scatter = scatter + apart
    return told._replace(
        labels=labels, counts=found.counts, sums=found.sums, scatter=scatter, edition=version
    )


def _with(told: Told | None, name: str, message: Message, edits: Edits) -> Told:
    if message.since is None:
        told = nothing(message.space, message.sums.shape[1], message.registry)
    if told is None or (message.since or "") != told.id or message.space != told.space:
        raise StoreDamagedError(f"statistics {message.number} continue none that were told: enrol again")
    told = moved(told, edits, message.registry)
    labels = increment.union(told.labels, message.labels)
    places, size = increment.places(message.labels, labels), message.sums.shape[1]
    counts, sums = np.zeros(len(labels), np.int64), np.zeros((len(labels), size))
    counts[: len(told.labels)], sums[: len(told.labels)] = told.counts, told.sums
    np.add.at(counts, places, message.counts)
    np.add.at(sums, places, message.sums)
    factors = message.factors.astype(np.float64)
    scatter = told.scatter + (factors.T * message.weights) @ factors
    scatter[np.diag_indices(size)] += message.spread.astype(np.float64) * message.unit
    residue = told.residue + message.residue
    return Told(labels, counts, sums, residue, scatter, told.space, told.edition, message.number, name)


def to_bytes(told: Told) -> bytes:
    """Return it as bytes that `from_bytes` reads."""
    counters = np.array([told.residue, told.edition, told.number], np.int64)
    return pack(
        {
            "labels": snapshot.of_names(told.labels),
            "counts": told.counts,
            "sums": told.sums.astype(np.int64),
            "counters": counters,
            "scatter": snapshot.upper_triangle(told.scatter),
        },
        {"space": told.space, "id": told.id},
    )


def from_bytes(data: bytes) -> Told:
    """Return what `to_bytes` was given; ProtocolError for other bytes."""
    tensors, facts = unpack(data)
    sums = tensors["sums"].astype(np.float64)
    residue, edition, number = (int(value) for value in tensors["counters"])
    scatter = snapshot.symmetric(tensors["scatter"], sums.shape[1])
    labels = snapshot.names(tensors)
    return Told(
        labels, tensors["counts"], sums, residue, scatter, facts["space"], edition, number, facts["id"]
    )
