"""Rounding with compensation: weights on int8 steps, and layers that still give what they gave."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_trainer.network import to_input
from host_trainer.quantisation.compensation import compensated, rounded_against
from host_trainer.quantisation.fake_quant import WEIGHT_STEPS, rounded_weights
from host_trainer.quantisation.folding import fold

pytest.importorskip("tensorflow", reason="patches are cut by the backend of the export")


def problems(seed: int, batch: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and moments of inputs that go together."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(batch, inputs, outputs)).astype(np.float32)
    values = rng.normal(size=(batch, 200, 3)) @ rng.normal(size=(batch, 3, inputs))
    values += 0.1 * rng.normal(size=values.shape)
    return weights, values.swapaxes(1, 2) @ values / 200


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 12), st.integers(1, 5))
def test_weights_lie_on_steps_whose_scale_stays(seed: int, batch: int, inputs: int, outputs: int) -> None:
    """The converter finds the scale from the largest weight: it must be the one that was rounded with."""
    weights, moments = problems(seed, batch, inputs, outputs)
    found = rounded_against(weights, moments)
    largest = np.abs(weights).max(axis=1, keepdims=True)
    assert np.allclose(np.abs(found).max(axis=1, keepdims=True), largest, rtol=1e-6)
    steps = found / largest * WEIGHT_STEPS
    assert np.abs(steps - np.round(steps)).max() <= 1e-4
    again = np.stack([np.asarray(rounded_weights(each.astype(np.float32))) for each in found])
    assert np.allclose(again, found, atol=1e-5)  # a second rounding, to the nearest, finds nothing to do


def test_outputs_change_less_than_by_rounding_to_the_nearest() -> None:
    def change(weights: np.ndarray, rounded: np.ndarray, moments: np.ndarray) -> float:
        moved = rounded - weights
        return float(np.einsum("bko,bkl,blo->", moved, moments, moved))

    for seed in range(10):
        weights, moments = problems(seed, 2, 24, 8)
        nearest = np.stack([np.asarray(rounded_weights(each)) for each in weights])
        ours = rounded_against(weights, moments)
        assert change(weights, ours, moments) < 0.5 * change(weights, nearest, moments)


def test_zero_weights_and_inputs_that_never_vary_do_no_harm() -> None:
    found = rounded_against(np.zeros((1, 4, 2), np.float32), np.zeros((1, 4, 4)))
    assert not found.any()
    assert np.isfinite(rounded_against(np.ones((1, 4, 2), np.float32), np.zeros((1, 4, 4)))).all()


@pytest.mark.parametrize("text", ["separable:0.25/32", "resnet18:0.125/16"])
def test_a_network_keeps_its_features_better(text: str, settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled(text))
    side = folded.input.shape[1]
    pixels = pixels[:, :side, :side]
    images = to_input(pixels, (-1.0, 1.0))
    expected = np.asarray(folded(images, training=False))
    nearest = fold(folded)
    for layer in nearest.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            deep = isinstance(layer, keras.layers.DepthwiseConv2D)
            flat = kernel.reshape(*kernel.shape[:2], -1) if deep else kernel
            layer.set_weights([np.asarray(rounded_weights(flat)).reshape(kernel.shape), bias])
    before, after = (
        np.square(np.asarray(each(images, training=False)) - expected).mean()
        for each in (nearest, compensated(folded, pixels))
    )
    assert after < 0.5 * before


def test_a_depthwise_layer_of_two_filters_a_channel_keeps_them_apart(pixels: np.ndarray) -> None:
    image = keras.Input((32, 32, 3), name="image")
    maps = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same", name="deep")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps))
    found = compensated(model, pixels)
    before, after = (each.get_layer("deep").get_weights()[0] for each in (model, found))
    assert np.abs(before - after).max() <= 2 * np.abs(before).max() / WEIGHT_STEPS


def test_the_given_network_is_left_as_it_was_and_the_result_is_the_same_twice(
    settled: Any, pixels: np.ndarray
) -> None:
    folded = fold(settled("separable:0.25/32"))
    kept = [weights.copy() for weights in folded.get_weights()]
    first, second = compensated(folded, pixels), compensated(folded, pixels)
    assert all(map(np.array_equal, first.get_weights(), second.get_weights()))
    assert all(map(np.array_equal, kept, folded.get_weights()))
