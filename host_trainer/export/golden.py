"""Keeps what an exported file answered to real pictures, so that any machine can prove it answers alike.

`golden.safetensors` holds `inputs` (N, H, W, 3) uint8 and `outputs` (N, D) as the file stores them. Its
metadata names the file by sha256, and the kernels; other kernels differ by a few units (docs/adr/0001).
"""

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import MismatchError, ProtocolError
from edge_cl.evaluation.agreement import Agreement, agreement
from edge_cl.vision.backbone import Backbone
from edge_cl.wire.tensors import check_schema, pack, unpack

FILE = "golden.safetensors"
COUNT = 64  # pictures; 1.8 MB at 96 px


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
    return agreement(
        tensors["outputs"], backbone.embed_many(tensors["inputs"]), space.scale, space.zero_point
    )
