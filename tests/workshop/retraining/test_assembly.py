"""A bundle is small, whole, and answers as the learner that it was made of.

Once with the backbone that ships; what does not look into the backbone, with bytes that begin like one.
"""

from pathlib import Path

import numpy as np
import pytest

from edge_cl.errors import ReleaseError
from edge_cl.learning import head
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.named import Named
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import open_backbone
from edge_cl.wire import bundle, parts
from edge_cl.wire.release import Facts
from edge_cl.wire.tensors import pack
from host_trainer.export import golden
from host_trainer.retraining import heads
from host_trainer.retraining.assembly import (
    Budgets,
    Gates,
    Ingredients,
    Input,
    Label,
    input_of,
    lean,
    manifest_id,
    opened,
    whole,
)
from host_trainer.retraining.heads import HeadConfig, made
from host_trainer.retraining.samples import Samples, statistics_of

SHIPPED = Path(__file__).parents[3] / "models" / "mobilenetv2_035_96.tflite"
GATES = Gates(700, 20, 4, 990, 0, 0)
VIEWS = 2
CONFIG = HeadConfig(LearnerConfig(views=VIEWS))
LABELS = ("can", "mug", "tin")
SPACE = FeatureSpace("5" * 16, 256, "int8", 0.02, -128)
OPAQUE = b"\0\0\0\0TFL3" + bytes(range(256)) * 16
INPUT = Input(96, 96, -1.0, 1.0, "squash", True)


def features(space, labels, each, seed) -> Samples:
    """Draw samples that look like features of a backbone: whole, around a centre for each class."""
    parts, names = [], []
    for label in labels:
        centre = np.random.default_rng([ord(letter) for letter in label]).normal(0, 25, space.size)
        rng = np.random.default_rng((seed, ord(label[0])))
        parts.append(centre + rng.normal(0, 40, (each, VIEWS, space.size)))
        names += [label] * each
    found = np.clip(np.rint(np.concatenate(parts)) + space.zero_point, -128, 127).astype(np.int8)
    return Samples(found, tuple(names), ("",) * len(names), np.arange(1, len(names) + 1))


def ingredients(space: FeatureSpace, labels, backbone=OPAQUE, answers=None, each=30) -> Ingredients:
    samples = features(space, labels, each, 0)
    known = Named(labels, statistics_of(samples, labels, space.zero_point))
    learner = made(space, CONFIG, known, known.statistics, samples, np.ones(len(samples), bool)).learner
    if answers is None:
        pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
        outputs = samples.features[:4, 0]
        answers = pack({"inputs": pixels, "outputs": outputs}, dict.fromkeys(parts.GOLDEN_FACTS, "0"))
    return Ingredients(learner, backbone, answers, samples, INPUT)


def label(number: int) -> Label:
    return Label("waste", Facts(number, ("any",), "0.1.0"), 0, GATES, f"run-{number}")


@pytest.fixture(scope="module")
def first() -> Ingredients:
    return ingredients(SPACE, LABELS)


def test_a_whole_bundle_of_the_shipped_backbone_answers_as_its_learner_and_is_small() -> None:
    with open_backbone(SHIPPED) as backbone:
        pixels = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), np.uint8)
        answers, space = golden.record(backbone, pixels), backbone.space
        assert input_of(backbone.manifest()) == INPUT
    first = ingredients(space, LABELS, SHIPPED.read_bytes(), answers)
    data = whole(first, label(1), Budgets())
    assert len(data) < 1_200_000
    manifest, learner = opened(data, CONFIG.learner)
    assert (manifest.bundle, manifest.parent, manifest.labels, manifest.run) == (1, 0, LABELS, "run-1")
    assert len(manifest_id(data)) == 64
    asked = features(first.learner.space, LABELS, 40, 9)
    right = [heads.answers(each, asked.features) for each in (first.learner, learner)]
    assert np.mean([one == other for one, other in zip(*right, strict=True)]) > 0.97
    found = bundle.unpack(data)
    kept = bundle.exemplars(found)
    assert kept is not None and kept.features.shape[1] == 1
    assert np.bincount(kept.numbers).tolist() == [Budgets().each] * 3
    assert bundle.golden(found).space == first.learner.space.id


def test_a_lean_bundle_carries_a_head_that_goes_on_from_the_whole_one(first: Ingredients) -> None:
    data = whole(first, label(1), Budgets())
    parent = bundle.unpack(data)
    known = head.to_statistics(bundle.head(parent))
    later = ingredients(SPACE, (*LABELS, "jar"))
    small = lean(later, label(3), Budgets(), (parent.manifest, known))
    assert len(small) < 60_000
    manifest, learner = opened(small, CONFIG.learner, known)
    assert (manifest.bundle, manifest.parent) == (3, 1)
    assert {part.name for part in manifest.parts if part.carried} == {"head.safetensors"}
    held = {part.sha256: parent.files[part.name] for part in parent.manifest.parts}
    assert bundle.unpack(small).completed(held).files["backbone.tflite"] == later.backbone
    asked = features(SPACE, (*LABELS, "jar"), 30, 9)
    right = [heads.answers(each, asked.features) for each in (later.learner, learner)]
    assert np.mean([one == other for one, other in zip(*right, strict=True)]) > 0.95


def test_parts_shrink_until_they_fit(first: Ingredients) -> None:
    small = Budgets(head=20_000, exemplars=4_000)
    found = bundle.unpack(whole(first, label(1), small))
    sizes = {part.name: part.carried for part in found.manifest.parts}
    assert 18_000 < sizes["head.safetensors"] <= 20_000
    assert 2_000 < sizes["exemplars.safetensors"] <= 4_000


def test_a_head_that_cannot_fit_says_why(first: Ingredients) -> None:
    with pytest.raises(ReleaseError, match="3 classes is [0-9]+ bytes larger than 3000"):
        whole(first, label(1), Budgets(head=3_000))


def test_the_same_release_has_the_same_bytes(first: Ingredients) -> None:
    assert whole(first, label(1), Budgets()) == whole(first, label(1), Budgets())
