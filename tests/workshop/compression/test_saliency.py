"""Second derivatives are estimated from gradients, and tell what removing a weight costs."""

import numpy as np
import pytest

from host_trainer.compression.saliency import (
    curvature_of,
    init_curvature,
    magnitude,
    obd,
    update_curvature,
)

INPUTS, HIDDEN, CLASSES = 4, 5, 3


def softmax(logits: np.ndarray) -> np.ndarray:
    spread = np.exp(logits - logits.max(-1, keepdims=True))
    return spread / spread.sum(-1, keepdims=True)


def forward(weights: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A network of one tanh layer; `weights` is one vector."""
    first = weights[: INPUTS * HIDDEN].reshape(INPUTS, HIDDEN)
    hidden = np.tanh(x @ first)
    return hidden, softmax(hidden @ weights[INPUTS * HIDDEN :].reshape(HIDDEN, CLASSES))


def gradients(weights: np.ndarray, x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Gradient of each sample's cross-entropy: (N, weights)."""
    hidden, probabilities = forward(weights, x)
    error = probabilities - wanted
    last = weights[INPUTS * HIDDEN :].reshape(HIDDEN, CLASSES)
    inner = (error @ last.T) * (1 - hidden**2)
    first = np.einsum("ni,nh->nih", x, inner).reshape(len(x), -1)
    return np.concatenate([first, np.einsum("nh,nc->nhc", hidden, error).reshape(len(x), -1)], axis=1)


def expected_loss(weights: np.ndarray, x: np.ndarray, truth: np.ndarray) -> float:
    return float(-(truth * np.log(forward(weights, x)[1])).sum(-1).mean())


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Weights at the minimum of their loss: the labels follow the network's own probabilities."""
    rng = np.random.default_rng(7)
    weights = rng.normal(0, 0.7, INPUTS * HIDDEN + HIDDEN * CLASSES)
    x = rng.normal(size=(4_000, INPUTS))
    return weights, x, forward(weights, x)[1], rng


def second_differences(weights: np.ndarray, x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    step, found = 1e-3, np.zeros_like(weights)
    middle = expected_loss(weights, x, truth)
    for k in range(len(weights)):
        for sign in (-1, 1):
            moved = weights.copy()
            moved[k] += sign * step
            found[k] += expected_loss(moved, x, truth) - middle
    return found / step**2


def estimate(world: tuple, batch: int, rounds: int) -> np.ndarray:
    weights, x, truth, rng = world
    state = init_curvature(weights.shape, batch)
    for _ in range(rounds):
        draws = (truth.cumsum(1) < rng.random((len(x), 1))).sum(1)
        each = gradients(weights, x, np.eye(CLASSES)[draws])
        for rows in np.split(rng.permutation(len(x)), len(x) // batch):
            state = update_curvature(state, each[rows].mean(0))
    return curvature_of(state)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_curvature_is_that_of_finite_differences(world: tuple, batch: int) -> None:
    weights, x, truth, _ = world
    wanted = second_differences(weights, x, truth)

    found = estimate(world, batch, rounds=12 if batch == 1 else 40)

    np.testing.assert_allclose(found, wanted, rtol=0.1, atol=0.02 * wanted.max())


def test_obd_foretells_the_rise_of_the_loss_and_orders_weights_better_than_magnitude(world: tuple) -> None:
    weights, x, truth, _ = world
    base = expected_loss(weights, x, truth)
    without = [np.where(np.arange(len(weights)) == k, 0, weights) for k in range(len(weights))]
    rises = np.array([expected_loss(one, x, truth) for one in without]) - base

    foretold = obd(weights, estimate(world, 1, rounds=4))

    def order(values: np.ndarray) -> np.ndarray:
        return values.argsort().argsort()

    by_obd, by_size = (np.corrcoef(order(rises), order(v))[0, 1] for v in (foretold, magnitude(weights)))
    assert by_obd > 0.9 and by_obd > by_size


def test_an_estimate_needs_a_batch() -> None:
    with pytest.raises(ValueError, match="needs a batch"):
        curvature_of(init_curvature((2, 2), 8))
