"""Turns a Keras network into a TFLite file of a named precision; the same network gives the same bytes.

By the one route that gives a static batch of 1 and can be kept quiet: an `ExportArchive` with the batch in
its signature, a SavedModel, TensorFlow's converter. Needs the TensorFlow backend; the network may have been
trained under another.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, EngineError, ModelError, StoreError
from edge_cl.vision.chatter import native_chatter_held
from edge_cl.vision.files import one_line
from host_trainer.network import to_input
from host_trainer.quantisation.compensation import compensated
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.preparation import prepared
from host_trainer.quantisation.qat import exportable

MIN_REPRESENTATIVE = 8  # pictures; ranges from fewer are those of single pictures


class Scheme(str, Enum):
    """How numbers are kept in the file.

    Attributes:
        FLOAT: float32 weights and arithmetic.
        FLOAT16: float16 weights, float32 arithmetic: half the size.
        DYNAMIC: int8 weights, float32 input and output, activations quantised at run time.
        PTQ: int8 throughout; weights rounded with compensation, and ranges, on representative pictures.
        QAT: int8 throughout, ranges from the fake-quant layers that `quantisation.qat.wrap` put in.
    """

    FLOAT = "float"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    PTQ = "ptq"
    QAT = "qat"


def convert(
    model: Any,
    scheme: Scheme | str = Scheme.PTQ,
    representative: NDArray[np.uint8] | None = None,
    input_range: tuple[float, float] = (-1.0, 1.0),
) -> bytes:
    """Return the network as a TFLite file with a batch of 1.

    Args:
        model: functional Keras network, (B, H, W, 3) float32 to (B, D); for QAT one made by `qat.wrap`.
        scheme: the precision.
        representative: (N, H, W, 3) uint8 pictures, for PTQ only.
        input_range: what pixel values 0 and 255 become at the input.

    Raises:
        ConfigError: PTQ without enough pictures, or pictures of another size.
        ModelError: a network that cannot be folded or converted.
        EngineError: another Keras backend than TensorFlow.
        StoreError: no room for temporary files.
    """
    scheme = Scheme(scheme)
    _check_backend()
    pictures = _checked(representative, model) if scheme is Scheme.PTQ else None
    drawn = _drawn(model, scheme, pictures, input_range)
    with tempfile.TemporaryDirectory(prefix="host-trainer-") as folder, _quiet():
        try:
            return _converted(drawn, scheme, Path(folder), pictures, input_range)
        except OSError as error:
            raise StoreError(
                f"no room to convert in ({one_line(error)}): free some space in {folder}"
            ) from error
        except Exception as error:  # TensorFlow's passes raise nearly anything
            raise ModelError(f"this network cannot become a TFLite file: {one_line(error)}") from error


def _converted(
    model: Any,
    scheme: Scheme,
    folder: Path,
    pictures: NDArray[np.uint8] | None,
    input_range: tuple[float, float],
) -> bytes:
    _save(model, folder)
    converter = _converter(folder, scheme)
    if pictures is not None:
        converter.representative_dataset = lambda: _batches(pictures, input_range)
    return bytes(converter.convert())


def _drawn(
    model: Any, scheme: Scheme, pictures: NDArray[np.uint8] | None, input_range: tuple[float, float]
) -> Any:
    """Return the network whose numbers the converter is to write down."""
    if scheme is Scheme.QAT:
        return exportable(model)
    folded = fold(model)
    if pictures is None:
        return folded
    return compensated(prepared(folded, pictures, input_range), pictures, input_range)


def _save(model: Any, folder: Path) -> None:
    import keras
    import tensorflow

    shape = (1, *model.input.shape[1:])
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", model.call, input_signature=[tensorflow.TensorSpec(shape, "float32", "image")]
    )
    archive.write_out(str(folder), verbose=False)


def _converter(folder: Path, scheme: Scheme) -> Any:
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(folder))
    if scheme is not Scheme.FLOAT:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    if scheme is Scheme.FLOAT16:
        converter.target_spec.supported_types = [tensorflow.float16]
    if scheme is Scheme.PTQ:  # with ranges in the graph, the converter would still ask for pictures
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if scheme in (Scheme.PTQ, Scheme.QAT):
        converter.inference_input_type = converter.inference_output_type = tensorflow.int8
    return converter


def _batches(pictures: NDArray[np.uint8], input_range: tuple[float, float]) -> Iterator[list[Any]]:
    for picture in _spanning(pictures):
        yield [to_input(picture[np.newaxis], input_range)]


def _spanning(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the pictures with one black and one white pixel, so that the input's range is known exactly.

    Then scale and zero point are those of the whole pixel range (1/127.5 and -1 for [-1, 1]), and a device
    feeds bytes without arithmetic.
    """
    spanning = pictures.copy()
    spanning[0, 0, 0], spanning[0, -1, -1] = 0, 255
    return spanning


def _checked(representative: NDArray[np.uint8] | None, model: Any) -> NDArray[np.uint8]:
    shape = tuple(model.input.shape[1:])
    if representative is None or len(representative) < MIN_REPRESENTATIVE:
        count = 0 if representative is None else len(representative)
        raise ConfigError(f"{count} pictures to take ranges from: give at least {MIN_REPRESENTATIVE}")
    if representative.shape[1:] != shape or representative.dtype != np.uint8:
        raise ConfigError(f"pictures are {representative.shape[1:]}, the network takes {shape}: resize them")
    return np.asarray(representative)


def _check_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise EngineError(
            f"the TFLite export needs TensorFlow, this process runs Keras on {keras.backend.backend()}: "
            "start it again with KERAS_BACKEND=tensorflow"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what TensorFlow, Keras and the converter print, log and warn while they work."""
    names = ("tensorflow", "absl")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            with native_chatter_held(lambda line: True):
                yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
