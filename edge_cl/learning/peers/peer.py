"""What every peer of the edge learner shares: names for classes, views averaged, answers with a runner-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.sample import FeatureSpace, Prediction

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PeerConfig:
    """What a peer is allowed; each uses what its published recipe has a place for.

    Attributes:
        views: most views of a sample that are kept; samples taught with fewer keep those.
        buffer_bytes: of stored features a replaying peer may keep.
        hidden: units of a hidden layer; the same as the edge learner's residual.
        lam: chance that a slot of a batch is an old sample; None for the peer's own best.
        steps_per_update: SGD steps of a `consolidate` that names none.
        seed: of everything drawn at random.
    """

    views: int = 4
    buffer_bytes: int = 4_000_000
    hidden: int = 256
    lam: float | None = None
    steps_per_update: int = 64
    seed: int = 0


class Peer:
    """A learner on frozen features; a subclass fills in `_grow`, `_take_in` and `_scores`.

    Every view of a sample is a training sample of its own, and the views of a picture to be told are
    averaged, so that no peer is denied what the edge learner is given.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        self.space = space
        self.config = config or PeerConfig()
        self._numbers: dict[str, int] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes taught so far, in order of first teaching."""
        return tuple(self._numbers)

    def learn_one(self, features: NDArray[Any], label: str, sample: int | None = None) -> None:
        """Teach one sample: features (V, D) in the stored dtype."""
        self.learn_many(np.asarray(features)[None], [label], None if sample is None else [sample])

    def learn_many(
        self, features: NDArray[Any], labels: Sequence[str], samples: Sequence[int] | None = None
    ) -> None:
        """Teach samples in order: features (B, V, D) in the stored dtype; new labels make new classes.

        `samples`, their ids, are taken as every learner takes them; no peer can be asked about them again.
        """
        features = self._checked(features)
        if len(labels) != len(features):
            raise ValueError(f"{len(labels)} labels for {len(features)} samples")
        classes = [self._numbers.setdefault(label, len(self._numbers)) for label in labels]
        if len(features):
            self._grow(len(self._numbers))
            self._take_in(features[:, : self.config.views], np.array(classes))

    def consolidate(self, steps: int | None = None) -> None:
        """Work on what was taught for `steps` SGD steps; nothing for a peer that has no such steps."""

    def scores_many(self, features: NDArray[Any]) -> Floats:
        """Return the scores (B, C) of samples (B, V, D), columns in order of `labels`."""
        features = self._checked(features)
        if not self._numbers or not len(features):
            return np.zeros((len(features), len(self._numbers)))
        return self._scores(features)

    def predict_one(self, features: NDArray[Any]) -> Prediction:
        """Answer for one picture: features (V, D)."""
        return self.predict_many(np.asarray(features)[None])[0]

    def predict_many(self, features: NDArray[Any]) -> list[Prediction]:
        """Answer for pictures (B, V, D); peers are not calibrated and know no "unknown"."""
        return [_prediction(row, self.labels) for row in self.scores_many(features)]

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of closed-form statistics, of trained weights, and of kept samples."""
        return {"base": 0, "residual": 0, "buffer": 0}

    def _grow(self, classes: int) -> None:
        """Make room for `classes` classes; those known keep their numbers."""
        raise NotImplementedError

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        """Learn (B, V, D) stored features of (B,) class numbers."""
        raise NotImplementedError

    def _scores(self, features: NDArray[Any]) -> Floats:
        """Return (B, C) for (B, V, D) stored features, B and C at least 1."""
        raise NotImplementedError

    def _real(self, features: NDArray[Any]) -> Floats:
        """Return stored features as real values."""
        return self.space.scale * (features.astype(np.float64) - self.space.zero_point)

    def _checked(self, features: NDArray[Any]) -> NDArray[Any]:
        features = np.asarray(features)
        if features.ndim != 3 or features.shape[2] != self.space.size or not features.shape[1]:
            raise ValueError(f"features are (B, V, {self.space.size}) with V >= 1, not {features.shape}")
        return features


def with_rows(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return `values` with zero rows added at the end, so that there are `rows`."""
    missing = rows - len(values)
    return (
        np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)]) if missing else values
    )


def rows_of(features: NDArray[Any], classes: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return every view as a row of its own: (B, V, D), (B,) to (B V, D), (B V,)."""
    return features.reshape(-1, features.shape[2]), np.repeat(classes, features.shape[1])


def _prediction(scores: Floats, labels: tuple[str, ...]) -> Prediction:
    if not labels:
        return Prediction(None, 0.0, None, None, 0.0, 0.0)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    best = labels[order[0]]
    second = labels[order[1]] if len(labels) > 1 else None
    second_share = float(shares[order[1]]) if len(labels) > 1 else 0.0
    return Prediction(best, float(shares[order[0]]), best, second, second_share, 1.0)
