"""The resize policies and the views give the shapes and pixels that they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_cl.vision.preprocess import MAX_VIEWS, Resize, prepare, views

SIDES = st.integers(1, 90)


def gradient(width: int, height: int) -> Image.Image:
    """A picture whose red grows to the right, whose green grows downwards, and whose blue is full."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, np.newaxis]
    return Image.fromarray(pixels)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(Resize))
def test_any_picture_takes_the_asked_shape(
    width: int, height: int, rows: int, columns: int, policy: Resize
) -> None:
    pixels = prepare(gradient(width, height), (rows, columns), policy)
    assert pixels.shape == (rows, columns, 3) and pixels.dtype == np.uint8


@given(SIDES, SIDES, st.integers(1, MAX_VIEWS), st.sampled_from(Resize), st.booleans())
def test_views_begin_with_the_whole_and_fewer_views_are_a_beginning_of_more(
    width: int, height: int, count: int, policy: Resize, mirror: bool
) -> None:
    image = gradient(width, height)
    seen = views(image, count, (24, 32), policy, mirror)
    assert seen.shape == (count, 24, 32, 3) and seen.dtype == np.uint8
    assert np.array_equal(seen[0], prepare(image, (24, 32), policy))
    assert np.array_equal(seen, views(image, MAX_VIEWS, (24, 32), policy, mirror)[:count])


def test_squash_is_pillows_bilinear_resize_of_the_whole() -> None:
    image = gradient(300, 200)
    direct = image.resize((96, 64), Image.Resampling.BILINEAR, box=(0, 0, 300, 200))
    assert np.array_equal(prepare(image, (64, 96), Resize.SQUASH), np.asarray(direct))


def test_crop_keeps_proportions_and_the_middle() -> None:
    image = gradient(300, 100)
    direct = image.resize((50, 50), Image.Resampling.BILINEAR, box=(100, 0, 200, 100))
    assert np.array_equal(prepare(image, (50, 50), Resize.CROP), np.asarray(direct))


def test_pad_keeps_every_pixel_and_fills_with_black() -> None:
    pixels = prepare(gradient(100, 50), (100, 100), Resize.PAD)
    assert not pixels[:25].any() and not pixels[75:].any()
    assert np.array_equal(pixels[25:75], np.asarray(gradient(100, 50)))


def test_the_second_view_is_the_mirror_and_the_others_are_centre_crops() -> None:
    image = gradient(160, 80)
    whole, mirrored, crop, tighter = views(image, 4, (40, 80), mirror=True)
    assert np.array_equal(mirrored, whole[:, ::-1])
    for view, fraction in ((crop, 0.875), (tighter, 0.75)):
        margin_x, margin_y = 160 * (1 - fraction) / 2, 80 * (1 - fraction) / 2
        box = (margin_x, margin_y, 160 - margin_x, 80 - margin_y)
        assert np.array_equal(view, np.asarray(image.resize((80, 40), Image.Resampling.BILINEAR, box=box)))


def test_without_mirroring_no_view_is_turned_round() -> None:
    seen = views(gradient(160, 80), 4, (40, 80), mirror=False)
    assert all(view[0, 0, 0] < view[0, -1, 0] for view in seen)
    widths = [int(view[0, -1, 0]) - int(view[0, 0, 0]) for view in seen]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 4


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_of_views_outside_one_to_four_is_misuse(count: int) -> None:
    with pytest.raises(ValueError, match="count"):
        views(gradient(8, 8), count, (4, 4))
