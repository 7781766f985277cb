"""Teachers say what their networks say, whoever runs them, and what does not fit is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cl.errors import ConfigError, MismatchError, ModelError
from edge_cl.vision.backbone import open_backbone

pytest.importorskip("keras", reason="teachers of ours are Keras networks")
pytest.importorskip("ai_edge_litert", reason="TFLite teachers run in LiteRT")

from host_trainer.checkpoints import save_network  # noqa: E402
from host_trainer.distillation.targets import open_targets  # noqa: E402
from host_trainer.distillation.teachers import (  # noqa: E402
    Ensemble,
    KerasTeacher,
    Kind,
    check_classes,
    mean_of_softmaxes,
    open_teacher,
    resized,
)
from host_trainer.network import Network, to_input  # noqa: E402


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    from host_trainer.backbones.networks import build, parse_spec, with_head

    specs = [("separable:0.25/16", 1), ("separable:0.5/24", 2)]
    classes = tuple("abcdefghij")
    return [
        Network(with_head(build(parse_spec(spec), seed), 10, seed), classes, name=spec)
        for spec, seed in specs
    ]


def test_a_tflite_classifier_teaches_the_logits_its_softmax_took(resnet8: Path, cifar: Any) -> None:
    teacher = open_teacher([resnet8], Kind.LOGITS)
    logits = teacher.targets(cifar.pixels)
    assert logits.shape == (120, 10) and logits.dtype == np.float32 and teacher.size == 10
    assert 0.6 < np.mean(logits.argmax(1) == cifar.labels) < 0.9  # 0.755 on all 5,000 of this lossy copy
    with open_backbone(resnet8) as whole:  # the file as it is: probabilities in steps of 1/256
        stored = whole.embed_many(cifar.pixels).astype(np.float32)
        probabilities = (stored - whole.space.zero_point) * whole.space.scale
    assert np.abs(softmax(logits) - probabilities).max() <= 1.5 / 256
    assert np.mean(probabilities == 0) > 0.4 and len(np.unique(logits)) > 40  # what the steps hide
    teacher.close()


def test_a_tflite_backbone_teaches_the_features_a_device_would_see(models_dir: Path, cifar: Any) -> None:
    path = models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    teacher = open_teacher([path], Kind.FEATURES)
    features = teacher.targets(cifar.pixels[::40])
    with open_backbone(path) as backbone:
        stored = backbone.embed_many(resized(cifar.pixels[::40], backbone.input_size))
        assert np.array_equal(features, stored * np.float32(backbone.space.scale))
    assert teacher.kind is Kind.FEATURES and features.shape == (3, 1024)
    teacher.close()


def test_a_tflite_classifier_asked_for_features_is_cut_at_its_embedding(resnet8: Path, cifar: Any) -> None:
    teacher = open_teacher([resnet8], Kind.FEATURES)
    assert teacher.targets(cifar.pixels[:2]).shape == (2, 64)
    assert teacher.id != open_teacher([resnet8], Kind.LOGITS).id
    teacher.close()


def test_a_network_of_ours_and_the_tflite_file_made_from_it_teach_the_same(
    networks: list[Network], cifar: Any, tmp_path: Path
) -> None:
    from host_trainer.export.litert import Scheme, convert

    network = networks[0]
    path = tmp_path / "twin.tflite"
    path.write_bytes(convert(network.model, Scheme.FLOAT))
    ours, twin = KerasTeacher(network, Kind.LOGITS), open_teacher([path], Kind.LOGITS)
    np.testing.assert_allclose(ours.targets(cifar.pixels), twin.targets(cifar.pixels), atol=2e-5)


def test_a_checkpoint_teaches_its_logits_or_the_feature_below(
    networks: list[Network], cifar: Any, tmp_path: Path
) -> None:
    save_network(tmp_path / "net", networks[0])
    logits = open_teacher([tmp_path / "net"], Kind.LOGITS)
    shown = to_input(resized(cifar.pixels[:4], (16, 16)), networks[0].input_range)
    np.testing.assert_allclose(
        logits.targets(cifar.pixels[:4]), np.asarray(networks[0].model(shown, training=False)), atol=1e-6
    )
    assert logits.id == KerasTeacher(networks[0], Kind.LOGITS).id and logits.classes == tuple("abcdefghij")
    features = open_teacher([tmp_path / "net"], Kind.FEATURES)
    assert features.targets(cifar.pixels[:4]).shape == (4, features.size) and features.classes == ()


def test_an_ensemble_says_the_mean_of_what_its_members_believe(networks: list[Network], cifar: Any) -> None:
    members = [KerasTeacher(network, Kind.LOGITS) for network in networks]
    said = Ensemble(members).targets(cifar.pixels[:8])
    believed = np.mean([softmax(member.targets(cifar.pixels[:8])) for member in members], axis=0)
    np.testing.assert_allclose(np.exp(said), believed, atol=1e-5)
    extreme = np.array([[3e4, -3e4]], np.float32)
    assert np.isfinite(mean_of_softmaxes([extreme, -extreme])).all()


def test_features_of_an_ensemble_lie_side_by_side_with_equal_say(networks: list[Network], cifar: Any) -> None:
    members = [KerasTeacher(network, Kind.FEATURES) for network in networks]
    both = Ensemble(members)
    features = both.targets(cifar.pixels[:8])
    assert features.shape == (8, both.size) and both.size == members[0].size + members[1].size
    np.testing.assert_allclose(np.linalg.norm(features[:, : members[0].size], axis=1), 1, atol=1e-5)


def test_teachers_that_do_not_fit_are_refused(
    networks: list[Network], resnet8: Path, models_dir: Path, tmp_path: Path
) -> None:
    teacher = open_teacher([resnet8], Kind.LOGITS)
    with pytest.raises(MismatchError, match="10 classes apart, the pictures have 6"):
        check_classes(teacher, list("abcdef"))
    check_classes(teacher, list("abcdefghij"))
    with pytest.raises(MismatchError, match="knows 'a' where the pictures have 'z'"):
        check_classes(KerasTeacher(networks[0], Kind.LOGITS), list("zbcdefghij"))
    check_classes(KerasTeacher(networks[0], Kind.FEATURES), list("xyz"))
    bare = Network(networks[0].model, (), name="bare")
    with pytest.raises(ModelError, match="without classes"):
        KerasTeacher(bare, Kind.LOGITS)
    with pytest.raises(ModelError, match="not in the logits"):
        open_teacher(
            [models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"], Kind.LOGITS
        )
    with pytest.raises(MismatchError, match="same classes"):
        open_teacher([resnet8, models_dir / "coral" / "mobilenet_v1_0.25_128_quant.tflite"], Kind.LOGITS)
    with pytest.raises(ConfigError, match="nobody teaches"):
        open_teacher([], Kind.LOGITS)
    (tmp_path / "text.tflite").write_text("no network")
    with pytest.raises(ModelError, match="not a TFLite file"):
        open_teacher([tmp_path / "text.tflite"], Kind.LOGITS)


class Counting:
    """A teacher that counts how many pictures it was shown."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.shown = teacher, 0
        self.id, self.size = teacher.id, teacher.size

    def targets(self, pixels: np.ndarray) -> np.ndarray:
        self.shown += len(pixels)
        return self.teacher.targets(pixels)


