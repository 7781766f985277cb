"""The upper line: a peer that keeps all data and trains on all of it anew, by the best of three methods."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.peers.network import Descent, Floats32
from edge_cl.learning.peers.offline import (
    Linear,
    NetworkRecipe,
    fit_lda,
    fit_logistic,
    linear_scores,
    network_scores,
    train_network,
)
from edge_cl.learning.peers.peer import Floats, Peer, PeerConfig, rows_of
from edge_cl.sample import FeatureSpace

HELD_OUT = 0.2  # of each class's samples: judges the methods, then trained on as well
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # of LDA; the best lay inside on every set measured
PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4)  # of logistic regression; flat at both ends
EPOCHS = 40  # of the network at most; accuracy was flat from 20 to 80
DESCENT = Descent(rate=0.03, momentum=0.9, decay=5e-4)  # best of rates 0.003, 0.01, 0.03 on three sets

TEMPERATURES = tuple(np.geomspace(0.02, 50, 24))  # tried when a log loss is taken: LDA is not calibrated

Model = Callable[[Floats32], NDArray[Any]]  # (B, V, D) to scores (B, V, C)
Worth = tuple[float, float]  # accuracy, then minus the log loss: on easy data many are all right


class Data(NamedTuple):
    """Embedded samples (N, V, D) and their classes (N,)."""

    inputs: Floats32
    classes: NDArray[np.intp]


class Candidate(NamedTuple):
    """A way to train: its name, what it is worth on held-out samples, and how to train it on more."""

    name: str
    worth: Worth
    refit: Callable[[Data], Model]


class Joint(Peer):
    """Offline training on everything ever taught; fitted when it is asked after it was taught.

    Shrinkage LDA, logistic regression and a network of one hidden layer are trained on four fifths of the
    samples (each class split alike, all views of a sample together). What tells the other fifth best, as
    whole pictures and by the average of views, is trained again on everything.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        super().__init__(space, config)
        self._kept: list[tuple[NDArray[Any], NDArray[np.intp]]] = []
        self._model: Model | None = None
        self.chosen = ""  # name of the method in use

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of all samples."""
        return super().state_bytes() | {"buffer": sum(features.nbytes for features, _ in self._kept)}

    def _grow(self, classes: int) -> None:
        pass

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        self._kept.append((features.copy(), classes))
        self._model = None

    def _scores(self, features: NDArray[Any]) -> Floats:
        if self._model is None:
            self._model = self._fit()
        return self._model(self._embedded(features)).mean(axis=1, dtype=np.float64)

    def _fit(self) -> Model:
        views = min(features.shape[1] for features, _ in self._kept)
        stored = np.concatenate([features[:, :views] for features, _ in self._kept])
        data = Data(self._embedded(stored), np.concatenate([classes for _, classes in self._kept]))
        best = choose(data, self.config.hidden, self.config.seed)
        self.chosen = best.name
        return best.refit(data)

    def _embedded(self, features: NDArray[Any]) -> Floats32:
        """Return phi with values of unit mean square, (B, V, D)."""
        return (embed(features, self.space.zero_point) * (np.sqrt(self.space.size) / UNIT)).astype(np.float32)


def choose(data: Data, hidden: int, seed: int) -> Candidate:
    """Return what tells held-out samples best; the first of equals, LDA before logistic regression."""
    held = held_out(data.classes, seed)
    fit, judge = Data(data.inputs[~held], data.classes[~held]), Data(data.inputs[held], data.classes[held])
    if not len(judge.classes):  # under five samples a class: nothing to judge by
        return lda_candidates(fit, fit)[SHRINKAGES.index(0.5)]
    recipe = NetworkRecipe(hidden, descent=DESCENT)
    candidates = [*lda_candidates(fit, judge), *logistic_candidates(fit, judge)]
    candidates.append(network_candidate(fit, judge, recipe, seed))
    return max(candidates, key=lambda candidate: candidate.worth)


def held_out(classes: NDArray[np.intp], seed: int) -> NDArray[np.bool_]:
    """Return which samples are held out: a fifth of each class, rounded down."""
    chosen = np.zeros(len(classes), bool)
    rng = np.random.default_rng((seed, 5))
    for number in np.unique(classes):
        order = rng.permutation(np.flatnonzero(classes == number))
        chosen[order[: int(HELD_OUT * len(order))]] = True
    return chosen


def lda_candidates(fit: Data, judge: Data) -> list[Candidate]:
    """Return shrinkage LDA, one candidate for each shrinkage."""

    def train(data: Data, shrinkages: tuple[float, ...]) -> list[Model]:
        rows, classes = rows_of(data.inputs, data.classes)
        return [_linear(model) for model in fit_lda(rows, classes, shrinkages)]

    def refit(shrinkage: float) -> Callable[[Data], Model]:
        return lambda data: train(data, (shrinkage,))[0]

    return [
        Candidate(f"lda {shrinkage:g}", _worth(model, judge), refit(shrinkage))
        for shrinkage, model in zip(SHRINKAGES, train(fit, SHRINKAGES), strict=True)
    ]


def logistic_candidates(fit: Data, judge: Data) -> list[Candidate]:
    """Return logistic regression, one candidate for each penalty, each begun where the last ended."""

    def train(data: Data, penalty: float, start: Linear | None = None) -> Linear:
        rows, classes = rows_of(data.inputs, data.classes)
        return fit_logistic(rows, classes, penalty, start)

    def refit(penalty: float) -> Callable[[Data], Model]:
        return lambda data: _linear(train(data, penalty))

    candidates, found = [], None
    for penalty in PENALTIES:
        found = train(fit, penalty, found)
        candidates.append(Candidate(f"logistic {penalty:g}", _worth(_linear(found), judge), refit(penalty)))
    return candidates


def network_candidate(fit: Data, judge: Data, recipe: NetworkRecipe, seed: int) -> Candidate:
    """Return the network, trained for as many epochs as were best on the held-out samples."""

    def epochs(data: Data) -> Any:
        rng = np.random.default_rng((seed, 6))
        return islice(train_network(data.inputs, data.classes, recipe, rng), EPOCHS)

    worths = [_worth(partial(network_scores, model), judge) for model in epochs(fit)]
    best = max(range(len(worths)), key=worths.__getitem__)

    def refit(data: Data) -> Model:
        model = next(islice(epochs(data), best, None))
        return partial(network_scores, model)

    return Candidate(f"network {best + 1} epochs", worths[best], refit)


def _linear(model: Linear) -> Model:
    return partial(linear_scores, model)


def _worth(model: Model, judge: Data) -> Worth:
    """Return means over two ways to ask: by the first view alone, and by all views averaged."""
    scores = model(judge.inputs).astype(np.float64)
    asked = (scores[:, 0], scores.mean(axis=1))
    right = np.mean([answers.argmax(axis=1) == judge.classes for answers in asked])
    return float(right), -float(np.mean([_log_loss(answers, judge.classes) for answers in asked]))


def _log_loss(scores: Floats, classes: NDArray[np.intp]) -> float:
    """Return the mean log loss at the temperature that makes it least."""
    own = scores[np.arange(len(classes)), classes]
    top = scores.max(axis=1)
    losses = [
        np.mean(np.log(np.exp((scores - top[:, None]) / heat).sum(axis=1)) + (top - own) / heat)
        for heat in TEMPERATURES
    ]
    return float(min(losses))
