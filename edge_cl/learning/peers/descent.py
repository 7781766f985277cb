"""Peers that train by gradient descent: Coral's softmax recipe, and a dense network with replay."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.peers.network import (
    Descent,
    Floats32,
    Network,
    descend,
    gradient,
    he_network,
    logits,
    network_bytes,
    widen,
    zeros_like,
)
from edge_cl.learning.peers.peer import Floats, Peer, PeerConfig, rows_of
from edge_cl.learning.peers.reservoir import Reservoir
from edge_cl.sample import FeatureSpace

CORAL_WEIGHT_SCALE = 0.01  # of the normal start, in Coral's SoftmaxRegression
CORAL_BATCH = 100  # drawn with replacement, as there
CORAL_DESCENT = Descent(rate=0.01)
REPLAY_BATCH = 32  # the same as the edge learner's
# Best mean accuracy over three sets, of rates 0.003 to 0.03, decays 5e-4 and 5e-3, lambdas 0.5, 0.75 and 0.9.
REPLAY_DESCENT = Descent(rate=0.01, momentum=0.9, decay=5e-4)
REPLAY_LAM = 0.9
SLOT_BYTES = 16  # class and order of a kept sample, beside its features


class Softmax(Peer):
    """Coral's SoftmaxRegression: the last layer, by SGD on what was taught since the last `consolidate`.

    The library knows no new classes: here a column is added, drawn as the others were.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        super().__init__(space, config)
        self._network = Network(
            (np.zeros((space.size, 0), np.float32),),
            (np.zeros(0, np.float32),),
        )
        self._fresh: list[tuple[NDArray[Any], NDArray[np.intp]]] = []
        self._steps = 0

    def consolidate(self, steps: int | None = None) -> None:
        """Make SGD steps on the update set, which is then let go."""
        steps = self.config.steps_per_update if steps is None else steps
        if not self._fresh or not steps:
            return
        stored, classes = (np.concatenate(parts) for parts in zip(*self._fresh, strict=True))
        inputs, velocity = self._real(stored).astype(np.float32), zeros_like(self._network)
        for _ in range(steps):
            rng = np.random.default_rng((self.config.seed, self._steps))
            drawn = rng.integers(len(inputs), size=CORAL_BATCH)
            descend(
                self._network, velocity, gradient(self._network, inputs[drawn], classes[drawn]), CORAL_DESCENT
            )
            self._steps += 1
        self._fresh = []

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of the layer."""
        return super().state_bytes() | {"residual": network_bytes(self._network)}

    def _grow(self, classes: int) -> None:
        for number in range(len(self._network.biases[-1]), classes):
            rng = np.random.default_rng((self.config.seed, number, 1))
            column = CORAL_WEIGHT_SCALE * rng.standard_normal((self.space.size, 1))
            self._network = widen(self._network, column.astype(np.float32))

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        self._fresh.append(rows_of(features.copy(), classes))

    def _scores(self, features: NDArray[Any]) -> Floats:
        real = self._real(features).mean(axis=1).astype(np.float32)
        return logits(self._network, real).astype(np.float64)


class Replay(Peer):
    """Experience replay: a dense softmax network on the embedding, by SGD with momentum, and a reservoir.

    Same hidden width, buffer bytes, batch and steps as the edge learner; each slot of a batch is an old
    sample with chance lambda, else one taught since the last `consolidate`, in one of its views.
    """

    def __init__(self, space: FeatureSpace, config: PeerConfig | None = None) -> None:
        super().__init__(space, config)
        rng = np.random.default_rng((self.config.seed, 0, 2))
        self._network = he_network(space.size, self.config.hidden, 0, rng)
        self._velocity = zeros_like(self._network)
        self._kept: list[NDArray[Any]] = []  # (V, D) as stored, a slot each
        self._reservoir: Reservoir | None = None  # made when the first sample says how large a slot is
        self._fresh: list[tuple[NDArray[Any], int]] = []
        self._steps = self._taught = 0

    def consolidate(self, steps: int | None = None) -> None:
        """Make SGD steps on old and new samples; the new ones then enter the reservoir."""
        steps = self.config.steps_per_update if steps is None else steps
        if not steps or not (self._fresh or self._kept):
            return
        for _ in range(steps):
            self._step()
        for features, number in self._fresh:
            self._keep(features, number)
        self._fresh = []

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of network with velocity, and of the kept samples."""
        kept = sum(features.nbytes + SLOT_BYTES for features in self._kept)
        weights = network_bytes(self._network) + network_bytes(self._velocity)
        return super().state_bytes() | {"residual": weights, "buffer": kept}

    def _grow(self, classes: int) -> None:
        new = classes - len(self._network.biases[-1])
        if new:
            columns = np.zeros((self.config.hidden, new), np.float32)
            self._network, self._velocity = widen(self._network, columns), widen(self._velocity, columns)

    def _take_in(self, features: NDArray[Any], classes: NDArray[np.intp]) -> None:
        self._fresh.extend(
            (views.copy(), int(number)) for views, number in zip(features, classes, strict=True)
        )

    def _scores(self, features: NDArray[Any]) -> Floats:
        rows = self._embedded(features.reshape(-1, self.space.size))
        scores = logits(self._network, rows).reshape(*features.shape[:2], -1)
        return scores.mean(axis=1, dtype=np.float64)

    def _step(self) -> None:
        rng = np.random.default_rng((self.config.seed, self._steps, 3))
        self._steps += 1
        drawn = [self._draw(rng) for _ in range(REPLAY_BATCH)]
        inputs = self._embedded(np.stack([views[rng.integers(len(views))] for views, _ in drawn]))
        slope = gradient(self._network, inputs, np.array([number for _, number in drawn]))
        descend(self._network, self._velocity, slope, REPLAY_DESCENT)

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[Any], int]:
        lam = REPLAY_LAM if self.config.lam is None else self.config.lam
        if not self._fresh or (self._kept and rng.random() < lam):
            assert self._reservoir is not None
            slot = int(rng.integers(len(self._kept)))
            return self._kept[slot], int(self._reservoir.classes[slot])
        return self._fresh[int(rng.integers(len(self._fresh)))]

    def _keep(self, features: NDArray[Any], number: int) -> None:
        if self._reservoir is None:
            slot_bytes = self.config.views * self.space.size * features.itemsize + SLOT_BYTES
            self._reservoir = Reservoir(max(1, self.config.buffer_bytes // slot_bytes))
        slot = self._reservoir.offer(number, np.random.default_rng((self.config.seed, self._taught, 4)))
        self._taught += 1
        if slot == len(self._kept):
            self._kept.append(features)
        elif slot is not None:
            self._kept[slot] = features

    def _embedded(self, rows: NDArray[Any]) -> Floats32:
        """Return phi with values of unit mean square: (n, D)."""
        return (embed(rows, self.space.zero_point) * (np.sqrt(self.space.size) / UNIT)).astype(np.float32)
