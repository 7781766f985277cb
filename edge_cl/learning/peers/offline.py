"""Training on all data at once: shrinkage LDA, logistic regression and a network; pure functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.peers.network import (
    Descent,
    Floats32,
    Network,
    descend,
    follow,
    gradient,
    he_network,
    logits,
    softmax,
    widen,
    zeros_like,
)

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]

CURVATURE_PAIRS = 10  # of L-BFGS; scikit-learn's default is the same
SUFFICIENT_DECREASE = 1e-4  # Armijo's constant (Nocedal and Wright, section 3.1)
MAX_HALVINGS = 30  # of a step: below 1e-9 of the first, nothing better lies there


class Linear(NamedTuple):
    """A linear classifier: scores = x @ weights + biases.

    Attributes:
        weights: (D, C).
        biases: (C,).
    """

    weights: NDArray[np.floating]
    biases: NDArray[np.floating]


@dataclass(frozen=True)
class NetworkRecipe:
    """How the network is trained; the moving average is what is judged and used."""

    hidden: int = 256
    batch: int = 64
    descent: Descent = Descent(rate=0.01, momentum=0.9, decay=5e-4)
    average: float = 0.99  # kept of the moving average at each step, once warm


def fit_lda(inputs: NDArray, classes: NDArray[np.intp], shrinkages: tuple[float, ...]) -> list[Linear]:
    """Fit LDA on (n, D) of (n,) classes, once for each shrinkage e, from one eigendecomposition.

    Lambda = ((1 - e) Sigma + e tr(Sigma)/D I)^-1, w_c = Lambda m_c, b_c = -1/2 m_c' Lambda m_c + log prior_c.
    """
    counts = np.bincount(classes)
    means = np.stack(
        [inputs[classes == number].mean(axis=0, dtype=np.float64) for number in range(len(counts))]
    )
    centred = inputs - means[classes]
    values, vectors = np.linalg.eigh(centred.T @ centred / len(inputs))
    values, turned = np.maximum(values, 0.0), means @ vectors
    models = []
    for shrinkage in shrinkages:
        precision = 1.0 / np.maximum((1 - shrinkage) * values + shrinkage * values.mean(), 1e-12)
        biases = -0.5 * (turned**2 @ precision) + np.log(counts / len(inputs))
        models.append(Linear(vectors @ (turned * precision).T, biases))
    return models


def fit_logistic(
    inputs: NDArray,
    classes: NDArray[np.intp],
    penalty: float,
    start: Linear | None = None,
    iterations: int = 200,
    tolerance: float = 1e-4,
) -> Linear:
    """Fit multinomial logistic regression: least mean cross-entropy + penalty/2 |W|^2, biases free.

    Args:
        inputs: (n, D).
        classes: (n,), each number up to the largest at least once.
        penalty: 1 / (C n) in the terms of scikit-learn.
        start: a solution for another penalty, to begin from.
        iterations: of L-BFGS at most.
        tolerance: it ends when no slope exceeds this.
    """
    size, count = inputs.shape[1], int(classes.max()) + 1
    first = np.zeros((size + 1, count)) if start is None else np.vstack([start.weights, start.biases])

    def objective(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(size + 1, count)
        shares = softmax((inputs @ weights[:-1].astype(inputs.dtype) + weights[-1]).astype(np.float64))
        own = shares[np.arange(len(classes)), classes]
        loss = -np.log(np.maximum(own, 1e-300)).mean() + 0.5 * penalty * np.sum(weights[:-1] ** 2)
        shares[np.arange(len(classes)), classes] -= 1
        shares /= len(classes)
        slope = np.vstack(
            [inputs.T @ shares.astype(inputs.dtype) + penalty * weights[:-1], shares.sum(axis=0)]
        )
        return float(loss), slope.ravel()

    found = minimise(objective, first.ravel(), iterations, tolerance).reshape(size + 1, count)
    return Linear(found[:-1], found[-1])


def minimise(objective: Objective, start: Floats, iterations: int, tolerance: float = 1e-4) -> Floats:
    """Return where a smooth function is least, by L-BFGS with a halving line search.

    Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 and 7.5. Stops when no slope exceeds
    `tolerance` (scikit-learn's rule), or no step along the direction improves.
    """
    point, (value, slope) = start, objective(start)
    pairs: list[tuple[Floats, Floats]] = []
    for _ in range(iterations):
        if np.abs(slope).max() <= tolerance:
            break
        direction = _quasi_newton(slope, pairs)
        step = 1.0 if pairs else 1.0 / max(1.0, float(np.linalg.norm(slope)))
        found = _line_search(objective, point, value, direction, float(direction @ slope), step)
        if found is None:
            break
        moved, (value, turned) = found
        change, bend = moved - point, turned - slope
        if change @ bend > 1e-10 * (bend @ bend):
            pairs = [*pairs, (change, bend)][-CURVATURE_PAIRS:]
        point, slope = moved, turned
    return point


def train_network(
    inputs: Floats32, classes: NDArray[np.intp], recipe: NetworkRecipe, rng: np.random.Generator
) -> Iterator[Network]:
    """Train on (n, V, D), a random view of a sample at a time; yield the averaged network each epoch."""
    count = int(classes.max()) + 1
    network = he_network(inputs.shape[2], recipe.hidden, 0, rng)
    network = widen(network, np.zeros((recipe.hidden, count), np.float32))
    velocity, step = zeros_like(network), 0
    average = Network(*(tuple(array.copy() for array in layers) for layers in network))
    while True:
        order = rng.permutation(len(inputs))
        for begin in range(0, len(order), recipe.batch):
            drawn = order[begin : begin + recipe.batch]
            rows = inputs[drawn, rng.integers(inputs.shape[1], size=len(drawn))]
            descend(network, velocity, gradient(network, rows, classes[drawn]), recipe.descent)
            step += 1
            follow(average, network, min(recipe.average, step / (step + 10)))
        yield average


def linear_scores(model: Linear, inputs: NDArray) -> NDArray:
    """Return scores (..., C) of inputs (..., D)."""
    return inputs @ model.weights.astype(inputs.dtype) + model.biases.astype(inputs.dtype)


def network_scores(model: Network, inputs: Floats32) -> Floats32:
    """Return scores (..., C) of inputs (..., D)."""
    return logits(model, inputs.reshape(-1, inputs.shape[-1])).reshape(*inputs.shape[:-1], -1)


def _quasi_newton(slope: Floats, pairs: list[tuple[Floats, Floats]]) -> Floats:
    """Return minus the approximate inverse Hessian times the slope: the two-loop recursion."""
    direction, shares = -slope, []
    for change, bend in reversed(pairs):
        share = (change @ direction) / (change @ bend)
        direction = direction - share * bend
        shares.append(share)
    if pairs:
        change, bend = pairs[-1]
        direction = direction * ((change @ bend) / (bend @ bend))
    for (change, bend), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + change * (share - (bend @ direction) / (change @ bend))
    return direction


def _line_search(
    objective: Objective, point: Floats, value: float, direction: Floats, descent: float, step: float
) -> tuple[Floats, tuple[float, Floats]] | None:
    """Halve the step until the value falls enough; None when it never does."""
    for _ in range(MAX_HALVINGS):
        moved = point + step * direction
        found = objective(moved)
        if found[0] <= value + SUFFICIENT_DECREASE * step * descent:
            return moved, found
        step /= 2
    return None
