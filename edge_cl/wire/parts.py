"""What the tensors in a bundle are called, and what must be true of them before anybody computes with them.

Names are those of `learning.head` and `learning.snapshot`. Letters: C classes, D features, G groups, K live
blocks of a group, F live inputs of a group, U units of a group, H = G U, R directions, T = D (D + 1) / 2,
L quantiles.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ProtocolError
from edge_cl.wire import tensors
from edge_cl.wire.fields import Array, check_shape
from edge_cl.wire.messages import FACTOR, MAX_RANK, MAX_WEIGHT, largest

Tensors = dict[str, NDArray[Any]]

MAX_LEVELS = 1024  # quantiles of the familiarity
MAX_GROUPS, MAX_HIDDEN = 64, 4096  # of the residual
MAX_GOLDEN = 256  # pictures
MAX_EXEMPLARS = 16_384
WHOLE = ("int8", "int16", "int32", "int64")

HEAD = {
    "base.counts": Array(("int64",), ("C",)),
    "base.sums": Array(WHOLE, ("C", "D")),
    "base.steps": Array(("int64",), ("C",)),
    "base.shape": Array(("float64",), (2,)),
    "base.counters": Array(("int64",), (3,)),
    "residual.blocks": Array(("int32",), ("G", "K")),
    "residual.centre": Array(("float32",), ("D",)),
    "residual.counters": Array(("int64",), (3,)),
    "residual.trained": Array(("bool",), ("C",)),
    "residual.average.first": Array(("int8",), ("G", "F", "U")),
    "residual.average.first_scale": Array(("float32",), ("G", "U")),
    "residual.average.bias": Array(("float32",), ("H",)),
    "residual.average.second": Array(("int8",), ("H", "C")),
    "residual.average.second_scale": Array(("float32",), ("C",)),
    "calibration.numbers": Array(("float64",), (4,)),
    "familiarity.centre": Array(("float64",), (2,)),
    "familiarity.spread": Array(("float64",), (2,)),
    "familiarity.levels": Array(("float64",), ("L",)),
}
EXACT = {"base.moment": Array(("int32", "int64"), ("T",))}
COARSE = {
    "scatter.factors": Array(("int8",), ("R", "D")),
    "scatter.weights": Array(("int64",), ("R",)),
    "scatter.spread": Array(("int8",), ("D",)),
    "scatter.unit": Array(("int64",), (1,)),
}
EXEMPLARS = {
    "features": Array(("int8", "uint8", "float32"), ("N", "V", "D")),
    "numbers": Array(("int32",), ("N",)),
}
GOLDEN = {
    "inputs": Array(("uint8",), ("N", "H", "W", 3)),
    "outputs": Array(("int8", "uint8", "float32"), ("N", "D")),
}
GOLDEN_FACTS = ("sha256", "kernels", "space")


class Lengths(NamedTuple):
    """What a manifest says about tensors: D, C, the features' dtype, (H, W) of a picture."""

    size: int
    classes: int
    dtype: str
    picture: tuple[int, int]


