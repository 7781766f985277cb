"""Decides how the head of one learner is told to others as named arrays, and makes a learner of them.

A head is the base's statistics, the residual with its masks, calibration and gate: all that answers, and
nothing of single samples. Exact statistics are those of the learner; coarse ones keep what matters of them in
some tens of kilobytes: sums in 8 bits a value, the scatter as an `increment` tells it. Coarse ones are whole
numbers, too, so what is taught later is added and taken out as exactly as ever. A coarse head may tell only
by what its scatter differs from its parent's: a fraction of the bytes, and nearer to the exact one each time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import MismatchError, ReleaseError
from edge_cl.learning import calibration, increment, snapshot
from edge_cl.learning import residual as mlp
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.increment import Increment
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.statistics import Statistics, empty_statistics
from edge_cl.sample import FeatureSpace

Tensors = Mapping[str, NDArray[Any]]

SUM = 127  # largest value of a sum in steps of its class
WEIGHT = 7  # largest value of a residual's weight in steps of its unit: 4 bits cost nothing (measured)
WHOLE_FACTOR = 31  # largest value in a direction of a head without a parent: it has room for 6 bits


def coarse(statistics: Statistics, rank: int, parent: Statistics | None = None) -> Increment:
    """Tell sums rounded to SUM steps a class, and the scatter by `rank` directions from a parent's."""
    steps = sum_steps(statistics)[:, None].astype(np.float64)
    rounded = np.rint(statistics.sums / steps) * steps
    # The means move by the rounding, the scatter about them should not.
    scatter = statistics.moment - increment.between(statistics.counts, statistics.sums)
    moment = scatter + increment.between(statistics.counts, rounded)
    now = statistics._replace(sums=rounded, moment=moment)
    factor = WHOLE_FACTOR if parent is None else increment.FACTOR
    start = _start(now.sums.shape, int(now.counts.sum()) + now.residue, parent)
    return increment.raised(start, increment.compress(now, start, rank, factor=factor))


def _start(shape: tuple[int, ...], weight: int, parent: Statistics | None) -> Statistics:
    """Return what is known of (C, D) statistics before they come: the scatter of their parent, if any."""
    classes, size = shape
    if parent is None:
        return empty_statistics(size, classes)
    return increment.scatter_only(parent, classes, weight)


def sum_steps(statistics: Statistics) -> NDArray[np.int64]:
    """Return (C,) the step of each class's sums, so that none has more than SUM."""
    largest = np.abs(statistics.sums).max(axis=1, initial=0)
    return np.maximum(1, np.ceil(largest / SUM)).astype(np.int64)


def of_learner(
    learner: EdgeLearner, rank: int | None = None, parent: tuple[int, Statistics] | None = None
) -> dict[str, NDArray[Any]]:
    """Return a learner's head: exact, or coarse with `rank` directions, from a parent's scatter or nothing.

    `parent` is the number of the bundle and the statistics that its head told, not those of its learner.
    """
    base = learner.base
    statistics = base.statistics
    number, known = parent or (0, None)
    return {
        **(_of_exact(statistics) if rank is None else _of_coarse(statistics, rank, known)),
        "base.shape": np.array([base.shrinkage, base.ridge]),
        "base.counters": np.array([statistics.residue, base.refreshed_weight, number], np.int64),
        **_of_residual(learner.residual),
        "residual.trained": learner.training.trained.copy(),
        "calibration.numbers": np.array([*learner.calibration, learner.gate]),
        **snapshot.of_columns("familiarity", learner.familiarity),
    }


def to_learner(
    space: FeatureSpace,
    config: LearnerConfig,
    labels: Sequence[str],
    tensors: Tensors,
    parent: Statistics | None = None,
) -> EdgeLearner:
    """Return a learner that answers as the head does, and remembers no sample; `parent` as `to_statistics`.

    Raises:
        MismatchError: the config wants a residual of another shape.
        ReleaseError: the statistics cannot be solved, or the parent is not at hand.
    """
    network, groups = config.network, tensors["residual.blocks"].shape[0]
    if (network.hidden, network.groups) != (len(tensors["residual.average.bias"]), groups):
        raise MismatchError("the release has a residual of another shape: update this program")
    learner = EdgeLearner(space, config)
    for label in labels:
        learner.add_class(label)
    shrinkage, ridge = (float(value) for value in tensors["base.shape"])
    statistics, refreshed = to_statistics(tensors, parent), int(tensors["base.counters"][1])
    try:
        learner.base.restore(*statistics, shrinkage, ridge, refreshed)
    except np.linalg.LinAlgError as error:
        raise ReleaseError("the release's statistics are not those of any samples") from error
    learner.training.residual = _to_residual(tensors)
    learner.training.trained = tensors["residual.trained"].copy()
    *fitted, learner.gate = (float(value) for value in tensors["calibration.numbers"])
    learner.calibration = calibration.Calibration(*fitted)
    learner.familiarity = snapshot.columns(calibration.Familiarity, "familiarity", tensors)
    return learner


