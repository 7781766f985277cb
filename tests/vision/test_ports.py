"""Inputs and outputs that can serve a backbone, and the way of a pixel value into its input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ModelError
from edge_cl.vision.ports import (
    MAX_FEATURE_SIZE,
    Port,
    choose_input_range,
    feature_port,
    image_port,
    pixel_table,
    quantise,
)


def port(
    shape: tuple[int, ...] = (1, 32, 32, 3),
    dtype: str = "uint8",
    scale: float | None = 1 / 128,
    zero_point: int = 128,
    signature: tuple[int, ...] | None = None,
) -> Port:
    return Port("x", shape, signature or shape, dtype, () if scale is None else (scale,), zero_point)


MOBILENET = port()


def test_mobilenets_uint8_input_takes_the_pixels_as_they_are() -> None:
    input_range, assumption = choose_input_range(MOBILENET)
    assert input_range == (-1.0, 1.0) and assumption == ""
    assert pixel_table(MOBILENET, input_range).tolist() == list(range(256))


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "expected"),
    [
        ("uint8", 0.0078125, 128, (-1.0, 1.0)),
        ("uint8", 0.00784314, 127, (-1.0, 1.0)),
        ("int8", 2 / 255, -1, (-1.0, 1.0)),
        ("int8", 1 / 255, -128, (0.0, 1.0)),
        ("uint8", 1 / 255, 0, (0.0, 1.0)),
        ("int8", 1.0, -128, (0.0, 255.0)),
        ("uint8", 1.0, 0, (0.0, 255.0)),
    ],
)
def test_usual_quantisations_are_recognised_and_keep_bytes_as_bytes(
    dtype: str, scale: float, zero_point: int, expected: tuple[float, float]
) -> None:
    image = port(dtype=dtype, scale=scale, zero_point=zero_point)
    input_range, assumption = choose_input_range(image)
    assert input_range == expected and assumption == ""
    lowest = np.iinfo(dtype).min
    assert pixel_table(image, input_range).tolist() == list(range(lowest, lowest + 256))


def test_an_unusual_range_is_spread_over_and_said() -> None:
    imagenet = port(scale=(2.64 + 2.118) / 255, zero_point=114)
    input_range, assumption = choose_input_range(imagenet)
    assert "unusual input range -2.1" in assumption
    assert pixel_table(imagenet, input_range).tolist() == list(range(256))


def test_a_float_input_is_assumed_and_said_unless_asked() -> None:
    image = port(dtype="float32", scale=None)
    assert choose_input_range(image)[0] == (-1.0, 1.0) and "float input" in choose_input_range(image)[1]
    assert choose_input_range(image, (0.0, 1.0)) == ((0.0, 1.0), "")
    assert np.allclose(pixel_table(image, (0.0, 1.0)), np.arange(256) / 255)


@given(
    st.sampled_from(["int8", "uint8"]),
    st.floats(1e-4, 10.0),
    st.integers(0, 255),
    st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-2.0, 3.0)]),
)
def test_the_table_is_the_quantisation_formula_to_one_step(
    dtype: str, scale: float, shift: int, input_range: tuple[float, float]
) -> None:
    limits = np.iinfo(dtype)
    image = port(dtype=dtype, scale=scale, zero_point=shift + limits.min)
    table = pixel_table(image, input_range).astype(int)
    real = input_range[0] + (input_range[1] - input_range[0]) * np.arange(256) / 255
    exact = np.clip(real / scale + image.zero_point, limits.min, limits.max)
    assert table.dtype == int and np.abs(table - exact).max() <= 1.5
    assert (np.diff(table) >= 0).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "uint8", "float32"]))
def test_quantising_looks_every_pixel_up(seed: int, dtype: str) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(-128 if dtype == "int8" else 0, 127, 256).astype(dtype)
    pixels = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(quantise(pixels, table), table[pixels])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "0 inputs"),
        ((port(), port(), port()), "3 inputs"),
        ((port((1, 3)),), "not an RGB picture"),
        ((port((1, 32, 32, 1)),), "not an RGB picture"),
        ((port((1, 3, 32, 32)),), "not an RGB picture"),
        ((port((1, 1, 1, 3), signature=(1, -1, -1, 3)),), "leaves its picture size open"),
        ((port((8, 32, 32, 3)),), "fixed batch of 8"),
        ((port((1, 4096, 4096, 3)),), "too large"),
        ((port(dtype="int16"),), "input of int16"),
        ((port(scale=None),), "does not say how its input is quantised"),
        ((port(scale=0.0),), "does not say how its input is quantised"),
        ((port(scale=float("nan")),), "does not say how its input is quantised"),
    ],
)
def test_inputs_that_take_no_picture_are_refused(inputs: tuple[Port, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words) as refusal:
        image_port(inputs, "odd.tflite")
    assert str(refusal.value).startswith("odd.tflite ") and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((port((1, 9)), port((1, 9))), "2 outputs"),
        ((port((1, 7, 7, 1280)),), "not a feature of 2 to"),
        ((port((1, MAX_FEATURE_SIZE + 1)),), "not a feature"),
        ((port((1, 1)),), "not a feature"),
        ((port(()),), "not a feature"),
        ((port((4, 9)),), "not a feature"),
        ((port((1, 9), dtype="int32"),), "output of int32"),
        ((Port("x", (1, 9), (1, 9), "int8", (0.1, 0.2), 0),), "does not say how its output"),
    ],
)
def test_outputs_that_give_no_feature_are_refused(outputs: tuple[Port, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        feature_port(outputs, "odd.tflite")
