"""Drawing a network anew before its rounding: the same function, of fewer, finer and fuller tensors."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_trainer.network import to_input
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.levelling import levelled
from host_trainer.quantisation.merging import merged
from host_trainer.quantisation.preparation import prepared
from host_trainer.quantisation.revival import copies, noise_gains, revived
from host_trainer.quantisation.spaces import ends, spaces

PARITY = 1e-4  # of the largest value of a feature: sums of float32 in another order
RANGE = (-1.0, 1.0)


def answers(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(model(to_input(pixels, RANGE), training=False))


def sized(pixels: np.ndarray, model: Any) -> np.ndarray:
    side = model.input.shape[1]
    return pixels[:, :side, :side]


def are_alike(first: np.ndarray, second: np.ndarray, within: float = PARITY) -> bool:
    return bool(np.abs(first - second).max() <= within * np.abs(first).max())


def chain(channels: int = 6, seed: int = 0) -> Any:
    """A convolution, a depthwise and a pointwise one, ReLU6 between; everything drawn at random."""
    image = keras.Input((16, 16, 3), name="image")
    maps = keras.layers.ReLU(6.0, name="a")(
        keras.layers.Conv2D(channels, 3, padding="same", name="maker")(image)
    )
    maps = keras.layers.DepthwiseConv2D(3, padding="same", name="deep")(maps)
    maps = keras.layers.Conv2D(8, 1, name="taker")(keras.layers.ReLU(6.0, name="b")(maps))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="feature")(maps))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.5, each.shape) for each in model.get_weights()])
    return model


def with_dead(model: Any, dead: list[int]) -> Any:
    """Shut some channels of a chain for every picture; the depthwise bias may still give a constant."""
    kernel, bias = model.get_layer("maker").get_weights()
    kernel[..., dead], bias[dead] = 0.0, -1.0
    model.get_layer("maker").set_weights([kernel, bias])
    return model


@pytest.mark.parametrize(
    "text", ["mobilenetv2:0.35/32", "mobilenetv1:0.25/32", "resnet18:0.125/32", "separable:0.25/32"]
)
def test_a_prepared_network_computes_the_same(text: str, settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled(text))
    pixels = sized(pixels, folded)
    kept = [weights.copy() for weights in folded.get_weights()]
    ready = prepared(folded, pixels)
    assert are_alike(answers(folded, pixels), answers(ready, pixels), 0.01)  # borders: see `revived`
    assert all(map(np.array_equal, kept, folded.get_weights()))


def test_the_narrowest_pair_of_a_mobilenetv2_becomes_one_layer(settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled("mobilenetv2:0.35/32"))
    one = merged(folded)
    gone = {layer.name for layer in folded.layers} - {layer.name for layer in one.layers}
    assert gone == {"expanded_conv_project"}
    assert are_alike(answers(folded, pixels), answers(one, pixels))


def test_pairs_stay_two_where_one_would_be_large_or_where_somebody_else_listens() -> None:
    def pair(inputs: int, narrow: int, outputs: int, heard: bool = False, activation: str = "linear") -> Any:
        image = keras.Input((8, 8, inputs))
        first = keras.layers.Conv2D(narrow, 1, activation=activation, name="first")(image)
        second = keras.layers.Conv2D(outputs, 1, name="second")(first)
        if heard:
            second = keras.layers.Add()([second, first])
        return keras.Model(image, keras.layers.GlobalAveragePooling2D()(second))

    def layers(model: Any) -> int:
        return len(merged(model).layers)

    assert layers(pair(8, 4, 4)) == 3
    assert layers(pair(8, 4, 4, heard=True)) == 5
    assert layers(pair(8, 4, 4, activation="relu")) == 4
    assert layers(pair(64, 8, 64)) == 4  # four times the work
    assert layers(pair(96, 40, 96)) == 4  # 1.2 times, but 1,536 weights more: it was split to be small


def test_three_linear_layers_in_a_row_become_two_and_stay_right() -> None:
    image = keras.Input((4, 4, 3))
    maps = image
    for width, name in ((4, "one"), (4, "two"), (4, "three")):
        maps = keras.layers.Conv2D(width, 1, name=name)(maps)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps))
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    assert are_alike(np.asarray(model(images)), np.asarray(merged(model)(images)))
    assert len(merged(model).layers) == len(model.layers) - 1


def test_channels_of_a_linear_tensor_span_the_same_afterwards(settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled("mobilenetv2:0.35/32"))
    even = levelled(folded, pixels)
    span = ends(even, ["block_16_project", "block_1_project"], pixels, RANGE)
    alone = span["block_16_project"]
    assert np.allclose(alone.high, -alone.low, rtol=1e-2)  # the middle of each is zero
    assert alone.high.max() <= 1.02 * alone.high.min()
    before = ends(folded, ["block_16_project"], pixels, RANGE)["block_16_project"]
    assert np.ptp(before.high - before.low) > 0.1 * (before.high - before.low).max()
    assert are_alike(answers(folded, pixels), answers(even, pixels))


def test_channels_behind_a_relu6_are_left_alone(settled: Any, pixels: np.ndarray) -> None:
    folded = fold(settled("separable:0.25/32"))
    even = levelled(folded, pixels)
    assert all(map(np.array_equal, folded.get_weights(), even.get_weights()))


def test_sums_tie_their_channels_together(settled: Any) -> None:
    found = {space.makers: space for space in spaces(fold(settled("mobilenetv2:0.35/32")))}
    tied = found["block_1_project", "block_2_project"]
    assert tied.takers == ("block_2_expand", "block_3_expand")
    assert "block_2_add" in tied.members
    assert not any("Conv_1" in makers for makers in found)  # its channels are the feature's


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.lists(st.integers(0, 5), max_size=4, unique=True))
def test_dead_channels_serve_others_and_the_network_computes_the_same(seed: int, dead: list[int]) -> None:
    model = with_dead(chain(seed=seed), dead)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    again = revived(model, pixels)
    # Half a step of 6 / 255 at a border, seen through two layers.
    assert np.abs(answers(model, pixels) - answers(again, pixels)).max() <= 0.1
    kernel = again.get_layer("maker").get_weights()[0]
    assert np.abs(kernel).sum(axis=(0, 1, 2)).all()  # nobody is idle any more


def test_rounding_costs_less_once_dead_channels_serve() -> None:
    """Only the tensors between are rounded here, as int8 rounds them; the weights stay."""
    lost = []
    for seed in range(8):
        model = with_dead(chain(seed=seed), [1, 3, 4])
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
        lost.append([_lost_by_rounding(each, pixels, model) for each in (model, revived(model, pixels))])
    before, after = np.mean(lost, axis=0)
    assert after < 0.7 * before


def _lost_by_rounding(model: Any, pixels: np.ndarray, whole: Any) -> float:
    values = to_input(pixels, RANGE)
    for layer in model.layers[1:]:
        values = np.asarray(layer(values))
        if layer.name in ("a", "b"):
            values = np.round(values * 255 / 6) * 6 / 255
        if layer.name == "taker":
            break
    wanted = np.asarray(keras.Model(whole.input, whole.get_layer("taker").output)(to_input(pixels, RANGE)))
    return float(np.square(values - wanted)[:, 2:-2, 2:-2].mean())


def test_the_loudest_channel_is_repeated_first_and_again_when_it_stays_the_loudest() -> None:
    assert copies(np.array([9.0, 1.0, 0.0])) == [[0, 2]]
    assert copies(np.array([9.0, 1.0, 0.0, 0.0])) == [[0, 2, 3]]  # 9 / 4 is still above 1
    assert copies(np.array([4.0, 3.0, 0.0, 0.0])) == [[0, 2], [1, 3]]
    assert copies(np.array([1.0, 2.0])) == []
    assert copies(np.zeros(3)) == []


def test_noise_gains_are_what_noise_does_to_a_linear_network() -> None:
    image = keras.Input((6, 6, 4), name="image")
    maps = keras.layers.DepthwiseConv2D(3, name="deep")(keras.layers.Conv2D(5, 1, name="point")(image))
    model = keras.Model(image, keras.layers.Conv2D(3, 2, name="last")(maps))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=each.shape) for each in model.get_weights()])
    plain = np.asarray(model(np.zeros((1, 6, 6, 4), np.float32)))
    for channel, gain in enumerate(noise_gains(model)["image"]):
        noise = np.zeros((3000, 6, 6, 4), np.float32)
        noise[..., channel] = rng.normal(size=noise.shape[:3])
        power = np.square(np.asarray(model(noise)) - plain).sum(axis=-1).mean()
        # A place of the output hears places that overlap: through one weight of each layer exactly this.
        assert 0.2 * gain < power < 5 * gain