def check_head(head: Mapping[str, NDArray[Any]], agreed: Lengths) -> None:
    """Raise ValueError for a head that a learner could not answer with."""
    statistics = EXACT if "base.moment" in head else COARSE
    size = agreed.size
    lengths = {"D": size, "C": agreed.classes, "T": size * (size + 1) // 2}
    _check_arrays(head, {**HEAD, **statistics}, lengths)
    _check_statistics(head)
    _check_residual(head, size)
    _check_fitted(head)


def check_exemplars(exemplars: Mapping[str, NDArray[Any]], agreed: Lengths) -> None:
    """Raise ValueError for exemplars that are not of the manifest's features and classes."""
    found = _check_arrays(exemplars, EXEMPLARS, {"D": agreed.size})
    numbers = exemplars["numbers"]
    _need(exemplars["features"].dtype.name == agreed.dtype, "the features have another dtype")
    _need(found["N"] <= MAX_EXEMPLARS and 1 <= found["V"] <= 4, "the exemplars are too many")
    _need(not ((numbers < 0) | (numbers >= agreed.classes)).any(), "an exemplar is of no class")


def check_golden(golden: Mapping[str, NDArray[Any]], agreed: Lengths) -> None:
    """Raise ValueError for golden answers that are not of the manifest's pictures and features."""
    height, width = agreed.picture
    found = _check_arrays(golden, GOLDEN, {"D": agreed.size, "H": height, "W": width})
    _need(golden["outputs"].dtype.name == agreed.dtype, "the outputs have another dtype")
    _need(1 <= found["N"] <= MAX_GOLDEN, "the pictures are none, or too many")


def write(
    found: Mapping[str, NDArray[Any]],
    agreed: Lengths,
    check: Callable[[Mapping[str, NDArray[Any]], Lengths], None],
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """Return tensors as the bytes of a part; ValueError for what `read` would refuse."""
    check(found, agreed)
    return tensors.pack(found, facts)


def read(
    data: bytes,
    agreed: Lengths,
    check: Callable[[Mapping[str, NDArray[Any]], Lengths], None],
    facts: tuple[str, ...] = (),
) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors and facts of a part.

    Raises:
        ProtocolError: the bytes or what they say cannot be used.
    """
    found, words = tensors.unpack(data)
    try:
        _need(set(words) == set(facts), "the facts are not the agreed ones")
        check(found, agreed)
    except ValueError as error:
        raise ProtocolError(f"{check.__name__.removeprefix('check_')}: {error}") from error
    return found, words


def _check_arrays(
    found: Mapping[str, NDArray[Any]], wanted: Mapping[str, Array], lengths: dict[str, int]
) -> dict[str, int]:
    """Compare with a table, and return the length of each letter."""
    _need(found.keys() == wanted.keys(), f"the tensors differ: {sorted(found.keys() ^ wanted.keys())[:3]}")
    for name, kind in wanted.items():
        kind.check(found[name], name)
        check_shape(found[name].shape, kind.shape, lengths, name)
    return lengths


def _check_statistics(head: Mapping[str, NDArray[Any]]) -> None:
    counts, steps = head["base.counts"], head["base.steps"]
    residue, refreshed, parent = (int(value) for value in head["base.counters"])
    shrinkage, ridge = (float(value) for value in head["base.shape"])
    _need(counts.min(initial=0) >= 0 and residue >= 0 and refreshed >= 0 <= parent, "a count is below zero")
    _need(largest(counts) <= MAX_WEIGHT and residue <= MAX_WEIGHT, "a count is beyond all samples")
    _need(steps.min(initial=1) >= 1 and largest(steps) <= MAX_WEIGHT, "a step is not above zero")
    _need(0 < shrinkage < 1 and ridge > 0, "the shrinkage or the ridge is out of bounds")
    for row, step in zip(head["base.sums"], steps, strict=True):
        _need(largest(row) * int(step) < 1 << 53, "a sum is no whole number of float64")
    if "base.moment" in head:
        _need(largest(head["base.moment"]) < 1 << 53, "the moment is no whole number of float64")
        return
    weights = head["scatter.weights"]
    _need(
        len(weights) <= MAX_RANK and largest(weights) <= MAX_WEIGHT,
        "the directions are too many or too heavy",
    )
    _need(largest(head["scatter.factors"]) <= FACTOR, "a direction is longer than agreed")
    _need(1 <= int(head["scatter.unit"][0]) <= MAX_WEIGHT, "the unit of the spread is out of bounds")


def _check_residual(head: Mapping[str, NDArray[Any]], size: int) -> None:
    blocks, first = head["residual.blocks"], head["residual.average.first"]
    groups, live = blocks.shape
    moving, extra, step = (int(value) for value in head["residual.counters"])
    _need(1 <= groups <= MAX_GROUPS and live >= 1, "the residual has no blocks")
    _need(len(head["residual.average.bias"]) == groups * first.shape[2] <= MAX_HIDDEN, "units are missing")
    _need(first.shape[1] % live == 0 and first.shape[1] > 0, "the inputs are no whole blocks")
    block = first.shape[1] // live
    _need(size % block == 0, "the features are no whole blocks")
    _need(((blocks >= 0) & (blocks < size // block)).all(), "a block is of no features")
    _need(all(len(np.unique(row)) == live for row in blocks), "a block lives twice")
    _need(1 <= moving <= live and 0 <= extra < live and step >= 0, "the counters are out of bounds")
    scales = (head["residual.average.first_scale"], head["residual.average.second_scale"])
    _need(all((scale >= 0).all() for scale in scales), "a scale is below zero")


def _check_fitted(head: Mapping[str, NDArray[Any]]) -> None:
    temperature, noise, _, gate = (float(value) for value in head["calibration.numbers"])
    levels = head["familiarity.levels"]
    _need(temperature > 0 and 0 <= noise < 1 and 0 <= gate <= 1, "the calibration is out of bounds")
    _need((head["familiarity.spread"] > 0).all(), "a spread is not above zero")
    _need(len(levels) <= MAX_LEVELS and (np.diff(levels) >= 0).all(), "the quantiles do not rise")


def _need(truth: Any, words: str) -> None:
    if not truth:
        raise ValueError(words)
