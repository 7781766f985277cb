"""The networks that can be drawn by name, and what names are refused."""

import numpy as np
import pytest

from edge_cl.errors import ConfigError
from host_trainer.backbones.networks import FEATURE, Spec, backbone_of, build, parse_spec, rounded, with_head

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
