"""Keeps what an exported file answered to real pictures, so that any machine can prove it answers alike.

`golden.safetensors` holds `inputs` (N, H, W, 3) uint8 and `outputs` (N, D) as the file stores them. Its
metadata names the file by sha256, and the kernels; other kernels differ by a few units (docs/adr/0001).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import MismatchError, ProtocolError
from edge_cl.vision.backbone import Backbone
from edge_cl.wire.tensors import check_schema, pack, unpack

FILE = "golden.safetensors"
COUNT = 64  # pictures; 1.8 MB at 96 px


class Agreement(NamedTuple):
    """How a machine's answers compare with the golden ones.

    Attributes:
        equal: fraction of values that are the same.
        steps: largest difference in stored units; in real units for float features.
        cosine_min: of the worst picture, in real units.
    """

    equal: float
    steps: float
    cosine_min: float


def record(backbone: Backbone, pixels: NDArray[np.uint8]) -> bytes:
    """Run the pictures, (N, H, W, 3) uint8, and return them with the answers as a golden file."""
    outputs = backbone.embed_many(pixels)
    facts = {"sha256": backbone.manifest().sha256, "kernels": backbone.kernels, "space": backbone.space.id}
    return pack({"inputs": pixels, "outputs": outputs}, facts)


def compare(data: bytes, backbone: Backbone) -> Agreement:
    """Run a golden file's pictures again and compare.

    Raises:
        MismatchError: the golden file belongs to another model file.
        ProtocolError: it is no golden file.
    """
    tensors, facts = unpack(data)
    space = backbone.space
    check_schema(
        tensors,
        {
            "inputs": ("uint8", (None, *backbone.input_size, 3)),
            "outputs": (space.dtype, (None, space.size)),
        },
    )
    if facts.get("sha256") != backbone.manifest().sha256:
        raise MismatchError("these golden answers are of another model file: export the model again")
    if not len(tensors["inputs"]) == len(tensors["outputs"]) > 0:
        raise ProtocolError("a golden file needs as many answers as pictures, and at least one")
    return _agreement(
        tensors["outputs"], backbone.embed_many(tensors["inputs"]), space.scale, space.zero_point
    )


def _agreement(expected: NDArray, found: NDArray, scale: float, zero_point: int) -> Agreement:
    first, second = expected.astype(np.float64), found.astype(np.float64)
    return Agreement(
        float((expected == found).mean()),
        float(np.abs(first - second).max()),
        float(cosines((first - zero_point) * scale, (second - zero_point) * scale).min()),
    )


def cosines(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Return the cosine of each row with its twin: (N, D), (N, D) to (N,); 1 where both are zero."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(axis=1)
    both_empty = ~first.any(axis=1) & ~second.any(axis=1)
    return np.where(both_empty, 1.0, products / np.where(lengths > 0, lengths, 1.0))
