"""What the distillation tests share: real pictures of CIFAR-10 and a real classifier of them."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image


class Cifar(NamedTuple):
    """Some test pictures: (N, 32, 32, 3) uint8, their labels (N,), and the names of the classes."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@pytest.fixture(scope="session")
def cifar(data_dir: Path) -> Cifar:
    """Twelve test pictures of each class of CIFAR-10."""
    with np.load(data_dir / "cifar10_jpeg_dev" / "cifar10_jpeg_dev.npz", allow_pickle=False) as file:
        jpeg, offset, labels = file["jpeg"], file["offset"], file["label"]
        is_test = file["split"] == "test"
        chosen = np.concatenate([np.flatnonzero(is_test & (labels == c))[:12] for c in range(10)])
        pictures = [jpeg[offset[i] : offset[i + 1]].tobytes() for i in chosen]
        classes = tuple(str(name) for name in file["classes"])
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])
    return Cifar(pixels, labels[chosen].astype(np.int32), classes)


@pytest.fixture(scope="session")
def resnet8(models_dir: Path) -> Path:
    """MLPerf Tiny's int8 classifier of CIFAR-10."""
    return models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
