"""Products and inverses of (D, D) matrices within the memory of a board: in place, and strip by strip.

A matrix of full size beside those that stay is what the learner's peak memory would be made of.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

SKETCH = 256  # directions that estimate a distance
SKETCH_COLUMNS = 32  # of those worked out at once
STRIP_ROWS = 256  # rows of a (D, D) matrix that are worked on at once ...
SQUARED_ROWS = 64  # ... and where memory is at its fullest
SMALLEST_HALF = 128  # rows below which a matrix is inverted in one go


def sketch(root: Floats) -> NDArray[np.float32]:
    """Return (D, SKETCH) S with S S' about root' root; always the same signs."""
    rng, found = np.random.default_rng(0), np.empty((len(root), SKETCH), np.float32)
    for start in range(0, SKETCH, SKETCH_COLUMNS):  # in strips: at this moment memory is at its fullest
        signs = rng.choice([-1.0, 1.0], size=(len(root), SKETCH_COLUMNS))
        strip = signs.T @ root  # root' @ signs takes twice as long
        found[:, start : start + SKETCH_COLUMNS] = strip.T / np.sqrt(SKETCH)
    return found


def add_product(matrix: NDArray[Any], left: NDArray[Any], right: NDArray[Any]) -> None:
    """Add left @ right to a (D, D) matrix, in strips: a product of full size would stand beside it."""
    for start in range(0, len(matrix), STRIP_ROWS):
        strip = slice(start, start + STRIP_ROWS)
        matrix[strip] += left[strip] @ right


def to_square(root: Floats) -> Singles:
    """Turn a lower triangular (D, D) matrix R into R' R in single precision, within the memory of R.

    A strip of rows of the square needs R from its own first row down, so it can be written over those
    above the next strip; what is left over goes back to the system.
    """
    size = len(root)
    written = root.reshape(-1).view(np.float32)
    for start in range(0, size, SQUARED_ROWS):
        end = min(start + SQUARED_ROWS, size)
        strip = root[start:, start:end].T @ root[start:]
        written[start * size : end * size] = strip.reshape(-1)
    del written
    return _first_half(root)


def to_single(matrix: Floats) -> Singles:
    """Turn a (D, D) matrix into single precision within its own memory."""
    size = len(matrix)
    written = matrix.reshape(-1).view(np.float32)
    for start in range(0, size, SQUARED_ROWS):  # what is written lies above what is yet to be read
        end = min(start + SQUARED_ROWS, size)
        written[start * size : end * size] = matrix[start:end].astype(np.float32).reshape(-1)
    del written
    return _first_half(matrix)


def _first_half(matrix: Floats) -> Singles:
    """Return the single-precision (D, D) matrix written over one in double; the rest is given back."""
    size = len(matrix)
    matrix.resize((size * size + 1) // 2, refcheck=False)  # nobody looks at it any more
    return matrix.view(np.float32)[: size * size].reshape(size, size)


def whitened(rows: Singles, root: Singles) -> Singles:
    """Return rows root' (n, D) of a lower triangular root: five eighths of the full product at D = 1024."""
    found = np.empty_like(rows)
    for start in range(0, len(root), STRIP_ROWS):
        strip = slice(start, start + STRIP_ROWS)
        found[:, strip] = rows[:, : strip.stop] @ root[strip, : strip.stop].T
    return found


def to_inverse_root(matrix: NDArray[Any]) -> None:
    """Turn a symmetric positive definite (D, D) matrix L L' into L^-1, in place, by halves and strips.

    numpy's inverse holds four matrices of this size at its height; on a board that is what the learner's peak
    memory would be made of.
    """
    half = len(matrix) // 2
    if half < SMALLEST_HALF:
        matrix[:] = np.tril(np.linalg.inv(np.linalg.cholesky(matrix)))
        return
    first, corner, last = matrix[:half, :half], matrix[half:, :half], matrix[half:, half:]
    to_inverse_root(first)
    strips = [slice(start, start + SQUARED_ROWS) for start in range(0, len(last), SQUARED_ROWS)]
    for rows in strips:
        corner[rows] = corner[rows] @ first.T
    for rows in strips:
        last[rows] -= corner[rows] @ corner.T
    to_inverse_root(last)
    for rows in reversed(strips):  # upwards: each needs the rows above it as they were
        corner[rows] = -(last[rows, : rows.stop] @ corner[: rows.stop]) @ first
    matrix[:half, half:] = 0.0
