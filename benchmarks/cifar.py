"""Touches the CIFAR-10 pictures of EDGE_CL_DATA: a small part of them, at 32 px, for trainings from scratch.

`cifar10_jpeg_dev.npz` holds JPEGs (a lossy copy), 3,000 of each class to learn from and 500 to ask about.
"""

import io
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from edge_cl.vision.files import one_line
from host_trainer.datasets.folders import Pictures
from host_trainer.datasets.pixels import Pixels

CHECKOUT = Path(__file__).resolve().parent.parent
FILE = "cifar10_jpeg_dev/cifar10_jpeg_dev.npz"
TEACHER = "models/mlperf_tiny/pretrainedResnet_quant.tflite"
SIZE = (32, 32)
MIRRORED = 1  # the second view
MISSING = """\
This trains on real pictures, and they are not part of the project. Set EDGE_CL_DATA to a folder that holds
CIFAR-10 as {file} (arrays jpeg, offset, label, split, classes); looked in {folder} ({reason})"""


class Cifar(NamedTuple):
    """Pictures with two views each, the picture and its mirror image: values (N, 2, 32, 32, 3) uint8."""

    train: Pixels
    test: Pixels


def on_one_core() -> None:
    """Keep TensorFlow and LiteRT to one thread; both read that when they start."""
    os.environ.update(threads(1))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def threads(count: int) -> dict[str, str]:
    """Return the environment that keeps TensorFlow and LiteRT to so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(count))


def data_folder() -> Path:
    """Return EDGE_CL_DATA, else ../shared/data beside the checkout."""
    named = os.environ.get("EDGE_CL_DATA")
    return Path(named) if named else CHECKOUT.parent / "shared" / "data"


def load(train: int, test: int) -> Cifar:
    """Return that many pictures of each class, the first ones; ends with advice when there are none."""
    try:
        with np.load(data_folder() / FILE, allow_pickle=False) as file:
            data = {name: file[name] for name in ("jpeg", "offset", "label", "split", "classes")}
    except OSError as error:
        print(MISSING.format(file=FILE, folder=data_folder(), reason=one_line(error)), file=sys.stderr)
        raise SystemExit(2) from error
    return Cifar(_part(data, "train", train), _part(data, "test", test))


def _part(data: Mapping[str, np.ndarray], split: str, most: int) -> Pixels:
    classes = tuple(str(name) for name in data["classes"])
    members = [
        np.flatnonzero((data["split"] == split) & (data["label"] == c))[:most] for c in range(len(classes))
    ]
    chosen = np.concatenate(members)
    whole = np.stack([_decoded(data["jpeg"][data["offset"][i] : data["offset"][i + 1]]) for i in chosen])
    values = np.stack([whole, whole[:, :, ::-1]], axis=1)
    labels = data["label"][chosen].astype(np.int32)
    return Pixels(values, Pictures(tuple(Path(f"{i:05d}.jpg") for i in chosen), labels, classes), ())


def _decoded(jpeg: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg.tobytes())) as image:
        return np.asarray(image.convert("RGB"))


def mean_std(values: list[float], show: Callable[[float], str] = "{:.3f}".format) -> str:
    """Return mean and standard deviation of a sample in words; one value alone has no deviation."""
    middle = show(float(np.mean(values)))
    return f"{middle} ± {show(float(np.std(values, ddof=1)))}" if len(values) > 1 else middle
