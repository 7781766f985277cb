"""`host-trainer train` on real photographs, stopped and gone on with, and what it says to bad input."""

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from simulators.foreman import call, ok, refused, started

from host_trainer.checkpoints import load_network, weights_of
from host_trainer.training.trainer import RUNNING

SMALL = ("--network", "separable:0.25/16", "--batch", 8)


def test_a_folder_of_photographs_becomes_a_classifier(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = ok(
        "train", "--data", photos, "--out", out, *SMALL, "--epochs", 2, "--tensorboard", tmp_path / "events"
    )
    assert result["classes"] == ["glass", "metal", "paper"]
    assert (result["train"], result["test"], result["steps"]) == (24, 9, 6)
    assert 0 <= result["test_accuracy"] <= 1
    network = load_network(out)
    assert network.classes == ("glass", "metal", "paper")
    assert network.origin["command"] == "train"
    assert not (out / RUNNING).exists()
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def test_it_learns_what_is_easy(drawn: Path, tmp_path: Path) -> None:
    result = ok(
        "train",
        "--data",
        drawn,
        "--out",
        tmp_path / "out",
        *SMALL,
        "--epochs",
        150,  # 450 steps: running statistics need some hundreds
        "--augment",
        "none",
        "--rate",
        5e-3,
    )
    assert result["train_accuracy"] == 1
    assert result["test_accuracy"] > 0.5  # nine pictures, three kinds


@pytest.mark.slow
def test_the_same_seed_gives_the_same_network(photos: Path, tmp_path: Path) -> None:
    for name in ("one", "same"):
        ok(
            "train",
            "--data",
            photos,
            "--out",
            tmp_path / name,
            *SMALL,
            "--epochs",
            1,
            "--augment",
            "flip,mixup,noise",
        )
    one, same = (weights_of(load_network(tmp_path / name).model) for name in ("one", "same"))
    assert all(np.array_equal(one[name], same[name]) for name in one)


def test_its_own_result_is_a_network_to_start_from(photos: Path, tmp_path: Path) -> None:
    ok("train", "--data", photos, "--out", tmp_path / "first", *SMALL, "--epochs", 1)
    more = ("--batch", 8, "--epochs", 1)
    result = ok(
        "train", "--data", photos, "--out", tmp_path / "second", "--network", tmp_path / "first", *more
    )
    assert result["classes"] == ["glass", "metal", "paper"]


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(drawn: Path, tmp_path: Path) -> None:
    """That it goes on bit for bit is told by test_trainer.py."""
    out = tmp_path / "cut"
    words = ("train", "--data", drawn, "--out", out, *SMALL, "--epochs", 150, "--save-every", 50)
    process = started(*words)
    deadline = time.monotonic() + 120
    while not (out / RUNNING).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert said == ""
    assert not (out / "network.json").exists()
    other = call(*words, "--epochs", 149, "--json")
    assert other.status == 2 and "other options (recipe)" in other.err and "going on" not in other.err
    again = call(*words, "--json")
    assert again.status == 0, again
    assert "going on at step" in again.err
    assert load_network(out).classes == ("disc", "square", "stripes")


def test_corrupt_pictures_are_named_and_the_rest_is_learned(photos: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(photos, tmp_path / "copy"))
    damaged = sorted((copy / "train" / "glass").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:500])
    said = call("train", "--data", copy, "--out", tmp_path / "out", *SMALL, "--epochs", 1, "--json")
    assert said.status == 0
    assert said.json["train"] == 23
    assert said.json["refused"][0].startswith(damaged.name)
    assert damaged.name in said.err


BAD = {
    "no such folder": (["--data", "missing"], "is no folder"),
    "an unknown network": (["--network", "vgg16"], "names no network"),
    "an unknown change": (["--augment", "swirl"], "changes no pictures"),
    "none and more": (["--augment", "none,flip"], "goes with nothing else"),
    "weights from nowhere": (["--weights", "moon"], "moon"),
    "a rate of nothing": (["--rate", "0"], "rate"),
    "a checkpoint with other weights": (
        ["--network", "CHECKPOINT", "--weights", "imagenet"],
        "brings its own",
    ),
    "a folder in the way": (["--out", "PHOTOS"], "not ours"),
    "an out that is finished": (["--out", "CHECKPOINT"], "finished network"),
}


@pytest.fixture(scope="module")
def checkpoint(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "network"
    ok("train", "--data", drawn, "--out", out, *SMALL, "--epochs", 0.1)
    return out


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(
    words: list[str], said: str, drawn: Path, checkpoint: Path, tmp_path: Path
) -> None:
    places = {"PHOTOS": str(drawn), "CHECKPOINT": str(checkpoint), "missing": str(tmp_path / "missing")}
    given = [places.get(word, word) for word in words]
    line = refused("train", "--data", drawn, "--out", tmp_path / "out", *SMALL, *given)
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint_is_no_network(checkpoint: Path, drawn: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (copy / "weights.safetensors").write_bytes(b"")
    assert "damaged" in refused("train", "--data", drawn, "--out", tmp_path / "out", "--network", copy)
