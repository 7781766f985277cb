"""Decides whether an exported file still answers as the network did, from both their features."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.evaluation.agreement import cosines
from host_trainer.export.cost import Cost
from host_trainer.export.probe import paired_loss, probe_hits


@dataclass(frozen=True)
class Gate:
    """How alike is alike enough.

    Attributes:
        cosine_min: of the feature of the worst picture, float network against exported file.
        accuracy_drop: that a linear probe may lose, as a fraction; what few pictures lose by chance (one
            standard error of the difference picture by picture) does not count.
    """

    cosine_min: float = 0.95  # int8 MobileNets that lose no accuracy lie at 0.97 and above (the ledger)
    accuracy_drop: float = 0.01

    @classmethod
    def of(cls, quantise: str) -> "Gate":
        """Return the usual gate: training with the rounding in place must cost less than rounding later."""
        return cls(accuracy_drop=0.01 if quantise in {"ptq", "dynamic"} else 0.003)


class Labelled(NamedTuple):
    """Features of pictures with their classes: (N, D) as stored, and (N,) class numbers."""

    features: NDArray[Any]
    labels: NDArray[np.integer]


class Features(NamedTuple):
    """What one network gives: to learn from and to be asked, and how to read its numbers."""

    train: Labelled
    test: Labelled
    scale: float = 1.0
    zero_point: int = 0

    def real(self) -> NDArray[np.float64]:
        """Return the features of all pictures in real units, (N, D)."""
        stored = np.concatenate([self.train.features, self.test.features]).astype(np.float64)
        return (stored - self.zero_point) * self.scale


@dataclass(frozen=True)
class Parity:
    """How an exported file compares with its float network.

    Attributes:
        cosine_min: of the features, over all pictures.
        cosine_mean: of the features.
        accuracy_float: of a linear probe on the float network's features.
        accuracy_export: of a linear probe on the file's own features.
        accuracy_error: standard error of the difference of the two.
        train, test: pictures that the probes learned from and were asked about.
        size_bytes: of the file.
        latency_ms: of one picture, median, on one thread of this machine.
        peak_bytes: resident memory of a fresh process that runs the file.
        gate: what was asked.
        reasons: why it is not alike enough; empty when it is.
    """

    cosine_min: float
    cosine_mean: float
    accuracy_float: float
    accuracy_export: float
    accuracy_error: float
    train: int
    test: int
    size_bytes: int
    latency_ms: float
    peak_bytes: int
    gate: Gate
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The file is as good as the gate asks."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "reasons": list(self.reasons), "passed": self.passed}


def judge(expected: Features, found: Features, cost: Cost, size_bytes: int, gate: Gate) -> Parity:
    """Compare the float network's features with the file's, of the same pictures in the same order."""
    alike = cosines(expected.real(), found.real())
    before, after = (_hits(each) for each in (expected, found))
    drop, error = paired_loss(before, after)
    lowest, count = float(alike.min()), len(expected.test.labels)
    return Parity(
        cosine_min=lowest,
        cosine_mean=float(alike.mean()),
        accuracy_float=float(before.mean()),
        accuracy_export=float(after.mean()),
        accuracy_error=error,
        train=len(expected.train.labels),
        test=count,
        size_bytes=size_bytes,
        latency_ms=cost.latency_ms,
        peak_bytes=cost.peak_bytes,
        gate=gate,
        reasons=tuple(_reasons(lowest, drop, error, count, gate)),
    )


def _reasons(lowest: float, drop: float, error: float, count: int, gate: Gate) -> list[str]:
    reasons = []
    if not lowest >= gate.cosine_min:
        reasons.append(
            f"the worst picture's feature has cosine {lowest:.4f}, the gate is {gate.cosine_min:g}"
        )
    # One picture more or less is no evidence, however few were asked; nor is what chance alone would lose.
    if drop > max(gate.accuracy_drop + error, 1.0 / count) + 1e-9:
        reasons.append(
            f"a linear probe loses {drop:.4f} of its accuracy (+- {error:.4f}), the gate is "
            f"{gate.accuracy_drop:g}"
        )
    return reasons


def _hits(features: Features) -> NDArray[np.bool_]:
    return probe_hits(*features.train, *features.test, features.zero_point)
