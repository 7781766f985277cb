"""Turns stored backbone features into the fixed-point embedding that every statistic is made of."""

import functools

import numpy as np
from numpy.typing import NDArray

# Embeddings are whole numbers in units of 1/4096. A sum of products of whole numbers below 2**53 is exact in
# float64 whatever the order, so statistics can be added, removed and merged without rounding, on any machine.
# 4096 leaves about 7 bits for a typical value (1/sqrt(1024)), one more than an int8 feature holds after the
# root.
UNIT = 4096.0
LEAST_NORM = 1e-300  # a feature of zeros embeds as zeros; UNIT over it is still finite


def embed(features: NDArray, zero_point: int) -> NDArray[np.float64]:
    """Return phi(z): the signed square root, then the L2 norm, as whole numbers of 1/UNIT.

    The norm of the signed root of z is sqrt(sum |z|), so the feature's scale cancels.

    Args:
        features: (..., D) as the backbone stored them.
        zero_point: stored value that stands for zero.

    Returns:
        (..., D) float64 holding integers in [-UNIT, UNIT]; all zeros where a feature is all zeros.
    """
    if features.dtype.itemsize == 1:
        # 256 possible values: their roots are looked up, which is several times faster than worked out.
        roots = _roots(features.dtype, zero_point)[features.view(np.uint8)]
    else:
        roots = _signed_root(features, zero_point)
    norm = np.sqrt(np.einsum("...d,...d->...", roots, roots))[..., None]
    roots *= UNIT / np.maximum(norm, LEAST_NORM)
    return np.rint(roots, out=roots)


@functools.cache
def _roots(dtype: np.dtype, zero_point: int) -> NDArray[np.float64]:
    """Return the signed roots of the 256 values of a one-byte dtype, by their bytes."""
    return _signed_root(np.arange(256, dtype=np.uint8).view(dtype), zero_point)


def _signed_root(features: NDArray, zero_point: int) -> NDArray[np.float64]:
    centred = features.astype(np.float64) - zero_point
    return np.copysign(np.sqrt(np.abs(centred)), centred)
