"""`host-trainer distill`: a small network learns from a TFLite file, or from a network of ours."""

from pathlib import Path

import numpy as np
import pytest
from simulators.foreman import ok, refused

from host_trainer.backbones.networks import FEATURE
from host_trainer.checkpoints import load_network, weights_of
from host_trainer.distillation.standard import standardise, standardised

SMALL = ("--network", "separable:0.25/16", "--batch", 8)


def test_a_tflite_file_teaches_its_features_without_labels(
    photos: Path, models_dir: Path, tmp_path: Path
) -> None:
    teacher = models_dir / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    words = ("distill", "--data", f"{photos}:3", "--teacher", teacher, *SMALL, "--epochs", 1)
    result = ok(*words, "--out", tmp_path / "out")
    assert (result["match"], result["views"], result["pictures"]) == ("features", 72, 24)
    network = load_network(tmp_path / "out")
    assert network.model.layers[-1].name == FEATURE
    assert network.classes == ()
    assert network.origin["teacher"] == teacher.name


def test_answers_are_kept_and_believed(photos: Path, models_dir: Path, tmp_path: Path) -> None:
    teacher = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    words = (
        "distill",
        "--data",
        photos,
        "--teacher",
        teacher,
        *SMALL,
        "--epochs",
        1,
        "--cache",
        tmp_path / "cache",
    )
    ok(*words, "--out", tmp_path / "one")
    ok(*words, "--out", tmp_path / "same")
    (answers,) = (tmp_path / "cache" / "answers").glob("*.answers")
    answers.write_bytes(answers.read_bytes()[::-1])  # a teacher who was asked again would say otherwise
    ok(*words, "--out", tmp_path / "other")
    one, same, other = (weights_of(load_network(tmp_path / name).model) for name in ("one", "same", "other"))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not all(np.array_equal(one[name], other[name]) for name in one)


def test_what_a_stopped_one_left_is_gone_on_with(drawn: Path, models_dir: Path, tmp_path: Path) -> None:
    teacher = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    for left in ("answers", "pixels", "running"):
        (tmp_path / "out" / left).mkdir(parents=True)
    ok("distill", "--data", drawn, "--teacher", teacher, *SMALL, "--epochs", 0.1, "--out", tmp_path / "out")


def test_a_classifier_of_ours_teaches_its_logits(drawn: Path, tmp_path: Path) -> None:
    ok("train", "--data", drawn, "--out", tmp_path / "teacher", *SMALL, "--epochs", 20, "--augment", "none")
    words = (
        "distill",
        "--data",
        drawn,
        "--teacher",
        tmp_path / "teacher",
        "--match",
        "logits",
        *SMALL,
        "--epochs",
        2,
    )
    result = ok(*words, "--out", tmp_path / "out")
    assert result["test"] == 9
    assert load_network(tmp_path / "out").classes == ("disc", "square", "stripes")


def test_a_collection_is_standardised_by_itself() -> None:
    rng = np.random.default_rng(0)
    answers = rng.gamma(1.0, rng.uniform(1, 3, 16), (40, 3, 16)).astype(np.float16)
    targets = standardised(answers).astype(np.float64).reshape(-1, 16)
    assert np.abs(targets.mean(0)).max() < 5e-3
    assert np.abs(targets.std(0) - 1).max() < 0.02
    assert np.array_equal(
        standardise(answers).targets(answers[:, 0]).astype(np.float16), standardised(answers)[:, 0]
    )


BAD = {
    "a teacher that is not there": (["--teacher", "missing.tflite"], "missing.tflite"),
    "a teacher of other classes": (["--teacher", "RESNET", "--match", "logits"], "tells 10 classes apart"),
    "something else to match": (["--teacher", "RESNET", "--match", "colours"], "give features or logits"),
    "an unknown change": (["--teacher", "RESNET", "--augment", "swirl"], "changes no pictures"),
    "no views": (["--teacher", "RESNET", "--data", "DRAWN:0"], "at least one view"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_line(
    words: list[str], said: str, drawn: Path, models_dir: Path, tmp_path: Path
) -> None:
    resnet = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    given = [word.replace("RESNET", str(resnet)).replace("DRAWN", str(drawn)) for word in words]
    data = [] if "--data" in words else ["--data", drawn]
    assert said in refused("distill", *data, "--out", tmp_path / "out", *SMALL, *given)
    assert not (tmp_path / "out").exists()
