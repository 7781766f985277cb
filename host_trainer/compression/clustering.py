"""Lets the weights of a layer share a few values: k-means in one dimension, and what that saves, honestly.

Source: Han, Mao and Dally, Deep Compression, ICLR 2016, section 3 (linear start, one codebook a layer).
"""

import gzip
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from host_trainer.network import WEIGHTED, Network

MAX_ROUNDS = 100  # of Lloyd's algorithm; it settles in some twenty
FLOAT_BITS = 32


class Clusters(NamedTuple):
    """A layer's weights as places in a codebook: `codebook[indices]` are the weights.

    Attributes:
        codebook: (K,) float32, rising.
        indices: in the weights' shape, 0..K-1.
    """

    codebook: NDArray[np.float32]
    indices: NDArray[np.intp]


class Sizes(NamedTuple):
    """What the weights under a codebook take, in bytes; codebooks included where they are used.

    Attributes:
        plain: as float32.
        indexed: as indices of whole bits.
        entropy: as indices at their entropy, the bound of any coder that takes weights one by one.
        gzipped: the float32 bytes, gzip level 9; what a download of the unchanged format costs.
    """

    plain: int
    indexed: int
    entropy: int
    gzipped: int


def cluster(weights: NDArray, count: int) -> Clusters:
    """Share at most `count` values among weights, so that the squared error is (locally) least.

    Exact zeros keep a value of their own, so that a pruned network stays pruned. Fewer values come out where
    there are fewer different weights.
    """
    if count < 2:
        raise ConfigError(f"{count} shared values are too few: give 2 or more")
    flat = np.asarray(weights, np.float64).reshape(-1)
    different = np.unique(flat)
    if different.size <= count:
        return _looked_up(weights, different)
    has_zero = bool((different == 0).any())
    centres = _lloyd(np.sort(flat[flat != 0] if has_zero else flat), count - has_zero)
    return _looked_up(weights, np.unique(np.append(centres, 0.0) if has_zero else centres))


def compress(network: Network, count: int = 32) -> Network:
    """Share `count` values among each kernel's weights; the network's model is changed in place."""
    for kernel in _kernels(network.model):
        found = cluster(np.asarray(kernel.value), count)
        kernel.assign(found.codebook[found.indices])
    return network._replace(origin={**network.origin, "clustered": {"values": count}})


def sizes(model: Any) -> Sizes:
    """Return what the kernels of a network take; anything else in it (biases, norms) is not counted."""
    parts = [_sizes(np.asarray(kernel.value)) for kernel in _kernels(model)]
    return Sizes(*(sum(column) for column in zip(*parts, strict=True)))


def _sizes(weights: NDArray[np.float32]) -> Sizes:
    codebook, places = np.unique(weights, return_counts=True)
    share = places / weights.size
    book_bits, index_bits = codebook.size * FLOAT_BITS, max(1, int(codebook.size - 1).bit_length())
    entropy_bits = float(-(share * np.log2(share)).sum()) * weights.size
    return Sizes(
        weights.size * FLOAT_BITS // 8,
        _whole_bytes(weights.size * index_bits + book_bits),
        _whole_bytes(entropy_bits + book_bits),
        len(gzip.compress(weights.tobytes(), 9, mtime=0)),
    )


def _whole_bytes(bits: float) -> int:
    return int(-(-bits // 8))


def _kernels(model: Any) -> list[Any]:
    return [layer.kernel for layer in model.layers if type(layer).__name__ in WEIGHTED]


def _lloyd(rising: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the centres of k-means over sorted values: each step is exact and costs K log N."""
    centres = np.linspace(rising[0], rising[-1], count)
    sums = np.concatenate([[0.0], np.cumsum(rising)])
    for _ in range(MAX_ROUNDS):
        edges = np.searchsorted(rising, (centres[1:] + centres[:-1]) / 2)
        starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [rising.size]])
        filled = stops > starts
        means = (sums[stops[filled]] - sums[starts[filled]]) / (stops - starts)[filled]
        if np.array_equal(means, centres[filled]):
            break
        centres = centres.copy()
        centres[filled] = means
    return centres[filled]


def _looked_up(weights: NDArray, centres: NDArray[np.float64]) -> Clusters:
    """Give each weight its nearest centre; zero goes to zero where that is one."""
    indices = np.searchsorted((centres[1:] + centres[:-1]) / 2, np.asarray(weights, np.float64))
    if (centres == 0).any():
        indices = np.where(np.asarray(weights) == 0, int(np.flatnonzero(centres == 0)[0]), indices)
    return Clusters(centres.astype(np.float32), indices.astype(np.intp))
