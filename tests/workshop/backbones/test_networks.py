"""The networks that can be drawn by name, and what names are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cl.errors import ConfigError
from host_trainer.backbones.networks import (
    FEATURE,
    HAAR,
    Spec,
    backbone_of,
    build,
    haar_kernel,
    parse_spec,
    rounded,
    with_head,
)
from host_trainer.checkpoints import load_network, save_network
from host_trainer.network import Network

# name, values of the feature, parameters (Keras' own count for the MobileNets)
SMALL = [
    ("mobilenetv1:0.25/32", 256, 218_544),
    ("mobilenetv2:0.35/32", 1280, 410_208),
    ("resnet18:0.25/16", 128, 702_576),
    ("separable:0.5/16", 128, None),
]


@pytest.mark.parametrize(("name", "size", "parameters"), SMALL)
def test_a_network_turns_pictures_into_one_feature(name: str, size: int, parameters: int | None) -> None:
    spec = parse_spec(name)
    model = build(spec)
    images = np.zeros((2, spec.size, spec.size, 3), np.float32)
    assert np.asarray(model(images)).shape == (2, size)
    assert model.layers[-1].name == FEATURE
    assert model.input.name == "image"
    if parameters:
        assert model.count_params() == parameters


@pytest.mark.parametrize("name", [name for name, *_ in SMALL])
def test_the_same_seed_draws_the_same_weights(name: str) -> None:
    one, same, other = (build(parse_spec(name), seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_head_comes_and_goes_and_the_layers_are_shared() -> None:
    backbone = build(parse_spec("separable:0.25/16"))
    classifier = with_head(backbone, 5)
    assert classifier.output.shape[-1] == 5
    bare = backbone_of(classifier)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    assert np.array_equal(np.asarray(bare(images)), np.asarray(backbone(images)))
    assert backbone_of(backbone) is backbone


def test_a_name_reads_back() -> None:
    for text in ("mobilenetv2:0.35/96", "resnet18:1/32", "separable:2.5/64"):
        assert str(parse_spec(text)) == text
    assert parse_spec("MobileNetV2") == Spec("mobilenetv2", 0.35, 96)
    assert parse_spec("resnet18:.5") == Spec("resnet18", 0.5, 32)
    assert parse_spec("resnet18:0.5+haar") == Spec("resnet18", 0.5, 32, haar=True)
    assert str(parse_spec("resnet18:0.5/32+haar")) == "resnet18:0.5/32+haar"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vgg16", "names no network"),
        ("", "names no network"),
        ("mobilenetv2:wide", "names no network"),
        ("mobilenetv2:0", "no factor on channels"),
        ("mobilenetv2:9", "no factor on channels"),
        ("mobilenetv2:0.35/8", "takes 32 to 512 px"),
        ("resnet18/4096", "takes 8 to 512 px"),
        ("resnet18/8+haar", "takes 16 to 512 px"),
        ("resnet18/33+haar", "give an even one"),
        ("resnet18+db4", "names no network"),
    ],
)
def test_other_names_are_refused_with_what_to_give(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_spec(text)


@pytest.mark.parametrize(
    ("channels", "even"), [(1, 8), (11.2, 16), (12, 16), (16, 16), (19.6, 24), (33.6, 32)]
)
def test_channels_come_in_eights_and_never_lose_a_tenth(channels: float, even: int) -> None:
    assert rounded(channels) == even
    assert even >= 0.9 * channels


@pytest.fixture(scope="module")
def haar() -> Any:
    """A network that begins with the Haar transform."""
    return build(parse_spec("separable:0.25/16+haar"))


def bands_of(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.get_layer(HAAR)(images))


def test_the_haar_transform_is_orthonormal_and_loses_nothing(haar: Any) -> None:
    import keras

    matrix = haar_kernel().reshape(12, 12)
    assert np.array_equal(matrix @ matrix.T, np.eye(12))
    # Whole numbers are exact in single precision, so the inverse - the transpose - is exact too.
    images = np.random.default_rng(0).integers(-255, 256, (4, 16, 16, 3)).astype(np.float32)
    bands = bands_of(haar, images)
    assert bands.shape == (4, 8, 8, 12)
    assert np.sum(np.square(bands, dtype=np.float64)) == np.sum(np.square(images, dtype=np.float64))
    back = keras.ops.conv_transpose(bands, haar_kernel(), strides=2)
    assert np.array_equal(np.asarray(back), images)


def test_the_first_band_is_the_picture_at_half_its_size(haar: Any) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    half = images.reshape(2, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    assert np.array_equal(bands_of(haar, images)[..., :3], 2 * half)
    flat = np.full((1, 16, 16, 3), 0.5, np.float32)
    assert not np.any(bands_of(haar, flat)[..., 3:])


def test_the_haar_transform_learns_nothing_and_survives_the_disk(haar: Any, tmp_path: Path) -> None:
    model = with_head(haar, 3)
    assert all(HAAR not in variable.path for variable in model.trainable_variables)
    save_network(tmp_path / "net", Network(model, tuple("abc")))
    back = load_network(tmp_path / "net").model
    images = np.random.default_rng(2).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    assert np.array_equal(np.asarray(back(images)), np.asarray(model(images)))
    assert back.get_layer(HAAR).trainable is False
    assert len(back.trainable_variables) == len(model.trainable_variables)


def test_a_mobilenet_can_begin_with_it_too() -> None:
    model = build(parse_spec("mobilenetv2:0.35/64+haar"))
    assert np.array_equal(model.get_layer(HAAR).get_weights()[0], haar_kernel())
    assert model.get_layer("Conv1").kernel.shape == (3, 3, 12, 16)
    assert model.input.shape == (None, 64, 64, 3) and model.input.name == "image"
