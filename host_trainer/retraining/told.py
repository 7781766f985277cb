"""Decides what a device has told of its statistics: the exact sum of its messages, in little more room.

Each `Statistics` message continues another one of the device, or replaces all before. What they add up to is
what the device itself keeps as told (`learning.increment`), bit for bit, and so what it will add its later
samples to. A scatter is kept as it came, by its directions; only where these would take more than the matrix
itself, or where two classes became one, it is a matrix.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ProtocolError
from edge_cl.learning import snapshot
from edge_cl.learning.embedding import UNIT
from edge_cl.learning.increment import between, fault, placed, places, union
from edge_cl.learning.statistics import Statistics
from edge_cl.sample import label_key
from edge_cl.wire.labels import Edits, followed
from edge_cl.wire.messages import Statistics as Message

LENGTH_TOLERANCE = 0.05  # an embedding has length one but for rounding, in itself and in what is told of it


class Told(NamedTuple):
    """What one device has told.

    Attributes:
        device: its name.
        contents: hashes of the messages that this is made of, oldest first.
        registry: version of the label registry that the labels follow.
        space: of the features.
        labels: of the classes, C.
        counts: (C,) weight, as in `base.Statistics`.
        sums: (C, D).
        residue: weight of forgotten classes.
        factors: (R, D) directions of the scatter about the class means.
        weights: (R,) of the directions.
        spread: (D,) on its diagonal.
        rest: (D, D) what else belongs to it; None for nothing.
    """

    device: str
    contents: tuple[str, ...]
    registry: int
    space: str
    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    residue: int
    factors: NDArray[np.int8]
    weights: NDArray[np.int64]
    spread: NDArray[np.int64]
    rest: NDArray[np.float64] | None = None

    @property
    def weight(self) -> int:
        """Weight of all that was told, in units of 1/12 sample."""
        return int(self.counts.sum()) + self.residue

    def statistics(self) -> Statistics:
        """Return it as statistics of its own classes; a (D, D) matrix is made."""
        moment = self._scatter() + between(self.counts, self.sums)
        return Statistics(self.counts.copy(), self.sums.copy(), moment, self.residue)

    def _scatter(self) -> NDArray[np.float64]:
        rows = self.factors.astype(np.float64)
        scatter = (rows.T * self.weights) @ rows
        scatter[np.diag_indices(len(scatter))] += self.spread
        return scatter if self.rest is None else scatter + self.rest


def taken_in(told: Told | None, message: Message, content: str, edits: Edits) -> Told:
    """Return what is told with one more message.

    Args:
        told: before; None: nothing yet.
        message: checked by itself, as the wire does it.
        content: its hash.
        edits: of the label registry, as many as there are.

    Raises:
        ProtocolError: it does not continue what was told before.
    """
    size = message.sums.shape[1]
    if message.since is None:
        told = Told(
            *(message.device, (), message.registry, message.space, (), np.zeros(0, np.int64)),
            *(np.zeros((0, size)), 0, np.zeros((0, size), np.int8), np.zeros(0, np.int64)),
            np.zeros(size, np.int64),
        )
    elif told is None or told.contents[-1:] != (message.since,):
        raise ProtocolError(f"they continue statistics {message.since[:12]}, which are not the newest here")
    elif (told.space, told.sums.shape[1]) != (message.space, size):
        raise ProtocolError("they continue statistics of another feature space")
    elif message.registry < told.registry:
        raise ProtocolError("they follow an older label registry than the statistics they continue")
    start = moved(told, edits, message.registry)
    labels = union(start.labels, message.labels)
    counts, sums = np.zeros(len(labels), np.int64), np.zeros((len(labels), size))
    counts[: len(start.labels)], sums[: len(start.labels)] = start.counts, start.sums
    where = places(message.labels, labels)
    np.add.at(counts, where, message.counts)
    np.add.at(sums, where, message.sums)
    grown = start._replace(
        contents=(*start.contents, content),
        labels=labels,
        counts=counts,
        sums=sums,
        residue=start.residue + message.residue,
        factors=np.concatenate([start.factors, message.factors]),
        weights=np.concatenate([start.weights, message.weights]),
        spread=start.spread + message.spread.astype(np.int64) * message.unit,
    )
    return _compact(grown)


def moved(told: Told, edits: Edits, version: int) -> Told:
    """Return what is told with its classes called as in a later version of the label registry."""
    known = tuple(edit for edit in edits if edit.version <= version)
    named = [followed(label, known, told.registry) for label in told.labels]
    labels = _distinct(named)
    if labels == told.labels:
        return told._replace(registry=max(version, told.registry))
    before = Statistics(told.counts, told.sums, np.zeros((0, 0)), told.residue)
    after = placed(before, places(named, labels), len(labels))
    rest = told.rest
    if len(labels) < len(told.labels):  # the spread between two classes is spread within one now
        apart = between(told.counts, told.sums) - between(after.counts, after.sums)
        rest = apart if rest is None else rest + apart
    return told._replace(registry=version, labels=labels, counts=after.counts, sums=after.sums, rest=rest)


def impossible(told: Told) -> str:
    """Say why no samples can have led to what was told; empty when some can.

    Every embedding has length one, so the trace of the moment is the weight: who scales features up or down,
    or counts without samples, is found here, whatever else fits. Of a forgotten class only the spread stays.
    """
    found = told.statistics()
    reason = fault(found)
    if reason or not told.weight:
        return reason
    trace, classes = float(np.trace(found.moment)) / (UNIT * UNIT), int(told.counts.sum())
    if not classes - LENGTH_TOLERANCE * told.weight <= trace <= (1.0 + LENGTH_TOLERANCE) * told.weight:
        return f"the features are {trace / told.weight:.2f} times as long as features are"
    return ""


def _distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Return each class once, in the spelling that comes first."""
    spelled: dict[str, str] = {}
    for label in labels:
        spelled.setdefault(label_key(label), label)
    return tuple(spelled.values())


def _compact(told: Told) -> Told:
    """Return it with its directions in the matrix, where they take more room than that."""
    size = told.factors.shape[1]
    if len(told.factors) <= 2 * size:
        return told
    return told._replace(
        rest=told._scatter(),
        factors=np.zeros((0, size), np.int8),
        weights=np.zeros(0, np.int64),
        spread=np.zeros(size, np.int64),
    )


def to_tensors(told: Told) -> dict[str, NDArray[Any]]:
    """Return what is told as arrays for a file."""
    rest = {} if told.rest is None else {"rest": snapshot.upper_triangle(told.rest)}
    return {
        "device": snapshot.of_names([told.device, told.space]),
        "contents": snapshot.of_names(told.contents),
        "labels": snapshot.of_names(told.labels),
        "counters": np.array([told.registry, told.residue], np.int64),
        "counts": told.counts,
        "sums": told.sums.astype(np.int64),
        "factors": told.factors,
        "weights": told.weights,
        "spread": told.spread,
        **rest,
    }


def from_tensors(tensors: Mapping[str, NDArray[Any]]) -> Told:
    """Return what `to_tensors` was given."""
    device, space = snapshot.names({"labels": tensors["device"]})
    registry, residue = (int(value) for value in tensors["counters"])
    size = tensors["sums"].shape[1]
    return Told(
        device,
        snapshot.names({"labels": tensors["contents"]}),
        registry,
        space,
        snapshot.names(tensors),
        tensors["counts"],
        tensors["sums"].astype(np.float64),
        residue,
        tensors["factors"],
        tensors["weights"],
        tensors["spread"],
        snapshot.symmetric(tensors["rest"], size) if "rest" in tensors else None,
    )
