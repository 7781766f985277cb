"""Decides which samples make up which batch, from seed and step alone, so that a run can go on anywhere."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Source = Callable[[int], Mapping[str, np.ndarray]]  # step -> batch
READY = 2  # batches made while the network trains on the one before


def batch_indices(total: int, batch: int, step: int, seed: int) -> NDArray[np.intp]:
    """Return the samples of one step: (B,) of 0..N-1; every epoch visits each once, in an order of its own.

    A batch may reach into the next epoch, so every batch has the same size and no sample is left over.
    """
    at = step * batch + np.arange(batch)
    orders = {epoch: _order(total, int(epoch), seed) for epoch in np.unique(at // total)}
    return np.array([orders[place // total][place % total] for place in at], np.intp)


def steps_of(epochs: float, total: int, batch: int) -> int:
    """Return how many steps see each of `total` samples `epochs` times; at least one."""
    return max(1, round(epochs * total / batch))


def ahead(source: Source, start: int, stop: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the batches of steps start..stop-1, the next ones made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Mapping[str, np.ndarray]]] = deque()
        for step in range(start, stop):
            waiting.append(pool.submit(source, step))
            if len(waiting) > READY:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@lru_cache(maxsize=4)
def _order(total: int, epoch: int, seed: int) -> NDArray[np.intp]:
    order = np.random.default_rng((seed, epoch)).permutation(total)
    order.flags.writeable = False  # shared by every batch of the epoch
    return order
