"""Writes a Keras network as ONNX files for TensorRT, and measures each against the network by onnxruntime.

A Jetson builds its engine on the board from such a file (docs/adr/0006): fp16 for a Jetson Nano, which has no
int8, symmetric int8 for Xavier and Orin.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, ModelError
from edge_cl.vision.backbone import Manifest
from edge_cl.vision.preprocess import Resize
from host_trainer.artefacts import make_folder, write_file
from host_trainer.export.boards import DEFAULT_BOARD, choose_board
from host_trainer.export.onnx_graph import FLOAT16_MAX, IMAGE, OPSET, translate
from host_trainer.export.onnxruntime_session import open_session
from host_trainer.export.qdq import quantise
from host_trainer.export.tensorrt_rules import Breach, check_rules
from host_trainer.network import to_input
from host_trainer.quantisation.compensation import compensated
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.preparation import prepared

STEM = "backbone"
PRECISIONS = ("fp32", "fp16")
INPUT_RANGE = (-1.0, 1.0)
DRAWN_IMAGES = 16  # noise to compare on where no pictures are given
KERAS_BATCH = 16  # its features of 16 pictures at 224 px take 200 MB on the way
MAX_COMPARED = 64  # pictures; comparing more tells nothing new and costs seconds


class OnnxArtefact(NamedTuple):
    """An ONNX file, and how close onnxruntime's answers are to the Keras network's.

    Attributes:
        path: of the file; its manifest lies beside it as `.json`.
        precision: `fp32`, `fp16` or `int8`.
        opset: of ONNX.
        sha256: of the file, hex.
        size_bytes: of the file.
        images: how many were compared.
        cosine_min: of the features, worst image.
        cosine_mean: of the features.
        max_difference: largest absolute difference of one value.
        largest_activation: largest absolute value inside the fp32 network; 65504 is the end of fp16.
        breaches: what TensorRT is known to refuse or to do badly with; empty when it is clean.
    """

    path: Path
    precision: str
    opset: int
    sha256: str
    size_bytes: int
    images: int
    cosine_min: float
    cosine_mean: float
    max_difference: float
    largest_activation: float
    breaches: tuple[Breach, ...]


class Likeness(NamedTuple):
    """How alike two sets of features are; cosines in [-1, 1]."""

    cosine_min: float
    cosine_mean: float
    max_difference: float


def export_onnx(
    model: Any, out_dir: Path, precision: str = "fp32", images: NDArray[Any] | None = None
) -> OnnxArtefact:
    """Write `backbone_<precision>.onnx` and its manifest, and compare it with the network.

    onnxruntime's CPU computes an fp16 graph with fp16 numbers between operations but float32 inside them: the
    figures show what rounding does, not what a GPU's own sums do.

    Arguments:
        model: functional Keras network, `image` (B, H, W, 3) float32 in [-1, 1] to (B, D).
        out_dir: made if it is not there.
        precision: `fp32` or `fp16`.
        images: (N, H, W, 3) uint8 pictures, or float32 in [-1, 1]; noise is drawn where there are none.

    Raises:
        ConfigError: another precision; pictures of another size.
        ModelError: a layer without a translation, or values that do not fit fp16.
        StoreError: the folder cannot be written.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r}: give {' or '.join(PRECISIONS)}; int8 needs pictures")
    pictures = _pictures(model, images)
    largest = largest_activation(translate(model), pictures[:DRAWN_IMAGES])
    if precision == "fp16" and not largest <= FLOAT16_MAX:
        raise ModelError(f"activations reach {largest:.3g}, fp16 ends at {FLOAT16_MAX:g}: export fp32")
    return _artefact(model, translate(model, precision), Path(out_dir), precision, pictures, largest)


def export_tensorrt(
    model: Any,
    representative: NDArray[Any],
    out_dir: Path,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    board: str = DEFAULT_BOARD,
) -> OnnxArtefact:
    """Write the ONNX file from which a board builds its TensorRT engine, in the precision that suits it.

    Arguments:
        model: functional Keras network, `image` (B, H, W, 3) float32 in [-1, 1] to (B, D).
        representative: (N, H, W, 3) uint8 pictures: they give the int8 ranges and are compared on.
        out_dir: made if it is not there.
        ranges: (min, max) of layers' outputs by layer name, as quantisation-aware training found them; taken
            instead of those of the pictures. Without them, the network is drawn anew and its weights are
            rounded as for TFLite (`quantisation.preparation`, `quantisation.compensation`).
        board: a name that `boards.choose_board` knows.

    Raises:
        ConfigError: an unknown board or layer; too few pictures, or pictures of another size or type.
        ModelError: a layer without a translation, values that do not fit fp16, or a rule of TensorRT broken.
        StoreError: the folder cannot be written.
    """
    precision = choose_board(board).precision
    if precision in PRECISIONS:
        return export_onnx(model, out_dir, precision, representative)
    if representative.dtype != np.uint8:
        raise ConfigError(f"pictures are {representative.dtype}: give bytes, uint8, for the int8 of {board}")
    _check_names(model, ranges or {})
    pictures = _pictures(model, representative)
    calibration = _pictures(model, representative, len(representative))
    # A quantisation-aware training has done both already, and settled what came of it.
    drawn = model if ranges else compensated(prepared(fold(model), representative), representative)
    quantised = quantise(translate(drawn), calibration, ranges)
    largest = largest_activation(translate(model), pictures[:DRAWN_IMAGES])
    return _artefact(model, quantised, Path(out_dir), precision, pictures, largest)


