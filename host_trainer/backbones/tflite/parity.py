"""Measures how alike a TFLite file run by LiteRT and the float network made from it answer pictures."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from edge_cl.vision.backbone import Backbone, open_backbone
from edge_cl.vision.extractor import cut_at_embedding
from edge_cl.vision.files import open_plain
from host_trainer.artefacts import write_file
from host_trainer.network import Network, to_input

BATCH = 32  # pictures of 224 px a call: 20 MB of input, some 400 MB of maps in MobileNetV2


class Parity(NamedTuple):
    """How alike the answers are.

    Attributes:
        cosine_min: of the least alike picture, between the file's real-valued output and the network's.
        cosine_mean: over all pictures.
        top1_agreement: fraction of pictures whose best class in the network is the best in the file too (or
            equals it: 8-bit probabilities tie); None for a backbone without a head.
    """

    cosine_min: float
    cosine_mean: float
    top1_agreement: float | None


def parity(path: Path, network: Network, images: NDArray[np.uint8]) -> Parity:
    """Compare a TFLite file with the network that `read_tflite` made from it.

    A classifier that was read as a backbone is cut for this as it was then; a network with its head gets the
    function back (`origin["function"]`) that the file applies to its output.

    Args:
        path: the file.
        network: made from it.
        images: (N, H, W, 3) in the network's size.

    Raises:
        ModelError: the file cannot serve, or the pictures do not fit.
        EngineError: no interpreter works here.
    """
    if images.ndim != 4 or not len(images) or images.shape[1:3] != network.input_size:
        raise ModelError(f"pictures of {images.shape} cannot be shown to {network.name}: give (N, H, W, 3)")
    file = file_outputs(path, network, images)
    ours = network_outputs(network, images)
    if file.shape != ours.shape:
        raise ModelError(f"{path.name} gives {file.shape[1]} values, {network.name} {ours.shape[1]}")
    cosines = row_cosines(file, ours)
    top1 = agreement(file, ours) if network.classes else None
    return Parity(float(cosines.min()), float(cosines.mean()), top1)


def file_outputs(path: Path, network: Network, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what the file gives, as real numbers: (N, H, W, 3) to (N, D)."""
    if network.classes:
        with open_backbone(path, input_range=network.input_range) as backbone:
            return _real_features(backbone, images)
    with tempfile.TemporaryDirectory(prefix="edge-cl-") as folder:
        shorter = Path(folder, "cut.tflite")
        write_file(shorter, _cut(path))
        with open_backbone(shorter, input_range=network.input_range) as backbone:
            return _real_features(backbone, images)


def network_outputs(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what the network gives, after the function its file ends in: (N, H, W, 3) to (N, D)."""
    parts = [
        np.asarray(
            network.model(to_input(images[start : start + BATCH], network.input_range), training=False)
        )
        for start in range(0, len(images), BATCH)
    ]
    return _applied(network.origin.get("function", ""), np.concatenate(parts).astype(np.float64))


def row_cosines(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows, (N, D) twice to (N,); 1 where both are zero, 0 where one is."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    return np.where(both_zero, 1.0, np.einsum("nd,nd->n", left, right) / np.where(lengths > 0, lengths, 1.0))


def agreement(file: NDArray[Any], ours: NDArray[Any]) -> float:
    """Return the fraction of rows where our best column is (one of) the file's best."""
    best = np.take_along_axis(file, ours.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return float(np.mean(best == file.max(axis=1)))


def _real_features(backbone: Backbone, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    stored = backbone.embed_many(images).astype(np.float64)
    return (stored - backbone.space.zero_point) * backbone.space.scale


def _applied(function: str, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    if function == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    if function in {"softmax", "log_softmax"}:
        logs = logits - logits.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        return np.exp(logs) if function == "softmax" else logs
    return logits


def _cut(path: Path) -> bytes:
    file, _ = open_plain(path, ModelError)
    with file:
        return cut_at_embedding(file.read()).data
