"""Weights share a few values at little cost, and the sizes told are those a coder reaches."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.compression.clustering import cluster, compress, sizes
from host_trainer.network import Network

numbers = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=80)


@given(weights=numbers, count=st.integers(2, 12))
def test_no_more_values_than_asked_and_each_weight_goes_to_its_nearest(
    weights: list[float], count: int
) -> None:
    given_weights = np.array(weights, np.float32)
    found = cluster(given_weights, count)
    shared = found.codebook[found.indices]

    assert found.codebook.size <= count and np.all(np.diff(found.codebook) >= 0)
    distances = np.abs(given_weights[:, None].astype(np.float64) - found.codebook)
    chosen = np.abs(given_weights.astype(np.float64) - shared)
    assert np.all(chosen <= distances.min(axis=1) + 1e-5) or (given_weights == 0).any()
    assert np.all(shared[given_weights == 0] == 0)


@given(weights=numbers, count=st.integers(2, 12))
def test_clustering_twice_is_clustering_once(weights: list[float], count: int) -> None:
    once = cluster(np.array(weights, np.float32), count)
    shared = once.codebook[once.indices]
    twice = cluster(shared, count)
    assert np.array_equal(twice.codebook[twice.indices], shared)


def test_the_error_is_that_of_k_means_and_falls_with_more_values() -> None:
    weights = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    errors = []
    for count in (2, 4, 16, 64):
        found = cluster(weights, count)
        errors.append(float(np.square(weights - found.codebook[found.indices]).mean()))
    # Lloyd-Max quantisers of a normal variable (Max 1960): 0.3634, 0.1175, 0.009497.
    assert errors[:3] == pytest.approx([0.3634, 0.1175, 0.0095], rel=0.08)
    assert errors == sorted(errors, reverse=True)


def test_a_pruned_weight_stays_exactly_zero() -> None:
    weights = np.random.default_rng(1).normal(2.0, 0.1, (50, 20)).astype(np.float32)
    weights[::3] = 0
    found = cluster(weights, 4)
    assert np.array_equal(found.codebook[found.indices] == 0, weights == 0)


def test_one_value_is_too_few() -> None:
    with pytest.raises(ConfigError, match="give 2 or more"):
        cluster(np.ones(4), 1)


def test_a_networks_kernels_share_values_and_the_sizes_are_counted_honestly() -> None:
    pytest.importorskip("keras", reason="the workshop's networks need keras")
    from host_trainer.backbones.networks import build, parse_spec

    network = Network(build(parse_spec("separable:0.25/32")))
    before = sizes(network.model)

    clustered = compress(network, 16)
    after = sizes(clustered.model)

    kernels = [np.asarray(layer.kernel.value) for layer in clustered.model.layers if hasattr(layer, "kernel")]
    weights = sum(kernel.size for kernel in kernels)
    assert all(np.unique(kernel).size <= 16 for kernel in kernels)
    assert after.plain == before.plain == 4 * weights
    assert after.indexed <= weights / 2 + 13 * (16 * 4 + 1)
    assert after.entropy <= after.indexed < before.gzipped
    assert after.gzipped == sum(len(gzip.compress(kernel.tobytes(), 9, mtime=0)) for kernel in kernels)
    assert clustered.origin["clustered"] == {"values": 16}
