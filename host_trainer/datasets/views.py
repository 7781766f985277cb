"""Decides which parts of a picture are seen: the whole one first, then crops drawn from its own bytes.

Views are pseudo-data for distillation (in the spirit of MUNGE: Bucila et al. 2006). They depend on the
picture's hash and the seed alone, so what a teacher said of a view stays true wherever the picture lies.
"""

from typing import NamedTuple

import numpy as np

AREA = (0.25, 1.0)  # of a crop, as a fraction of the picture; Szegedy et al. 2015 draw from 0.08
ASPECT = (3 / 4, 4 / 3)  # width to height of a crop, against the picture's own


class View(NamedTuple):
    """A crop as fractions of the picture's sides, and whether it is mirrored."""

    left: float
    top: float
    right: float
    bottom: float
    mirrored: bool


WHOLE = View(0.0, 0.0, 1.0, 1.0, False)


def views_of(image_hash: str, count: int, seed: int = 0) -> list[View]:
    """Return `count` views of the picture with this hash (hexadecimal): the whole, then random crops."""
    return [WHOLE, *(_crop(image_hash, number, seed) for number in range(1, count))][:count]


def _crop(image_hash: str, number: int, seed: int) -> View:
    rng = np.random.default_rng((int(image_hash[:16], 16), number, seed))
    area = rng.uniform(*AREA)
    aspect = np.exp(rng.uniform(*np.log(ASPECT)))
    width, height = min(1.0, np.sqrt(area * aspect)), min(1.0, np.sqrt(area / aspect))
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return View(left, top, left + width, top + height, bool(rng.random() < 0.5))
