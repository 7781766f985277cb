"""Decides which pixels of a picture a backbone sees: the resize policy and the views."""

from enum import Enum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the picture

# Fractions of both sides that the views keep. Where a mirrored picture means the same thing, the mirror
# is the second view and three crops are enough; where it does not, a tighter crop takes its place.
CROPS_WITH_MIRROR = (1.0, 0.875, 0.75)
CROPS_WITHOUT_MIRROR = (1.0, 0.875, 0.75, 0.65)
MAX_VIEWS = 4


class Resize(str, Enum):
    """How a picture of any shape becomes the shape that the backbone takes.

    Attributes:
        SQUASH: stretch to fit; every pixel is seen, proportions change.
        CROP: keep proportions, lose what sticks out of the centre.
        PAD: keep proportions and every pixel, fill the rest with black.
    """

    SQUASH = "squash"
    CROP = "crop"
    PAD = "pad"


def prepare(image: Image.Image, size: tuple[int, int], policy: Resize = Resize.SQUASH) -> NDArray[np.uint8]:
    """Return the whole picture as the backbone takes it: (H, W, 3) uint8, with `size` = (H, W)."""
    return _fit(image, (0.0, 0.0, float(image.width), float(image.height)), size, policy)


def views(
    image: Image.Image, count: int, size: tuple[int, int], policy: Resize = Resize.SQUASH, mirror: bool = True
) -> NDArray[np.uint8]:
    """Return the first `count` views of a picture: (V, H, W, 3) uint8, with `size` = (H, W).

    With `mirror`: whole, mirrored, centre crops of 0.875 and 0.75 of each side. Without (pictures whose
    left and right differ in meaning): whole, centre crops of 0.875, 0.75 and 0.65.
    """
    if not 1 <= count <= MAX_VIEWS:
        raise ValueError(f"views: count must be 1..{MAX_VIEWS}, not {count}")
    crops = CROPS_WITH_MIRROR if mirror else CROPS_WITHOUT_MIRROR
    needed = max(1, count - 1) if mirror else count
    seen = [_fit(image, _centre(image, fraction), size, policy) for fraction in crops[:needed]]
    if mirror:
        seen.insert(1, seen[0][:, ::-1])
    return np.stack(seen[:count])


def _centre(image: Image.Image, fraction: float) -> Box:
    """Return the box in the middle that keeps `fraction` of each side."""
    margin_x, margin_y = image.width * (1 - fraction) / 2, image.height * (1 - fraction) / 2
    return (margin_x, margin_y, image.width - margin_x, image.height - margin_y)


def _fit(image: Image.Image, box: Box, size: tuple[int, int], policy: Resize) -> NDArray[np.uint8]:
    if policy is Resize.PAD:
        return _padded(image, box, size)
    if policy is Resize.CROP:
        box = _narrowed(box, size)
    return _scaled(image, box, size)


def _scaled(image: Image.Image, box: Box, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _narrowed(box: Box, size: tuple[int, int]) -> Box:
    """Return the largest centred part of `box` with the proportions of `size`."""
    left, top, right, bottom = box
    scale = min((right - left) / size[1], (bottom - top) / size[0])
    margin_x, margin_y = (right - left - size[1] * scale) / 2, (bottom - top - size[0] * scale) / 2
    # Rounding may push an edge out of the box by one part in 10^16; Pillow refuses that.
    return (
        left + max(0.0, margin_x),
        top + max(0.0, margin_y),
        right - max(0.0, margin_x),
        bottom - max(0.0, margin_y),
    )


def _padded(image: Image.Image, box: Box, size: tuple[int, int]) -> NDArray[np.uint8]:
    left, top, right, bottom = box
    scale = min(size[1] / (right - left), size[0] / (bottom - top))
    height = min(size[0], max(1, round((bottom - top) * scale)))
    width = min(size[1], max(1, round((right - left) * scale)))
    canvas = np.zeros((*size, 3), np.uint8)
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[y : y + height, x : x + width] = _scaled(image, box, (height, width))
    return canvas