def run_onnx(data: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first output of an ONNX file for each image: (N, H, W, 3) float32 to (N, D)."""
    session = open_session(data)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[np.newaxis]})[0] for image in images])


def likeness(expected: NDArray[Any], found: NDArray[Any]) -> Likeness:
    """Compare features row by row: (N, D), (N, D); a row of zeros is like another one only."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    products = np.einsum("nd,nd->n", expected, found, dtype=np.float64)
    both_zero = ~expected.any(axis=1) & ~found.any(axis=1)
    cosines = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), both_zero)
    return Likeness(float(cosines.min()), float(cosines.mean()), float(np.abs(expected - found).max()))


def largest_activation(graph: Any, images: NDArray[np.float32]) -> float:
    """Return the largest absolute value of any tensor inside an fp32 graph, over the images."""
    import onnx

    seen = onnx.ModelProto()
    seen.CopyFrom(graph)
    names = [info.name for info in seen.graph.value_info]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(seen.SerializeToString())
    peaks = [
        max(np.abs(values).max(initial=0) for values in session.run(None, {IMAGE: image[np.newaxis]}))
        for image in images
    ]
    return float(max(peaks))


def _check_names(model: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    unknown = sorted(set(ranges) - {layer.name for layer in model.layers})
    if unknown:
        raise ConfigError(f"a range is given for layer {unknown[0]!r}, which this network does not have")


def _artefact(
    model: Any, graph: Any, out_dir: Path, precision: str, pictures: NDArray[np.float32], largest: float
) -> OnnxArtefact:
    data = graph.SerializeToString(deterministic=True)
    breaches = check_rules(graph)
    fatal = [breach for breach in breaches if breach.is_fatal]
    if fatal:
        raise ModelError(f"TensorRT would refuse this {precision} graph: {fatal[0].text}")
    expected = _keras_features(model, pictures)
    alike = likeness(expected, run_onnx(data, pictures))
    path = make_folder(out_dir) / f"{STEM}_{precision}.onnx"
    digest = hashlib.sha256(data).hexdigest()
    write_file(path, data)
    write_file(path.with_suffix(".json"), _manifest(digest, model, expected.shape[1]).to_json().encode())
    return OnnxArtefact(
        path, precision, OPSET, digest, len(data), len(pictures), *alike, largest, tuple(breaches)
    )  # fmt: skip


def _manifest(digest: str, model: Any, feature_size: int) -> Manifest:
    height, width = (int(size) for size in model.input.shape[1:3])
    return Manifest(
        sha256=digest,
        input_size=(height, width),
        input_range=INPUT_RANGE,
        resize=Resize.SQUASH,
        feature_size=feature_size,
        feature_dtype="float32",
        feature_scale=1.0,
        feature_zero_point=0,
        format="onnx",
    )


def _keras_features(model: Any, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    batches = range(0, len(pictures), KERAS_BATCH)
    return np.concatenate([np.asarray(model(pictures[i : i + KERAS_BATCH], training=False)) for i in batches])


def _pictures(model: Any, images: NDArray[Any] | None, count: int = MAX_COMPARED) -> NDArray[np.float32]:
    """Return at most `count` pictures as the network takes them."""
    shape = tuple(int(size) for size in model.input.shape[1:])
    if images is None:
        rng = np.random.default_rng(DRAWN_IMAGES)
        return rng.uniform(*INPUT_RANGE, (DRAWN_IMAGES, *shape)).astype(np.float32)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ConfigError(f"pictures are {images.shape}, the network takes (N, {shape[0]}, {shape[1]}, 3)")
    chosen = images[:: max(1, len(images) // count)][:count]
    if chosen.dtype == np.uint8:
        return np.asarray(to_input(chosen, INPUT_RANGE), np.float32)
    return np.asarray(chosen, np.float32)
