"""Tries a staged release beside what runs: on golden pictures, on held-back samples, on live frames.

Whatever a release does wrong here is a reason for a person; nothing of it is in use yet. Its backbone runs in
a child process: one that crashes takes nothing with it.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.config import Settings
from edge_cl.device.staged import open_staged
from edge_cl.errors import EdgeError, MismatchError, ReleaseError, StoreError
from edge_cl.evaluation.agreement import Agreement, agreement
from edge_cl.evaluation.pairs import is_fall
from edge_cl.learning import unseen
from edge_cl.learning.learner import EdgeLearner
from edge_cl.resident import peak_resident_bytes
from edge_cl.sample import Prediction, label_key
from edge_cl.vision.backbone import Backbone
from edge_cl.wire.bundle import Gates, Golden, Space

LUCK = 0.1  # probability of turning down a release for luck alone; the host judges by many more samples
CROWDED = 0.2  # share of this device's samples that may be taken for classes that are new here
FEW = 24  # held-back samples below which all are asked, of the bases alone
RUNS = 15  # of the backbone, for its latency
SURE = 0.8  # probability from which an answer to a live frame counts
LEAST_FRAMES = 10  # answers of that kind below which live frames say nothing
CHANGED = 0.5  # share of them that may be others under a release
PER_MILLE = 1000
KILOBYTE = 1000


class Budget(NamedTuple):
    """What this board allows besides the release's own gates, 0 for any: ms of a feature, MB of memory."""

    latency_ms: float = 0.0
    memory_mb: float = 0.0


class Compared(NamedTuple):
    """What both answered to n samples of this device that neither has seen.

    Attributes:
        samples: n.
        before: right, of what runs.
        after: right, of the release, among the classes that what runs knows.
        lost, won: right before only, right now only, among these classes.
        after_all: right, of the release, among all its classes.
        lost_all, won_all: right before only, right now only, among these.
    """

    samples: int
    before: int
    after: int
    lost: int
    won: int
    after_all: int
    lost_all: int
    won_all: int


@contextlib.contextmanager
def opened(folder: Path, settings: Settings, staged: str) -> Iterator[Backbone]:
    """Open a release's backbone in a child process.

    Raises:
        ReleaseError: it cannot run on this board.
        StoreError: it does not read back.
    """
    isolated = replace(settings, engine=replace(settings.engine, isolate=True))
    try:
        backbone = open_staged(folder, isolated, staged)
    except StoreError:
        raise
    except EdgeError as error:
        raise ReleaseError(f"its backbone does not run here: {error}") from error
    with backbone:
        yield backbone


def check_backbone(
    backbone: Backbone, golden: Golden, space: Space, gates: Gates, budget: Budget
) -> dict[str, Any]:
    """Run the golden pictures and return what was measured.

    Raises:
        ReleaseError: other answers than at the host, too slow, or too large.
        EngineError: the engine failed.
    """
    here = backbone.space
    if (here.size, here.dtype, here.zero_point) != (space.size, space.dtype, space.zero_point):
        raise MismatchError("its backbone gives other features here than its head was made of")
    outputs = backbone.embed_many(golden.inputs)
    found = agreement(golden.outputs, outputs, here.scale, here.zero_point)
    is_same = (backbone.kernels, backbone.manifest().sha256) == (golden.kernels, golden.sha256)
    reason = _differs(found, gates, is_same and here.dtype != "float32")
    if reason:
        raise ReleaseError(reason)
    latency, memory = _latency_us(backbone, golden.inputs), _peak_kilobytes(backbone)
    _check_cost("one picture takes", latency / 1000, (gates.latency / 1000, budget.latency_ms), "ms")
    _check_cost("its backbone takes", memory / KILOBYTE, (gates.memory / KILOBYTE, budget.memory_mb), "MB")
    return {"golden_equal": round(found.equal, 4), "golden_cosine": round(found.cosine_min, 4),
            "latency_us": latency, "memory_kb": memory}  # fmt: skip


