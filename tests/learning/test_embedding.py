"""The embedding is what its formula says, in whole numbers, whatever the stored dtype."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_cl.learning.embedding import UNIT, embed

SIZE = 24
KEPT = [np.int8, np.uint8, np.float32]


def formula(features, zero_point):
    """Return the embedding of one feature, written out value by value."""
    roots = [np.sign(z - zero_point) * abs(float(z) - zero_point) ** 0.5 for z in features.tolist()]
    norm = sum(root**2 for root in roots) ** 0.5
    return np.array([round(UNIT * root / norm) if norm else 0 for root in roots], float)


@st.composite
def stored(draw):
    """Draw features (3, SIZE) of any stored dtype, and a zero point."""
    dtype = draw(st.sampled_from(KEPT))
    if dtype is np.float32:
        values = st.floats(-100, 100, width=32)
        return draw(arrays.arrays(dtype, (3, SIZE), elements=values)), 0
    limits = np.iinfo(dtype)
    return draw(arrays.arrays(dtype, (3, SIZE))), draw(st.integers(int(limits.min), int(limits.max)))


@given(stored())
def test_every_value_is_a_whole_number_within_one_unit(case):
    rows = embed(*case)
    assert rows.dtype == np.float64
    assert np.array_equal(rows, np.rint(rows))
    assert np.abs(rows).max() <= UNIT


@given(stored())
def test_the_embedding_follows_the_formula_in_every_dtype(case):
    features, zero_point = case
    # A value on the very edge between two whole numbers may fall on either side of it.
    assert np.abs(embed(features, zero_point) - [formula(f, zero_point) for f in features]).max() <= 1


@given(arrays.arrays(np.int8, (4, SIZE)), st.integers(-128, 127))
def test_the_same_numbers_embed_alike_as_int8_uint8_and_float(features, zero_point):
    wide = features.astype(np.int16)
    expected = embed(features, zero_point)
    assert np.array_equal(embed((wide + 128).astype(np.uint8), zero_point + 128), expected)
    assert np.array_equal(embed(wide.astype(np.float32), zero_point), expected)


@given(arrays.arrays(np.int8, SIZE, elements=st.integers(-40, 40)), st.sampled_from([2, 3]))
def test_the_scale_of_a_feature_does_not_matter(features, factor):
    assert np.abs(embed(features, 0) - embed((features * factor).astype(np.int8), 0)).max() <= 1


@given(arrays.arrays(np.float32, SIZE, elements=st.floats(-9, 9, width=32)), st.floats(0.01, 1000.0))
def test_the_scale_of_a_float_feature_does_not_matter(features, factor):
    tiny = np.where(np.abs(features) < 1e-3, 0, features)  # a product that underflows is another feature
    scaled = tiny.astype(np.float64) * factor
    assert np.abs(embed(tiny, 0) - embed(scaled, 0)).max() <= 1


@pytest.mark.parametrize("dtype", KEPT)
def test_a_feature_of_zeros_embeds_to_zeros(dtype):
    assert not embed(np.full((2, SIZE), 7, dtype), 7).any()


def test_a_feature_has_length_one_up_to_rounding():
    features = np.random.default_rng(0).integers(-128, 128, (50, 1024)).astype(np.int8)
    lengths = np.linalg.norm(embed(features, -128), axis=1) / UNIT
    assert np.abs(lengths - 1).max() < 1e-3


def test_any_leading_shape_and_any_layout_are_embedded_row_by_row():
    features = np.random.default_rng(0).integers(-128, 128, (3, 4, SIZE)).astype(np.int8)
    rows = embed(features, -5)
    assert rows.shape == features.shape
    assert np.array_equal(rows[1, 2], embed(features[1, 2], -5))
    assert np.array_equal(embed(features[::2, ::-1], -5), rows[::2, ::-1])


@pytest.mark.parametrize("dtype", KEPT)
def test_embedding_leaves_its_input_alone(dtype):
    features = np.arange(SIZE).astype(dtype)
    embed(features, 3)
    assert np.array_equal(features, np.arange(SIZE))
