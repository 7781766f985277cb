"""Peers that keep sums and no samples: weight imprinting, streaming LDA, ridge regression."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.peers.peer import Floats, Peer, PeerConfig, rows_of, with_rows
from edge_cl.sample import FeatureSpace

SLDA_SHRINKAGE = 1e-4  # as published (Hayes and Kanan 2020, section 3.2)
RIDGES = tuple(10.0**k for k in range(-8, 9))  # as RanPAC chooses from (McDonnell et al. 2023, appendix)
HELD_OUT_EVERY = 5  # one sample in five, of each class, judges the ridge: RanPAC's 80/20


class Imprinting(Peer):
    """Weight imprinting: a class is the mean of its L2-normalised features; the nearest by cosine wins.

    Qi, Brown and Lowe, Low-Shot Learning with Imprinted Weights, 2018; Coral's ImprintingEngine.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        super().__init__(space, config)
        self._sums = np.zeros((0, space.size))

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of the class sums."""
        return super().state_bytes() | {"base": self._sums.nbytes}

    def _grow(self, classes: int) -> None:
        self._sums = with_rows(self._sums, classes)

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        rows, numbers = rows_of(_normalised(self._real(features)), classes)
        np.add.at(self._sums, numbers, rows)

    def _scores(self, features: NDArray[Any]) -> Floats:
        return _normalised(self._real(features)).mean(axis=1) @ _normalised(self._sums).T


class StreamingLda(Peer):
    """Deep SLDA as published: class means, one covariance, Lambda = ((1 - e) Sigma + e I)^-1 with e = 1e-4.

    Hayes and Kanan, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis, 2020. With t
    samples seen, Sigma' = (t Sigma + t (x - m)(x - m)' / (t + 1)) / (t + 1), m the class mean before x, zero
    for a new class, as in the authors' code. t Sigma is kept, so that an update set is one matrix product.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        super().__init__(space, config)
        self._seen = 0
        self._counts = np.zeros(0, np.int64)
        self._means = np.zeros((0, space.size))
        self._scatter = np.zeros((space.size, space.size))  # t Sigma
        self._solved: tuple[Floats, Floats] | None = None

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of means and covariance."""
        return super().state_bytes() | {"base": self._means.nbytes + self._scatter.nbytes}

    def _grow(self, classes: int) -> None:
        self._counts = with_rows(self._counts, classes)
        self._means = with_rows(self._means, classes)

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        rows, numbers = rows_of(self._real(features), classes)
        deviations = np.empty_like(rows)
        for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            deviation = row - self._means[number]
            deviations[i] = np.sqrt(self._seen / (self._seen + 1)) * deviation
            self._counts[number] += 1
            self._means[number] += deviation / self._counts[number]
            self._seen += 1
        self._scatter += deviations.T @ deviations
        self._solved = None

    def _scores(self, features: NDArray[Any]) -> Floats:
        if self._solved is None:
            self._solved = self._solve()
        weights, biases = self._solved
        return self._real(features).mean(axis=1) @ weights + biases

    def _solve(self) -> tuple[Floats, Floats]:
        """Return W = Lambda M' (D, C) and b_c = -1/2 m_c' Lambda m_c."""
        covariance = (1 - SLDA_SHRINKAGE) / self._seen * self._scatter
        covariance[np.diag_indices(self.space.size)] += SLDA_SHRINKAGE
        weights = np.linalg.solve(covariance, self._means.T)
        return weights, -0.5 * np.einsum("cd,dc->c", self._means, weights)


class Moments(NamedTuple):
    """Sums over samples h (with a constant 1 behind) and their targets y, one-hot.

    Attributes:
        gram: (D + 1, D + 1) sum of h h'.
        cross: (D + 1, C) sum of h y'.
        rows: number of samples; also the sum of y'y.
    """

    gram: Floats
    cross: Floats
    rows: int


class Ridge(Peer):
    """Ridge regression on one-hot targets from accumulated moments, hence equal to joint training.

    RanPAC without its random projection (McDonnell et al. 2023; ACIL, Zhuang et al. 2022). RanPAC chooses the
    ridge by mean squared error on a fifth of the current task. Here every fifth sample of each class goes
    into moments of its own, from which that error over everything held out so far follows exactly, no sample
    kept; the final solution uses both moments.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        super().__init__(space, config)
        self._taught = np.zeros(0, np.int64)
        size = space.size + 1
        self._fit = Moments(np.zeros((size, size)), np.zeros((size, 0)), 0)
        self._held = Moments(np.zeros((size, size)), np.zeros((size, 0)), 0)
        self._weights: Floats | None = None

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of both moments."""
        arrays = (self._fit.gram, self._fit.cross, self._held.gram, self._held.cross)
        return super().state_bytes() | {"base": sum(array.nbytes for array in arrays)}

    def _grow(self, classes: int) -> None:
        self._taught = with_rows(self._taught, classes)
        self._fit, self._held = (
            moments._replace(cross=with_rows(moments.cross.T, classes).T)
            for moments in (self._fit, self._held)
        )

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        held = np.empty(len(classes), bool)
        for i, number in enumerate(classes):
            self._taught[number] += 1
            held[i] = self._taught[number] % HELD_OUT_EVERY == 0
        real = self._real(features)
        self._fit = _added(self._fit, *rows_of(real[~held], classes[~held]))
        self._held = _added(self._held, *rows_of(real[held], classes[held]))
        self._weights = None

    def _scores(self, features: NDArray[Any]) -> Floats:
        if self._weights is None:
            self._weights = _ridge_weights(self._fit, self._held)
        return self._real(features).mean(axis=1) @ self._weights[:-1] + self._weights[-1]


def _normalised(values: Floats) -> Floats:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _added(moments: Moments, rows: Floats, numbers: NDArray[np.intp]) -> Moments:
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    cross = moments.cross.copy()
    np.add.at(cross.T, numbers, rows)
    return Moments(moments.gram + rows.T @ rows, cross, moments.rows + len(rows))


def _ridge_weights(fit: Moments, held: Moments) -> Floats:
    """Solve with the ridge of least held-out error: (D + 1, C)."""
    both = Moments(fit.gram + held.gram, fit.cross + held.cross, fit.rows + held.rows)
    ridge = _best_ridge(fit, held) if fit.rows and held.rows else 1.0
    return np.linalg.solve(both.gram + ridge * np.eye(len(both.gram)), both.cross).astype(np.float64)


def _best_ridge(fit: Moments, held: Moments) -> float:
    """Return the ridge whose solution on `fit` has the least sum of squares on `held`.

    |Y - H W|^2 = tr Y'Y - 2 tr W'Q + tr W'G W with the held-out moments G, Q. In the eigenvectors of the
    fitted Gram matrix every ridge's W is a division.
    """
    values, vectors = np.linalg.eigh(fit.gram)
    cross, held_cross = vectors.T @ fit.cross, vectors.T @ held.cross
    held_gram = vectors.T @ held.gram @ vectors
    values = np.maximum(values, 0.0)[:, None]
    errors = []
    for ridge in RIDGES:
        weights = cross / (values + ridge)
        errors.append(np.sum(weights * (held_gram @ weights)) - 2 * np.sum(weights * held_cross))
    return RIDGES[int(np.argmin(errors))]
