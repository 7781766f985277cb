"""Makes many domains of one data set: pictures turned, or their pixels rearranged, as a seed says.

Rotated MNIST (Lopez-Paz and Ranzato 2017) and permuted MNIST (Kirkpatrick et al. 2017); every task has a turn
or an order of its own, the first one too, as in mammoth (Buzzega et al. 2020).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Transform = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # (N, H, W, 3) -> the same shape

MOST_TURN = 180.0  # degrees


def unchanged(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures as they are."""
    return values


def turn_of(task: int, seed: int) -> float:
    """Return the degrees in [0, 180) by which a task turns its pictures."""
    return float(np.random.default_rng((seed, task)).uniform(0, MOST_TURN))


def rotated(values: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn pictures (N, H, W, 3) against the clock; corners become black.

    The nearest pixel is taken, as the published figures were made.
    """
    turned = np.empty(values.shape, np.uint8)
    for number, picture in enumerate(values):
        image = Image.fromarray(np.ascontiguousarray(picture))
        turned[number] = np.asarray(image.rotate(degrees, Image.Resampling.NEAREST))
    return turned


def permuted(values: NDArray[np.uint8], task: int, seed: int) -> NDArray[np.uint8]:
    """Rearrange the pixels of pictures (N, H, W, 3), all alike; a pixel keeps its three values."""
    count, height, width, channels = values.shape
    order = np.random.default_rng((seed, task)).permutation(height * width)
    return values.reshape(count, height * width, channels)[:, order].reshape(values.shape)
