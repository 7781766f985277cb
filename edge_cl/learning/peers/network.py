"""A dense softmax network with one hidden layer or none, its gradient, and a momentum step."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]


class Network(NamedTuple):
    """Weights of layers, first to last; ReLU between them, softmax behind.

    Attributes:
        weights: (in, out) of each layer.
        biases: (out,) of each layer.
    """

    weights: tuple[Floats32, ...]
    biases: tuple[Floats32, ...]


class Descent(NamedTuple):
    """How a step is made: velocity = momentum * velocity - rate * (gradient + decay * weights)."""

    rate: float
    momentum: float = 0.0
    decay: float = 0.0


def he_network(size: int, hidden: int, classes: int, rng: np.random.Generator) -> Network:
    """Return a network whose hidden layer has He's start (2015), and whose output is zero."""
    first = rng.standard_normal((size, hidden), dtype=np.float32) * np.float32(np.sqrt(2.0 / size))
    return Network(
        (first, np.zeros((hidden, classes), np.float32)),
        (np.zeros(hidden, np.float32), np.zeros(classes, np.float32)),
    )


def zeros_like(network: Network) -> Network:
    """Return a network of the same shapes, all zero."""
    return Network(tuple(map(np.zeros_like, network.weights)), tuple(map(np.zeros_like, network.biases)))


def widen(network: Network, columns: Floats32) -> Network:
    """Return the network with more outputs: `columns` (in, new), biases zero."""
    weights = np.concatenate([network.weights[-1], columns.astype(np.float32)], axis=1)
    biases = np.concatenate([network.biases[-1], np.zeros(columns.shape[1], np.float32)])
    return Network((*network.weights[:-1], weights), (*network.biases[:-1], biases))


def logits(network: Network, inputs: Floats32) -> Floats32:
    """Return the scores before softmax: (n, D) to (n, C)."""
    return _activations(network, inputs)[-1]


def gradient(network: Network, inputs: Floats32, classes: NDArray[np.intp]) -> Network:
    """Return the gradient of the mean cross-entropy over (n, D) inputs of (n,) classes."""
    layers = _activations(network, inputs)
    delta = softmax(layers.pop())
    delta[np.arange(len(classes)), classes] -= 1
    delta /= len(classes)
    weights: list[Floats32] = []
    biases: list[Floats32] = []
    for i, (below, layer) in enumerate(zip(layers[::-1], network.weights[::-1], strict=True)):
        weights.insert(0, below.T @ delta)
        biases.insert(0, delta.sum(axis=0))
        if i + 1 < len(layers):
            delta = (delta @ layer.T) * (below > 0)
    return Network(tuple(weights), tuple(biases))


def descend(network: Network, velocity: Network, slope: Network, how: Descent) -> None:
    """Make one step; `network` and `velocity` change in place. Biases do not decay."""
    pairs = zip(network.weights, velocity.weights, slope.weights, strict=True)
    for weights, speed, down in pairs:
        speed *= np.float32(how.momentum)
        speed -= np.float32(how.rate) * (down + np.float32(how.decay) * weights)
        weights += speed
    for biases, speed, down in zip(network.biases, velocity.biases, slope.biases, strict=True):
        speed *= np.float32(how.momentum)
        speed -= np.float32(how.rate) * down
        biases += speed


def follow(average: Network, network: Network, keep: float) -> None:
    """Move an exponential moving average towards the network, in place."""
    for mean, now in zip(
        (*average.weights, *average.biases), (*network.weights, *network.biases), strict=True
    ):
        mean += np.float32(1 - keep) * (now - mean)


def softmax(scores: Floats32) -> Floats32:
    """Return probabilities along the last axis."""
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def network_bytes(network: Network) -> int:
    """Return the bytes of all weights and biases."""
    return sum(array.nbytes for array in (*network.weights, *network.biases))


def _activations(network: Network, inputs: Floats32) -> list[Floats32]:
    """Return the input, each hidden layer after ReLU, and the logits."""
    layers = [inputs]
    for i, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True)):
        values = layers[-1] @ weights + biases
        layers.append(np.maximum(values, 0) if i + 1 < len(network.weights) else values)
    return layers
