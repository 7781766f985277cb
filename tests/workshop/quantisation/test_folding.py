"""Folding: the same answers from a network without batch normalisation."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ModelError
from host_trainer.quantisation.folding import Norm, fold, folded_weights

PARITY = 1e-5  # of the largest value of a feature


def answers(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False))


def images_for(model: Any, count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, *model.input.shape[1:])).astype(np.float32)


@pytest.mark.parametrize(
    "text", ["mobilenetv1:0.25/32", "mobilenetv2:0.35/32", "resnet18:0.125/16", "separable:0.25/32"]
)
def test_a_folded_network_answers_as_before(settled: Any, text: str) -> None:
    model = settled(text)
    folded, images = fold(model), images_for(model)
    before, after = answers(model, images), answers(folded, images)
    assert np.abs(before - after).max() <= PARITY * np.abs(before).max()
    assert not [layer for layer in folded.layers if type(layer).__name__ == "BatchNormalization"]


def test_folding_leaves_the_given_network_as_it_was(settled: Any) -> None:
    model = settled("separable:0.25/32")
    before = [weights.copy() for weights in model.get_weights()]
    fold(model)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_a_network_without_normalisation_comes_back_equal(settled: Any) -> None:
    once = fold(settled("separable:0.25/32"))
    twice = fold(once)
    assert twice.name == once.name
    assert [layer.name for layer in twice.layers] == [layer.name for layer in once.layers]
    assert np.array_equal(answers(once, images_for(once)), answers(twice, images_for(once)))


def test_a_classifier_keeps_its_head(settled: Any) -> None:
    from host_trainer.backbones.networks import with_head

    model = with_head(settled("separable:0.25/32"), classes=5)
    before, after = answers(model, images_for(model)), answers(fold(model), images_for(model))
    assert after.shape == (4, 5)
    assert np.abs(before - after).max() <= PARITY * np.abs(before).max()


def test_a_backbone_that_shares_its_layers_with_a_classifier_folds_alone(settled: Any) -> None:
    from host_trainer.backbones.networks import with_head

    backbone = settled("separable:0.25/32")
    with_head(backbone, classes=5)
    assert fold(backbone).output.shape == backbone.output.shape


def test_a_normalisation_whose_input_somebody_else_reads_is_refused() -> None:
    image = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    normed = keras.layers.BatchNormalization(name="norm")(maps)
    feature = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([maps, normed]))
    with pytest.raises(ModelError, match="norm does not follow"):
        fold(keras.Model(image, feature))


def test_a_normalisation_after_an_activation_is_refused() -> None:
    image = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu")(image)
    maps = keras.layers.BatchNormalization(name="norm")(maps)
    with pytest.raises(ModelError, match="norm"):
        fold(keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps)))


@given(
    channels=st.integers(1, 6),
    seed=st.integers(0, 1000),
    with_bias=st.booleans(),
    multiplier=st.integers(1, 2),
)
def test_folded_weights_do_what_convolution_and_normalisation_did(
    channels: int, seed: int, with_bias: bool, multiplier: int
) -> None:
    """One pixel is enough: a 1 x 1 kernel is a matrix, a depthwise one a vector."""
    rng = np.random.default_rng(seed)
    for depthwise in (False, True):
        size = channels * multiplier if depthwise else channels
        shape = (1, 1, channels, multiplier) if depthwise else (1, 1, 3, channels)
        kernel = rng.normal(size=shape).astype(np.float32)
        bias = rng.normal(size=size).astype(np.float32) if with_bias else None
        norm = Norm(*(rng.normal(size=size) for _ in range(3)), rng.uniform(0.1, 2, size), 1e-3)
        x = rng.normal(size=channels if depthwise else 3)

        def applied(kernel: np.ndarray, bias: np.ndarray | None, x=x, depthwise=depthwise) -> np.ndarray:
            y = (x[:, None] * kernel[0, 0]).reshape(-1) if depthwise else x @ kernel[0, 0]
            return y if bias is None else y + bias

        expected = (applied(kernel, bias) - norm.mean) / np.sqrt(norm.variance + norm.epsilon)
        expected = expected * norm.gamma + norm.beta
        found = applied(*folded_weights(kernel, bias, norm, depthwise))
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
