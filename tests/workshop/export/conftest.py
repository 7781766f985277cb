"""What the export tests share: real photographs, and real networks to export."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photographs(data_dir: Path) -> np.ndarray:
    """Sixty-four photographs of TrashNet, spread over its classes: (64, 96, 96, 3) uint8."""
    with tarfile.open(data_dir / "trashnet_224" / "trashnet_224.tar") as tar:
        members = sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
        chosen = [members[i] for i in np.linspace(0, len(members) - 1, 64).astype(int)]
        files = [tar.extractfile(member) for member in chosen]
        return np.stack([_squashed(file.read(), 96) for file in files if file is not None])


@pytest.fixture(scope="session")
def imagenet(data_dir: Path) -> Any:
    """MobileNetV2 0.35 at 96 px with its ImageNet weights, as a Keras network."""
    keras = pytest.importorskip("keras", reason="the workshop's networks need keras")
    from host_trainer.backbones.networks import build, parse_spec

    model = build(parse_spec("mobilenetv2:0.35/96"))
    file = data_dir / "models" / "float" / "mobilenet_v2_0.35_224_imagenet_notop_float32.npz"
    with np.load(file, allow_pickle=False) as found:
        for layer in model.layers:
            start = "depthwise_" if isinstance(layer, keras.layers.DepthwiseConv2D) else ""
            layer.set_weights([found[f"{layer.name}/{start}{weight.name}"] for weight in layer.weights])
    return model


@pytest.fixture(scope="session")
def small() -> Any:
    """A separable network of 32 px that converts in a second."""
    pytest.importorskip("keras", reason="the workshop's networks need keras")
    from host_trainer.backbones.networks import build, parse_spec

    return build(parse_spec("separable:0.25/32"))


def _squashed(data: bytes, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
