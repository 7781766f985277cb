"""A pointwise convolution split in two keeps the energy asked, and is split only where that saves work."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.compression.lowrank import INNER, compress, factorise, rank_of, saves
from host_trainer.network import Network


@settings(deadline=None)
@given(
    seed=st.integers(0, 999), rows=st.integers(1, 20), columns=st.integers(1, 20), energy=st.floats(0.05, 1.0)
)
def test_the_error_is_bounded_by_the_energy_left_out(
    seed: int, rows: int, columns: int, energy: float
) -> None:
    matrix = np.random.default_rng(seed).normal(size=(rows, columns)) * 0.7 ** np.arange(columns)
    found = factorise(matrix, energy)

    error = np.square(matrix - found.left.astype(np.float64) @ found.right).sum()
    assert error <= (1 - energy + 1e-6) * np.square(matrix).sum()
    rank = found.left.shape[1]
    if rank > 1:  # one less would not have been enough
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert np.square(singular[: rank - 1]).sum() < energy * np.square(singular).sum() * (1 + 1e-9)


def test_the_whole_energy_needs_the_true_rank() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 9))
    assert factorise(matrix, 1 - 1e-12).left.shape == (12, 3)


@pytest.mark.parametrize("energy", [0.0, -1.0, 1.1])
def test_an_energy_that_is_no_share_is_refused(energy: float) -> None:
    with pytest.raises(ConfigError, match="no share"):
        rank_of(np.ones(3), energy)


def test_a_split_that_saves_nothing_is_not_made() -> None:
    assert saves((64, 128), 42) and not saves((64, 128), 43)


def network_of_low_rank(rank: int) -> Network:
    keras = pytest.importorskip("keras", reason="the workshop's networks need keras")
    from host_trainer.backbones.networks import build, parse_spec

    model = build(parse_spec("separable:0.5/32"))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1):
            shape = layer.kernel.shape[2:]
            kernel = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1])) / shape[0]
            layer.set_weights([kernel[None, None]])
    return Network(model)


def test_a_network_of_low_rank_becomes_thinner_and_answers_the_same() -> None:
    network = network_of_low_rank(rank=4)
    images = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)

    thinner = compress(network, energy=1 - 1e-9)

    assert thinner.model.count_params() < 0.5 * network.model.count_params()
    wanted = np.asarray(network.model(images))
    np.testing.assert_allclose(np.asarray(thinner.model(images)), wanted, rtol=1e-3, atol=1e-4 * wanted.max())
    split = [layer.name for layer in thinner.model.layers if layer.name.endswith(INNER)]
    assert len(split) == thinner.origin["low_rank"]["layers"] == 6
    assert [layer.name for layer in network.model.layers if layer.name.endswith(INNER)] == []


def test_a_network_of_full_rank_stays_as_it_is() -> None:
    pytest.importorskip("keras", reason="the workshop's networks need keras")
    from host_trainer.backbones.networks import build, parse_spec

    network = Network(build(parse_spec("separable:0.25/32")))
    assert compress(network, 1.0).model.count_params() == network.model.count_params()
