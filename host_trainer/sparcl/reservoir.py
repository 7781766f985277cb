"""Decides which pictures of the past are kept for rehearsal: a reservoir, and what it answered at the time.

Vitter, Random sampling with a reservoir, 1985, as Buzzega et al. (DER, NeurIPS 2020) use it: one offer for
every presentation, so a picture seen in several epochs is offered several times and may be kept twice.
Pictures are kept as they were before augmentation; logits as the network gave them then, and never renewed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError


class Memories(NamedTuple):
    """Some samples of the past: images (B, H, W, 3) uint8, labels (B,) int32, logits (B, C) float32."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    logits: NDArray[np.float32]


class Reservoir(NamedTuple):
    """K places and how many samples were offered to them.

    Attributes:
        images: (K, H, W, 3) uint8.
        labels: (K,) int32.
        logits: (K, C) float32.
        seen: offers so far; the first min(seen, K) places are filled.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    logits: NDArray[np.float32]
    seen: int

    @property
    def filled(self) -> int:
        """How many places hold a sample."""
        return min(self.seen, len(self.labels))

    @property
    def size_bytes(self) -> int:
        """Bytes of all places."""
        return self.images.nbytes + self.labels.nbytes + self.logits.nbytes


def empty(places: int, size: tuple[int, int], classes: int) -> Reservoir:
    """Return a reservoir with nothing in it.

    Raises:
        ConfigError: fewer than one place.
    """
    if places < 1:
        raise ConfigError(f"a buffer of {places} remembers nothing: give --buffer 1 or more, or --method sgd")
    return Reservoir(
        np.zeros((places, *size, 3), np.uint8),
        np.zeros(places, np.int32),
        np.zeros((places, classes), np.float32),
        0,
    )


def places_of(seen: int, places: int, offers: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which place each of the next offers takes: (B,), -1 where it is not kept (algorithm R)."""
    numbers = np.arange(seen, seen + offers)
    drawn = rng.integers(0, numbers + 1)  # 0..n inclusive, n offers came before this one
    return np.where(numbers < places, numbers, np.where(drawn < places, drawn, -1)).astype(np.intp)


def offer(reservoir: Reservoir, new: Memories, rng: np.random.Generator) -> Reservoir:
    """Return the reservoir after these samples were offered one after another."""
    taken = places_of(reservoir.seen, len(reservoir.labels), len(new.labels), rng)
    kept, seen = np.flatnonzero(taken >= 0), reservoir.seen + len(new.labels)
    if not len(kept):
        return reservoir._replace(seen=seen)
    # Two offers of one batch may fall on one place: numpy keeps the later of an assignment, as it should be.
    images, labels, logits = reservoir.images.copy(), reservoir.labels.copy(), reservoir.logits.copy()
    images[taken[kept]] = new.images[kept]
    labels[taken[kept]] = new.labels[kept]
    logits[taken[kept]] = new.logits[kept]
    return Reservoir(images, labels, logits, seen)


def draw(reservoir: Reservoir, count: int, rng: np.random.Generator) -> Memories:
    """Return `count` samples, all different where there are that many; a smaller memory is shown repeatedly.

    Raises:
        ValueError: nothing is kept yet.
    """
    filled = reservoir.filled
    if not filled:
        raise ValueError("nothing to draw: the reservoir is empty")
    rounds = [rng.permutation(filled) for _ in range(-(-count // filled))]
    chosen = np.concatenate(rounds)[:count]
    return Memories(reservoir.images[chosen], reservoir.labels[chosen], reservoir.logits[chosen])
