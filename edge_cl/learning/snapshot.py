"""Decides how each part of a learner is written down as named arrays, and how it comes back from them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import residual as mlp
from edge_cl.learning.base import Base
from edge_cl.learning.docket import Docket, Record
from edge_cl.learning.training import Training
from edge_cl.memory.buffer import Buffer

Tensors = Mapping[str, NDArray[Any]]
Columns = TypeVar("Columns", bound=NamedTuple)
WEIGHTS = ("weights", "velocity", "average")  # of the residual


def of_names(labels: Sequence[str]) -> NDArray[np.uint8]:
    """Return names as bytes."""
    return np.frombuffer(json.dumps(labels).encode(), np.uint8)


def names(tensors: Tensors) -> tuple[str, ...]:
    """Return the class names of `of_names`."""
    return tuple(json.loads(bytes(tensors["labels"]).decode()))


def of_columns(name: str, columns: NamedTuple) -> dict[str, NDArray[Any]]:
    """Return a tuple of arrays, copied (some change in place), each under the name of its field."""
    return {f"{name}.{field}": array.copy() for field, array in columns._asdict().items()}


def columns(kind: type[Columns], name: str, tensors: Tensors) -> Columns:
    """Return the tuple of `of_columns`."""
    return kind._make(tensors[f"{name}.{field}"] for field in kind._fields)


def of_base(base: Base) -> dict[str, NDArray[Any]]:
    """Return the statistics, and the shrinkage and ridge under which they were solved."""
    statistics = base.statistics
    return {
        "base.counts": statistics.counts.copy(),
        "base.sums": statistics.sums.copy(),
        "base.moment": upper_triangle(statistics.moment),
        "base.shape": np.array([base.shrinkage, base.ridge]),
    }


def restore_base(base: Base, tensors: Tensors, residue: int, refreshed_weight: int) -> None:
    """Take over the arrays of `of_base`, and the two of its numbers that stand among the counters."""
    shrinkage, ridge = (float(v) for v in tensors["base.shape"])
    moment = symmetric(tensors["base.moment"], base.size)
    counts, sums = tensors["base.counts"], tensors["base.sums"]
    base.restore(counts, sums, moment, residue, shrinkage, ridge, refreshed_weight)


def of_buffer(buffer: Buffer) -> dict[str, NDArray[Any]]:
    """Return all but the features, which the store has."""
    return {"buffer.offered": buffer.offered.copy(), **of_columns("buffer", buffer.slots)}


def restore_buffer(buffer: Buffer, tensors: Tensors, features: Mapping[int, NDArray[Any]]) -> None:
    """Take over the arrays of `of_buffer`, and the features; a sample without any leaves."""
    for field in buffer.slots._fields:
        getattr(buffer.slots, field)[:] = tensors[f"buffer.{field}"]
    buffer.offered = tensors["buffer.offered"].copy()
    for slot in buffer.filled:
        found = features.get(int(buffer.slots.sample[slot]))
        if found is None:
            buffer.remove(int(slot))
        else:
            buffer.features[slot] = found


def of_docket(docket: Docket) -> dict[str, NDArray[Any]]:
    """Return what the audit thinks of each slot, and the departed."""
    thoughts = {"audit.doubt": docket.doubt.copy(), "audit.suggestion": docket.suggestion.copy()}
    return thoughts | of_columns("departed", docket.departed)


def restore_docket(docket: Docket, tensors: Tensors) -> None:
    """Take over the arrays of `of_docket`."""
    docket.doubt, docket.suggestion = tensors["audit.doubt"].copy(), tensors["audit.suggestion"].copy()
    docket.departed = columns(Record, "departed", tensors)


def of_training(training: Training) -> dict[str, NDArray[Any]]:
    """Return the residual and where its round stands."""
    state = training.residual
    found: dict[str, NDArray[Any]] = {
        "removal.kept": training.kept.copy(),
        "removal.mistakes_before": training.mistakes_before.copy(),
        "residual.trained": training.trained.copy(),
        "residual.blocks": state.blocks,
        "residual.centre": state.centre,
        "residual.counters": np.array([state.moving, state.extra, state.step], np.int64),
    }
    for part in WEIGHTS:
        found |= of_columns(f"residual.{part}", getattr(state, part))
    return found


def restore_training(training: Training, tensors: Tensors) -> None:
    """Take over the arrays of `of_training`."""
    moving, extra, step = (int(v) for v in tensors["residual.counters"])
    weights = {part: columns(mlp.Weights, f"residual.{part}", tensors) for part in WEIGHTS}
    blocks, centre = tensors["residual.blocks"], tensors["residual.centre"]
    training.residual = mlp.Residual(
        blocks=blocks, moving=moving, centre=centre, extra=extra, step=step, **weights
    )
    training.kept = tensors["removal.kept"].copy()
    training.mistakes_before = tensors["removal.mistakes_before"].copy()
    training.trained = tensors["residual.trained"].copy()


def upper_triangle(moment: NDArray[np.float64]) -> NDArray:
    """Return the rows of the upper triangle end to end, as the smallest integers that hold them.

    Row by row: index arrays for a triangle would be as large as the matrix.
    """
    small = max(float(moment.max()), -float(moment.min())) < 2**31
    dtype = np.int32 if small else np.int64
    return np.concatenate([row[i:].astype(dtype) for i, row in enumerate(moment)])


def symmetric(triangle: NDArray, size: int) -> NDArray[np.float64]:
    """Return the (D, D) matrix of `upper_triangle`."""
    moment = np.zeros((size, size))
    start = 0
    for i in range(size):
        moment[i, i:] = triangle[start : start + size - i]
        moment[i:, i] = moment[i, i:]
        start += size - i
    return moment