def _differs(found: Agreement, gates: Gates, is_exact: bool) -> str:
    """Say how golden answers differ too much; the same kernels must give the same numbers."""
    if is_exact and found.equal < 1.0:
        return (
            f"{100 * (1 - found.equal):.1f} % of the golden answers differ here, with the same kernels:"
            " its backbone, or how it prepares pictures, is not what its head was made with"
        )
    if is_exact:
        return ""
    if found.cosine_min * PER_MILLE < gates.cosine:
        least = gates.cosine / PER_MILLE
        return f"a golden answer has a cosine of {found.cosine_min:.3f} here, {least:.3f} is wanted"
    if gates.golden and found.steps > gates.golden:
        return f"a golden answer is {found.steps:g} steps off here, more than {gates.golden}"
    return ""


def _latency_us(backbone: Backbone, pixels: NDArray[np.uint8]) -> int:
    """Return the median time of a feature; the first runs were made for the golden answers already."""
    times = []
    for run in range(RUNS):
        start = time.perf_counter()
        backbone.embed(pixels[run % len(pixels)])
        times.append(time.perf_counter() - start)
    return round(1e6 * float(np.median(times)))


def _peak_kilobytes(backbone: Backbone) -> int:
    """Return the most memory that its engine had resident in a process of its own; 0 without one."""
    return peak_resident_bytes(backbone.process) // KILOBYTE if backbone.process else 0


def _check_cost(what: str, found: float, most: Sequence[float], unit: str) -> None:
    least = min((each for each in most if each), default=0.0)
    if least and found > least:
        raise ReleaseError(f"{what} {found:.1f} {unit} here, more than the {least:.1f} {unit} allowed")


# -- answers -----------------------------------------------------------------------------------------------


def compare(old: EdgeLearner, new: EdgeLearner) -> Compared:
    """Ask both about the held-back samples that both remember, as if neither had been taught them.

    Where those are fewer than FEW, both bases are asked about all samples instead, each held out by itself.
    """
    common = set(unseen.trusted(old)) & set(unseen.trusted(new))
    samples, ask = [s for s in unseen.held_back(old) if s in common], unseen.answers
    if len(samples) < FEW:
        samples, ask = sorted(common), unseen.answers_of_base
    truth = [label_key(label) for label in unseen.labels_of(old, samples)]

    def right(learner: EdgeLearner, among: Sequence[str]) -> list[bool]:
        return [label_key(a) == t for a, t in zip(ask(learner, samples, among), truth, strict=True)]

    keys = {label_key(label) for label in new.labels}
    shared = [label for label in old.labels if label_key(label) in keys]
    before = right(old, old.labels)
    after, after_all = right(new, shared), right(new, new.labels)
    return Compared(
        len(samples),
        sum(before),
        sum(after),
        *_pairs(before, after),
        sum(after_all),
        *_pairs(before, after_all),
    )


def _pairs(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    """Return how many were right before only, and now only."""
    both = list(zip(before, after, strict=True))
    return sum(was and not now for was, now in both), sum(now and not was for was, now in both)


def check_compared(found: Compared, gates: Gates) -> None:
    """Refuse a release that answers this device's own samples worse; ReleaseError says by how much.

    Among the classes that both know it may not be worse. Classes that are new here may be taken for the old
    ones now and then - who knows more has more to confuse - but not for many.
    """
    count, fall = found.samples, gates.fall / PER_MILLE
    if count and is_fall(found.lost, found.won, count, fall, LUCK):
        raise ReleaseError(_fell(found, found.after, ""))
    if count and is_fall(found.lost_all, found.won_all, count, max(fall, CROWDED), LUCK):
        raise ReleaseError(_fell(found, found.after_all, " among its new classes"))


def _fell(found: Compared, after: int, where: str) -> str:
    before, now = (100 * right / found.samples for right in (found.before, after))
    return (
        f"of {found.samples} samples of this device that it has not seen it answers {now:.0f} % right{where},"
        f" what runs answers {before:.0f} %"
    )


def check_frames(before: Sequence[Prediction], after: Sequence[Prediction]) -> dict[str, Any]:
    """Hold the answers to live frames side by side, and return the share that is the same.

    Raises:
        ReleaseError: most of what was answered surely is answered otherwise.
    """
    sure = [
        (one.best, other.best)
        for one, other in zip(before, after, strict=True)
        if one.label is not None and one.probability >= SURE
    ]
    changed = sum(label_key(one or "") != label_key(other or "") for one, other in sure)
    if len(sure) >= LEAST_FRAMES and changed > CHANGED * len(sure):
        raise ReleaseError(f"of {len(sure)} live frames with a sure answer it answers {changed} otherwise")
    return {"frames": len(before), "frames_changed": changed} if before else {}
