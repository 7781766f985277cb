"""Rounding as int8 does it: what holds for every range and every weight."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from host_trainer.quantisation.fake_quant import (
    ACTIVATION_STEPS,
    WEIGHT_STEPS,
    layers,
    nudged,
    pinned,
    rounded_activations,
    rounded_symmetric,
    rounded_weights,
)

tensorflow = pytest.importorskip("tensorflow", reason="gradients are taken with tensorflow here")
FINITE = st.floats(-100, 100, width=32)
VALUES = arrays(np.float32, (3, 5), elements=FINITE)
ENDS = st.tuples(st.floats(-50, 0, width=32), st.floats(0, 50, width=32)).filter(lambda e: e[1] - e[0] > 1e-3)


def rounded(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return np.asarray(rounded_activations(values, *ends))


@settings(deadline=None)
@given(values=VALUES, ends=ENDS)
def test_rounding_activations_twice_is_rounding_once(values: np.ndarray, ends: tuple[float, float]) -> None:
    once = rounded(values, ends)
    assert np.array_equal(rounded(once, ends), once)


@settings(deadline=None)
@given(ends=ENDS)
def test_zero_stays_exactly_zero(ends: tuple[float, float]) -> None:
    """Padding is zero, and so is what a ReLU cuts: neither may drift."""
    assert not rounded(np.zeros((2, 2), np.float32), ends).any()


@settings(deadline=None)
@given(values=VALUES, ends=ENDS)
def test_inside_the_range_rounding_moves_by_half_a_step_at_most(
    values: np.ndarray, ends: tuple[float, float]
) -> None:
    low, scale = (float(each) for each in nudged(*ends))
    inside = np.clip(values, low, low + ACTIVATION_STEPS * scale)
    assert np.abs(rounded(values, ends) - inside).max() <= 0.5001 * scale
    assert len(np.unique(rounded(values, ends))) <= ACTIVATION_STEPS + 1


@settings(deadline=None)
@given(values=VALUES, largest=st.floats(0.0625, 50, width=32))
def test_symmetric_steps_are_as_many_below_zero_as_above(values: np.ndarray, largest: float) -> None:
    found = np.asarray(rounded_symmetric(values, largest))
    scale = largest / WEIGHT_STEPS
    assert np.abs(found - np.clip(values, -largest, largest)).max() <= 0.5001 * scale
    assert np.array_equal(rounded_symmetric(-values, largest), -found)
    assert np.allclose(rounded_symmetric(found, largest), found, rtol=1e-6)


@settings(deadline=None)
@given(weights=arrays(np.float32, (3, 3, 4), elements=FINITE))
def test_each_channel_of_weights_lies_on_its_own_symmetric_steps(weights: np.ndarray) -> None:
    found = np.asarray(rounded_weights(weights))
    scale = np.maximum(np.abs(weights).max(axis=(0, 1)), 1e-6) / WEIGHT_STEPS
    steps = found / scale
    assert np.abs(steps - np.round(steps)).max() <= 1e-3
    assert np.abs(steps).max() <= WEIGHT_STEPS + 1e-3  # narrow: -128 is not used
    assert np.abs(found - weights).max() <= 0.5001 * scale.max()
    assert np.allclose(rounded_weights(found), found, rtol=1e-5, atol=1e-7)


@settings(deadline=None)
@given(values=VALUES, ends=ENDS)
def test_gradients_pass_inside_the_range_and_stop_outside(
    values: np.ndarray, ends: tuple[float, float]
) -> None:
    variable = tensorflow.constant(values)
    with tensorflow.GradientTape() as tape:
        tape.watch(variable)
        total = keras.ops.sum(rounded_activations(variable, *ends))
    gradient = np.asarray(tape.gradient(total, variable))
    low, scale = (float(each) for each in nudged(*ends))
    high = low + ACTIVATION_STEPS * scale
    near = np.minimum(np.abs(values - low), np.abs(values - high)) < 1e-3 * scale
    inside = (values > low) & (values < high)
    assert np.array_equal(gradient[~near], inside.astype(np.float32)[~near])


def test_gradients_of_weights_pass_everywhere() -> None:
    weights = tensorflow.constant(np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32))
    with tensorflow.GradientTape() as tape:
        tape.watch(weights)
        total = keras.ops.sum(rounded_weights(weights))
    assert np.array_equal(tape.gradient(total, weights), np.ones((3, 3, 4)))


def test_a_channel_of_zeros_stays_zero() -> None:
    assert not np.asarray(rounded_weights(np.zeros((3, 2), np.float32))).any()


def test_rounding_agrees_with_the_operation_that_the_converter_reads() -> None:
    values = np.random.default_rng(3).normal(0, 2, (64, 64)).astype(np.float32)
    for low, high in ((-3.0, 4.0), (0.0, 6.0), (-1.3, 0.2)):
        theirs = tensorflow.quantization.fake_quant_with_min_max_args(values, low, high)
        assert np.abs(np.asarray(theirs) - rounded(values, (low, high))).max() <= 1e-5


@pytest.mark.parametrize(
    ("ends", "zero_point"), [((-1.0, 1.0), -1), ((0.0, 1.0), -128), ((0.0, 255.0), -128)]
)
def test_pixels_enter_as_their_bytes(ends: tuple[float, float], zero_point: int) -> None:
    """The input's range gives byte p the step p, also while training; zero keeps a step of its own."""
    low, high = pinned(*ends)
    scale = (high - low) / ACTIVATION_STEPS
    assert round(-low / scale) - 128 == zero_point
    images = (ends[0] + (ends[1] - ends[0]) * np.arange(256, dtype=np.float32) / 255).reshape(1, 16, 16, 1)
    found = np.asarray(layers().Range(fixed=ends)(images)).reshape(-1)
    assert np.array_equal(np.round((found - low) / scale), np.arange(256))