def test_a_teacher_is_asked_once_about_each_view(networks: list[Network], cifar: Any, tmp_path: Path) -> None:
    views = np.stack([cifar.pixels, cifar.pixels[:, :, ::-1]], axis=1)
    teacher = Counting(KerasTeacher(networks[0], Kind.LOGITS))
    images, chosen = np.array([3, 7, 3, 0]), np.array([1, 0, 1, 0])
    first = open_targets(teacher, views, "cifar", tmp_path).of(images, chosen)
    assert teacher.shown == 3 and first.shape == (4, 10) and first.dtype == np.float32
    np.testing.assert_allclose(first, teacher.teacher.targets(views[images, chosen]), rtol=1e-3, atol=1e-3)
    again = open_targets(teacher, views, "cifar", tmp_path)
    assert np.array_equal(again.of(images, chosen), first) and teacher.shown == 3 and again.known == 3
    heard: list[int] = []
    again.fill(heard.append)
    assert teacher.shown == 240 and again.known == 240 and heard[-1] == 240
    assert np.array_equal(again.of(images, chosen), first)


def test_answers_are_kept_apart_by_teacher_and_by_pictures(
    networks: list[Network], cifar: Any, tmp_path: Path
) -> None:
    one, two = (KerasTeacher(network, Kind.LOGITS) for network in networks)
    views = cifar.pixels[:4, np.newaxis]
    open_targets(one, views, "cifar", tmp_path).fill()
    assert open_targets(two, views, "cifar", tmp_path).known == 0
    assert open_targets(one, views, "others", tmp_path).known == 0
    assert open_targets(one, views, "cifar", tmp_path).known == 4