def parent_of(tensors: Tensors) -> int:
    """Return the number of the bundle whose statistics a head goes on from; 0: of none."""
    return int(tensors["base.counters"][2])


def to_statistics(tensors: Tensors, parent: Statistics | None = None) -> Statistics:
    """Return the statistics of a head, whole numbers in every form.

    Args:
        tensors: the head's.
        parent: the statistics of the head of bundle `parent_of(tensors)`.

    Raises:
        ReleaseError: the head goes on from a parent, and there is none.
    """
    if parent_of(tensors) and parent is None:
        raise ReleaseError(f"the head goes on from bundle {parent_of(tensors)}: fetch a whole one")
    counts, residue = tensors["base.counts"], int(tensors["base.counters"][0])
    sums = tensors["base.sums"].astype(np.int64) * tensors["base.steps"][:, None]
    if "base.moment" in tensors:
        moment = snapshot.symmetric(tensors["base.moment"], sums.shape[1])
        return Statistics(counts.copy(), sums.astype(np.float64), moment, residue)
    factors, weights, spread = (tensors[f"scatter.{name}"] for name in ("factors", "weights", "spread"))
    told = Increment(counts, sums, residue, factors, weights, spread, int(tensors["scatter.unit"][0]))
    start = _start(sums.shape, int(counts.sum()) + residue, parent if parent_of(tensors) else None)
    return increment.advance(start, told)


def _of_exact(statistics: Statistics) -> dict[str, NDArray[Any]]:
    return {
        "base.counts": statistics.counts.copy(),
        "base.sums": statistics.sums.astype(np.int64),
        "base.steps": np.ones(len(statistics.counts), np.int64),
        "base.moment": snapshot.upper_triangle(statistics.moment),
    }


def _of_coarse(statistics: Statistics, rank: int, parent: Statistics | None) -> dict[str, NDArray[Any]]:
    told, steps = coarse(statistics, rank, parent), sum_steps(statistics)
    return {
        "base.counts": told.counts,
        "base.sums": (told.sums // steps[:, None]).astype(np.int8),
        "base.steps": steps,
        "scatter.factors": told.factors,
        "scatter.weights": told.weights,
        "scatter.spread": told.spread,
        "scatter.unit": np.array([told.unit], np.int64),
    }


def _of_residual(state: mlp.Residual) -> dict[str, NDArray[Any]]:
    """Return what answers: the averaged weights in 8 bits, with a scale for each unit and each output."""
    first, first_scale = _in_steps(state.average.first, axis=1)
    second, second_scale = _in_steps(state.average.second, axis=0)
    return {
        "residual.blocks": state.blocks,
        "residual.centre": state.centre,
        "residual.counters": np.array([state.moving, state.extra, state.step], np.int64),
        "residual.average.first": first,
        "residual.average.first_scale": first_scale,
        "residual.average.bias": state.average.bias,
        "residual.average.second": second,
        "residual.average.second_scale": second_scale,
    }


def _to_residual(tensors: Tensors) -> mlp.Residual:
    """Return the residual of `_of_residual`; training goes on from the average, at rest."""
    named = {name: tensors[f"residual.average.{name}"] for name in ("first", "bias", "second")}
    first = named["first"].astype(np.float32) * tensors["residual.average.first_scale"][:, None]
    second = named["second"].astype(np.float32) * tensors["residual.average.second_scale"]
    weights = mlp.Weights(first, named["bias"].copy(), second)
    still = mlp.Weights(*(np.zeros_like(array) for array in weights))
    moving, extra, step = (int(value) for value in tensors["residual.counters"])
    blocks, centre = tensors["residual.blocks"].copy(), tensors["residual.centre"].copy()
    return mlp.Residual(blocks, moving, weights, still, weights, centre, extra, step)


def _in_steps(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights as whole numbers up to WEIGHT, and the scale of each column along `axis`."""
    scale = np.maximum(np.abs(weights).max(axis=axis, keepdims=True, initial=0) / WEIGHT, np.float32(1e-12))
    return np.rint(weights / scale).astype(np.int8), scale.squeeze(axis).astype(np.float32)