def test_ranges_follow_what_training_shows_and_only_that() -> None:
    layer = layers().Range(momentum=0.9)
    layer(np.full((2, 3), 100.0, np.float32))  # no training: nothing learned
    for high in (1.0, 3.0):
        layer(np.array([[-2.0, high]], np.float32), training=True)
    assert (float(layer.low), float(layer.high)) == (-2.0, pytest.approx(2.0))  # plain mean at first
    for _ in range(200):
        layer(np.array([[-4.0, 8.0]], np.float32), training=True)
    assert (float(layer.low), float(layer.high)) == (pytest.approx(-4.0), pytest.approx(8.0))


def test_layers_survive_keras_own_configuration() -> None:
    kinds = layers()
    image = keras.Input((8, 8, 3), name="image")
    maps = kinds.Range((-1.0, 1.0), name="image_range")(image)
    maps = kinds.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(maps)
    maps = kinds.Conv2D(4, 1, name="point")(maps)
    values = kinds.Dense(3, name="head")(keras.layers.GlobalAveragePooling2D()(maps))
    model = keras.Model(image, kinds.Range(name="head_range")(values))
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    assert np.array_equal(model(images, training=True), again(images, training=True))
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]


@settings(deadline=None)
@given(values=VALUES, ends=ENDS, stretch=st.floats(0.5, 2.0))
def test_a_stretched_range_keeps_zero_and_its_steps(
    values: np.ndarray, ends: tuple[float, float], stretch: float
) -> None:
    found = np.asarray(rounded_activations(values, *ends, stretch))
    scale = float(nudged(*ends)[1]) * stretch
    assert not np.asarray(rounded_activations(np.zeros(3, np.float32), *ends, stretch)).any()
    assert np.abs(found / scale - np.round(found / scale)).max() <= 1e-3


def test_a_range_grows_where_it_cuts_and_shrinks_where_steps_are_coarse() -> None:
    """The loss is the squared change: what is best for a tensor by itself."""

    def gradient(values: np.ndarray, stretch: float) -> float:
        size = tensorflow.constant(stretch)
        with tensorflow.GradientTape() as tape:
            tape.watch(size)
            found = rounded_activations(tensorflow.constant(values), -1.0, 1.0, size)
            loss = keras.ops.sum(keras.ops.square(found - values))
        return float(tape.gradient(loss, size))

    values = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
    assert gradient(values, 1.0) < 0  # a third lies outside
    assert gradient(values, 100.0) > 0


def test_a_range_that_no_longer_follows_stays() -> None:
    layer = layers().Range()
    layer(np.array([[-1.0, 1.0]], np.float32), training=True)
    layer.follows = False
    layer(np.array([[-9.0, 9.0]], np.float32), training=True)
    assert (float(layer.low), float(layer.high)) == (-1.0, 1.0)
    assert not type(layer).from_config(layer.get_config()).follows
