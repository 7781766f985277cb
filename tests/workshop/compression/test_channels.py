"""Channels that are worth nothing can go and nothing changes; the others go by their worth."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the workshop's networks need keras")

from edge_cl.errors import ConfigError
from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.compression.channels import Cut, chains, channel_saliency, compress, magnitudes
from host_trainer.network import Network

NETWORKS = [
    pytest.param("mobilenetv1:0.25/32", marks=pytest.mark.slow),
    "mobilenetv2:0.35/32",
    "resnet18:0.125/16",
    "separable:0.25/32",
]


def whole_numbers(model: Any, seed: int = 0) -> Any:
    """Give a network small integers for weights and a normalisation that changes nothing: sums are exact."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            size = layer.moving_mean.shape[0]
            layer.epsilon = 0.0
            layer.set_weights([np.ones(size), rng.integers(-1, 2, size), np.zeros(size), np.ones(size)])
        elif layer.get_weights():
            layer.set_weights([rng.integers(-1, 2, values.shape) for values in layer.get_weights()])
    return model


def without_use(model: Any, share: float) -> dict[str, np.ndarray]:
    """Make some channels of every chain unused by its last layer; return which, by chain."""
    unused = {}
    for chain in chains(model):
        last = model.get_layer(chain.end)
        kernel, *rest = last.get_weights()
        count = kernel.shape[2]
        chosen = np.random.default_rng(count).choice(count, int(count * share), replace=False)
        kernel[:, :, chosen] = 0
        last.set_weights([kernel, *rest])
        unused[chain.begin] = np.sort(chosen)
    return unused


@pytest.mark.parametrize("text", NETWORKS)
def test_unused_channels_go_and_the_answer_is_the_same_to_the_last_bit(text: str) -> None:
    model = whole_numbers(with_head(build(parse_spec(text)), 3))
    without_use(model, 0.5)
    size = model.input.shape[1]
    images = np.random.default_rng(1).integers(-1, 2, (2, size, size, 3)).astype(np.float32)

    smaller = compress(Network(model), Cut(keep=0.5, step=1))

    assert smaller.model.count_params() < 0.75 * model.count_params()
    assert np.array_equal(np.asarray(smaller.model(images)), np.asarray(model(images)))


def test_the_chains_of_a_mobilenet_are_its_expansions() -> None:
    found = chains(build(parse_spec("mobilenetv2:0.35/32")))
    assert len(found) == 17  # the first block has no expansion of its own: the stem's channels are its
    assert found[0].begin == "Conv1" and found[0].end == "expanded_conv_project"
    assert found[1].begin == "block_1_expand" and "block_1_depthwise" in found[1].between
    assert not any("project" in chain.begin for chain in found)


def test_the_chains_of_a_residual_net_are_inside_its_blocks() -> None:
    found = chains(build(parse_spec("resnet18:0.125/16")))
    assert [(chain.begin, chain.end) for chain in found] == [
        (f"stage{stage}_block{block}_conv1", f"stage{stage}_block{block}_conv2")
        for stage in (1, 2, 3, 4)
        for block in (1, 2)
    ]


def test_a_network_from_a_folded_file_can_be_pruned_too() -> None:
    from host_trainer.quantisation.folding import fold

    folded = fold(build(parse_spec("separable:0.25/32")))
    smaller = compress(Network(folded), Cut(0.5))
    assert smaller.model.count_params() < folded.count_params()
    assert smaller.model.output.shape == folded.output.shape


def test_worth_does_not_change_when_a_factor_moves_from_one_kernel_to_the_next() -> None:
    model = build(parse_spec("resnet18:0.125/16"))
    chain = chains(model)[0]
    scores = magnitudes(model)
    moved = {**scores, chain.begin: scores[chain.begin] * 3, chain.end: scores[chain.end] / 3}
    np.testing.assert_allclose(channel_saliency(chain, moved), channel_saliency(chain, scores))


def test_given_scores_decide_which_channels_stay() -> None:
    model = build(parse_spec("resnet18:0.25/16"))
    chain = chains(model)[0]
    scores = {name: np.ones_like(values) for name, values in magnitudes(model).items()}
    scores[chain.begin][..., [3, 7]] = 5.0

    smaller = compress(Network(model), Cut(keep=2 / 16, step=1), scores)

    wanted = model.get_layer(chain.begin).get_weights()[0][..., [3, 7]]
    assert np.array_equal(smaller.model.get_layer(chain.begin).get_weights()[0], wanted)


@pytest.mark.parametrize(
    ("channels", "keep", "kept"), [(96, 0.5, 48), (20, 0.5, 8), (4, 0.1, 4), (96, 1.0, 96), (97, 1.0, 97)]
)
def test_kept_channels_come_in_eights(channels: int, keep: float, kept: int) -> None:
    assert Cut(keep).kept(channels) == kept


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5])
def test_a_cut_that_keeps_nothing_or_more_than_all_is_refused(keep: float) -> None:
    with pytest.raises(ConfigError, match="no cut"):
        Cut(keep)


def test_a_network_without_inner_channels_is_refused() -> None:
    import keras

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image)))
    with pytest.raises(ConfigError, match="no inner channels"):
        compress(Network(model), Cut(0.5))
