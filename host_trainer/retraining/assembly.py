"""Decides what goes into a bundle and how much of it, so that it stays as small as was promised.

A whole bundle holds everything. A lean one holds a head that goes on from a whole bundle's, and names that
bundle's other parts without carrying them. Both come from the same learner and have the same number; which of
them a device fetches depends on what it holds.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ReleaseError
from edge_cl.learning import head
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.coreset import coreset
from edge_cl.learning.embedding import embed
from edge_cl.learning.increment import places
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.statistics import Statistics
from edge_cl.wire import bundle, canonical, packing, parts
from edge_cl.wire.bundle import EXEMPLARS, GOLDEN, HEAD, Gates, Input, Manifest, Space
from edge_cl.wire.fields import to_plain
from edge_cl.wire.parts import Lengths
from edge_cl.wire.release import Facts
from host_trainer.retraining.samples import Samples

BACKBONE = bundle.BACKBONES[0]
DIRECTION_BYTES = (
    0.75  # of a value of a direction, packed: no more than it takes, so that no step is too long
)


@dataclass(frozen=True)
class Budgets:
    """What the parts of a bundle may weigh, packed.

    Attributes:
        head: of a whole bundle, bytes.
        lean: of a head that goes on from its parent, bytes.
        exemplars: bytes.
        each: exemplars of a class, at most.
        rank: directions of a whole head's scatter, at most; more than these tell little.
        golden: pictures.
    """

    head: int = 200_000
    lean: int = 54_000  # 60 KB with its manifest
    exemplars: int = 150_000
    each: int = 20
    rank: int = 192
    golden: int = 8


class Ingredients(NamedTuple):
    """What a release is made of.

    Attributes:
        learner: its head.
        backbone: the TFLite file.
        golden: the golden file of that backbone (`export.golden`).
        exemplars: samples to choose from, of the learner's classes and space.
        input: how a picture is prepared.
    """

    learner: EdgeLearner
    backbone: bytes
    golden: bytes
    exemplars: Samples
    input: Input


class Label(NamedTuple):
    """What is written on a release, besides what follows from its parts; see `bundle.Manifest`."""

    model: str
    facts: Facts
    registry: int
    gates: Gates
    run: str


def whole(ingredients: Ingredients, label: Label, budgets: Budgets) -> bytes:
    """Return a bundle that needs no other.

    Raises:
        ReleaseError: a part is larger than it may be whatever is left out: too many classes.
    """
    learner = ingredients.learner
    lengths = _lengths(learner, ingredients.input)
    files = {
        BACKBONE: ingredients.backbone,
        HEAD: _fitting_head(learner, lengths, budgets.head, budgets.rank, None),
        GOLDEN: ingredients.golden,
        EXEMPLARS: _exemplars(learner, ingredients.exemplars, lengths, budgets),
    }
    described = tuple(bundle.described(name, data) for name, data in files.items())
    return bundle.pack(_manifest(ingredients, label, 0, described), files)


def lean(
    ingredients: Ingredients, label: Label, budgets: Budgets, parent: tuple[Manifest, Statistics]
) -> bytes:
    """Return a bundle of a head alone, for devices that hold the parent: a whole bundle of this backbone.

    Args:
        ingredients: of the release; its exemplars stay at home.
        label: of the release.
        budgets: what it may weigh.
        parent: its manifest, and the statistics that its head tells.
    """
    manifest, known = parent
    lengths = _lengths(ingredients.learner, ingredients.input)
    data = _fitting_head(ingredients.learner, lengths, budgets.lean, budgets.rank, (manifest.bundle, known))
    left = tuple(replace(part, carried=0) for part in manifest.parts if part.name != HEAD)
    described = (*left, bundle.described(HEAD, data))
    return bundle.pack(_manifest(ingredients, label, manifest.bundle, described), {HEAD: data})


def opened(
    data: bytes, config: LearnerConfig, parent: Statistics | None = None
) -> tuple[Manifest, EdgeLearner]:
    """Return a bundle's manifest and the learner of its head, as a device would make it.

    Raises:
        ProtocolError, ReleaseError, MismatchError: it cannot be used.
    """
    found = bundle.unpack(data)
    manifest = found.manifest
    learner = head.to_learner(manifest.feature_space, config, manifest.labels, bundle.head(found), parent)
    return manifest, learner


def manifest_id(data: bytes) -> str:
    """Return the hash of a bundle's manifest, by which an offer names it."""
    return hashlib.sha256(canonical.write(to_plain(bundle.read_manifest(data)[0]))).hexdigest()


def input_of(manifest: Any) -> Input:
    """Return how pictures are prepared for a backbone, from `vision.backbone.Manifest`."""
    (height, width), (low, high) = manifest.input_size, manifest.input_range
    return Input(height, width, float(low), float(high), manifest.resize.value, manifest.mirror)


def _lengths(learner: EdgeLearner, taken: Input) -> Lengths:
    space = learner.space
    return Lengths(space.size, len(learner.labels), space.dtype, (taken.height, taken.width))


def _fitting_head(
    learner: EdgeLearner,
    lengths: Lengths,
    budget: int,
    rank: int,
    parent: tuple[int, Statistics] | None,
) -> bytes:
    """Return a coarse head with as many directions as fit."""
    rank, spare = min(rank, lengths.size), DIRECTION_BYTES * lengths.size
    while True:
        data = parts.write(head.of_learner(learner, rank, parent), lengths, parts.check_head)
        excess = len(packing.pack(data)) - budget
        if excess <= 0:
            return data
        if rank == 0:
            raise ReleaseError(
                f"a head of {lengths.classes} classes is {excess} bytes larger than {budget}, even without"
                " directions: join some classes, or let it weigh more"
            )
        rank = max(0, rank - 1 - int(excess / spare))


def _exemplars(learner: EdgeLearner, found: Samples, lengths: Lengths, budgets: Budgets) -> bytes:
    """Return as many exemplars a class, the first view of each, as fit; one a class at least."""
    numbers = places(found.labels, learner.labels).astype(np.int32)
    rows = embed(found.features, learner.space.zero_point).mean(axis=1)
    order = coreset(rows, numbers, budgets.each)
    rank = np.concatenate([np.arange(count) for count in _run_lengths(numbers[order])]).astype(np.intp)
    for each in range(budgets.each, 0, -1):
        chosen = order[rank < each]
        features = np.ascontiguousarray(found.features[chosen, :1])
        data = parts.write({"features": features, "numbers": numbers[chosen]}, lengths, parts.check_exemplars)
        if len(packing.pack(data)) <= budgets.exemplars:
            break
    return data


def _run_lengths(numbers: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return how long each run of equal numbers is; a single zero where there are none."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return np.diff(np.append(starts, len(numbers))) if len(numbers) else np.zeros(1, np.intp)


def _manifest(
    ingredients: Ingredients, label: Label, parent: int, described: tuple[bundle.Part, ...]
) -> Manifest:
    facts, learner = label.facts, ingredients.learner
    return Manifest(
        bundle=facts.bundle,
        parent=parent,
        model=label.model,
        hardware=facts.hardware,
        runtime_from=facts.runtime_from,
        runtime_below=facts.runtime_below,
        space=Space(*learner.space),
        labels=learner.labels,
        registry=label.registry,
        input=ingredients.input,
        gates=label.gates,
        parts=described,
        run=label.run,
    )
