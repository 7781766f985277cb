"""Draws a folded network anew so that it loses least by eight bits, before any of it is rounded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.quantisation.levelling import levelled
from host_trainer.quantisation.merging import merged
from host_trainer.quantisation.revival import revived


def prepared(folded: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float] = (-1.0, 1.0)) -> Any:
    """Return a network that computes the same with fewer, finer and fuller tensors.

    Args:
        folded: functional network without batch normalisation.
        pixels: (N, H, W, 3) uint8 pictures like those it will see, all there are: what is dead or narrow on
            them is counted on.
        input_range: what pixel values 0 and 255 become.
    """
    return levelled(revived(merged(folded), pixels, input_range), pixels, input_range)
