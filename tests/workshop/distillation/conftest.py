"""What the distillation tests share: real pictures of CIFAR-10 and a real classifier of them."""

import io
from pathlib import Path
from typing import Any, NamedTuple

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


@pytest.fixture(scope="session")
def cifar_folder(cifar: Cifar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes: nine pictures each to learn from, three to ask about."""
    root = tmp_path_factory.mktemp("cifar")
    for label in (0, 1, 8):
        for number, picture in enumerate(cifar.pixels[cifar.labels == label]):
            place = root / ("train" if number < 9 else "test") / cifar.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a backbone of one convolution: real, and compiled in a second."""
    keras = pytest.importorskip("keras", reason="networks are made by Keras")
    from host_trainer.backbones.networks import initialise
    from host_trainer.checkpoints import save_network
    from host_trainer.network import Network

    image = keras.Input((16, 16, 3), name="image")
    maps: Any = keras.layers.Conv2D(8, 3, strides=4, use_bias=False, name="stem")(image)
    maps = keras.layers.ReLU(6.0, name="relu")(keras.layers.BatchNormalization(name="norm")(maps))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="feature")(maps), name="tiny")
    initialise(model, 0)
    folder = tmp_path_factory.mktemp("tiny") / "network"
    save_network(folder, Network(model, name="tiny"))
    return folder
