"""`host-trainer train --method` and `--from`: task after task, gone on with, stopped, and what it refuses."""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulators.foreman import call, ok, refused, started
from simulators.small_network import small_network

from edge_cl.errors import StoreError
from host_trainer.checkpoints import load_network, load_training, save_network, weights_of
from host_trainer.sparcl.options import Options
from host_trainer.sparcl.saved import CONTINUAL, open_finished
from host_trainer.sparcl.session import RECORD, REPORT, World, train_continually
from host_trainer.sparcl.subject import next_subject
from host_trainer.training.trainer import RUNNING


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network so small that tracing it takes no time."""
    folder = tmp_path_factory.mktemp("backbone") / "small"
    save_network(folder, small_network())
    return folder


@pytest.fixture(scope="module")
def two_and_one(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The drawn pictures of two kinds, and those of the third."""
    places = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    for place, kinds in zip(places, (("disc", "square"), ("stripes",)), strict=True):
        for part in ("train", "test"):
            for kind in kinds:
                shutil.copytree(drawn / part / kind, place / part / kind)
    return places


def small(backbone: Path) -> tuple[object, ...]:
    sparse = ("--method", "sparcl-derpp", "--sparsity", 0.75, "--buffer", 12)
    return (*sparse, "--network", backbone, "--batch", 8, "--epochs", 2, "--tasks", 1)


@pytest.fixture(scope="module")
def finished(
    backbone: Path, two_and_one: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    result = ok("train", "--data", two_and_one[0], "--out", out, *small(backbone), "--rate", 0.02)
    assert (result["network"], result["method"], result["mode"]) == ("small", "sparcl-derpp", "edge")
    assert (result["plan"]["rate"], result["plan"]["batch"], result["plan"]["epochs"]) == (0.02, 8, 2)
    assert {path.name for path in out.iterdir()} >= {CONTINUAL, RECORD, REPORT, "network.json", "pixels"}
    return out


def world(**other: Any) -> World:
    """Return a world that counts steps instead of seconds, and lets nobody stop."""
    from host_trainer.commands.terminal import meter

    usual = World(iter(range(10**9)).__next__, lambda: 0, meter, lambda line: None, lambda: False)
    return usual._replace(**other)


def stopping_after(steps: int) -> Any:
    """Return a question whether to stop that is answered with yes from the n-th time on."""
    left = iter(range(steps))
    return lambda: next(left, None) is None


def same_training(one: Path, other: Path) -> None:
    """Check that two finished trainings are the same, bit for bit."""
    trainings = [load_training(out / CONTINUAL) for out in (one, other)]
    for name, values in trainings[0].state.items():
        if name != "told":  # seconds
            assert np.array_equal(values, trainings[1].state[name]), name
    for place in ("", CONTINUAL):
        mine, theirs = (weights_of(load_network(out / place).model) for out in (one, other))
        assert all(np.array_equal(values, theirs[path]) for path, values in mine.items())


def test_a_class_alone_is_learned_on_top_with_what_the_first_training_says(
    finished: Path, two_and_one: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = ("--rate", 0.01, "--epochs", 6)
    result = ok("train", "--from", finished, "--new-data", two_and_one[1], "--out", out, *other)
    assert result["classes"] == ["disc", "square", "stripes"]
    assert [(task["classes"], task["train"], task["test"]) for task in result["tasks"]] == [
        (["stripes"], 8, 3)
    ]
    before, after = (load_training(place / CONTINUAL) for place in (finished, out))
    plan = result["plan"]
    assert (plan["rate"], plan["batch"], plan["buffer"], plan["seed"]) == (0.01, 8, 12, 0)
    assert set(after.state["reservoir/labels"]) == {0, 1, 2}
    assert after.state["reservoir/seen"] > before.state["reservoir/seen"]
    assert after.state["taught"].tolist() == [*before.state["taught"], 8]
    assert load_network(out).classes == ("disc", "square", "stripes")
    assert open_finished(out).taught == 2
    again = ok("train", "--from", out, "--new-data", two_and_one[0], "--out", tmp_path / "again")
    assert again["classes"] == result["classes"]
    assert open_finished(tmp_path / "again").taught == 3


def test_what_goes_on_has_masks_buffer_and_averages_and_answers_as_before(
    finished: Path, two_and_one: tuple[Path, Path], tmp_path: Path
) -> None:
    from host_trainer.datasets.named import open_dataset

    def open_data(size: tuple[int, int], least: int) -> Any:
        return open_dataset(str(two_and_one[1]), size, Path(), tmp_path, least_classes=least)

    options = Options(str(two_and_one[1]), tmp_path / "out", origin=finished)
    learner = next_subject(options, finished, open_data).learner
    left, state = load_training(finished / CONTINUAL).state, learner.state()
    for name, values in left.items():
        if name.startswith("masks/") or name in ("reservoir/images", "reservoir/labels", "reservoir/seen"):
            assert np.array_equal(state[name], values), name
    pictures = left["reservoir/images"]
    answers = np.asarray(load_network(finished).model((pictures.astype(np.float32) / 127.5) - 1))
    np.testing.assert_allclose(learner.answer(pictures)[:, :2], answers, atol=1e-5)
    assert not learner.answer(pictures)[:, 2].any()


def test_a_training_that_goes_on_can_be_stopped_again_and_again(
    finished: Path, two_and_one: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, cut = (
        Options(str(two_and_one[1]), tmp_path / name, origin=finished, batch=4) for name in ("whole", "cut")
    )
    train_continually(whole, world())
    for steps in (0, 1):  # within the first epoch, and at its end
        with pytest.raises(KeyboardInterrupt):
            train_continually(cut, world(stopped=stopping_after(steps)))
    train_continually(cut, world())
    same_training(whole.out, cut.out)


def test_a_training_whose_end_was_cut_off_ends_when_it_is_asked_for_again(
    finished: Path, two_and_one: tuple[Path, Path], tmp_path: Path
) -> None:
    options = Options(str(two_and_one[1]), tmp_path / "out", origin=finished, epochs=1)
    in_the_way = [options.out / RECORD, options.out / "weights.safetensors"]
    for (
        place
    ) in in_the_way:  # a disk that refuses: first after OUT/continual, then between weights and network
        (place / "full").mkdir(parents=True)
        with pytest.raises(StoreError):
            train_continually(options, world())
        shutil.rmtree(place)
        assert (options.out / CONTINUAL).is_dir() and not (options.out / "network.json").exists()
    train_continually(options, world())
    assert load_network(options.out).classes == ("disc", "square", "stripes")
    assert not (options.out / RUNNING).exists()


def test_classes_that_change_between_two_runs_of_one_training_are_refused(
    backbone: Path, two_and_one: tuple[Path, Path], tmp_path: Path
) -> None:
    data, out = Path(shutil.copytree(two_and_one[0], tmp_path / "data")), tmp_path / "out"
    options = Options(
        str(data), out, network=str(backbone), sparsity=0.75, buffer=12, batch=8, epochs=2, tasks=1
    )
    with pytest.raises(KeyboardInterrupt):
        train_continually(options, world(stopped=stopping_after(1)))
    words = ("train", "--data", data, "--out", out, *small(backbone))
    for part in ("train", "test"):
        (data / part / "disc").rename(data / part / "ring")
    assert "class 1 was 'disc' and is 'ring' now" in refused(*words)
    for part in ("train", "test"):
        (data / part / "ring").rename(data / part / "disc")
        shutil.copytree(data / part / "disc", data / part / "apple")
        shutil.rmtree(data / part / "square")
    assert "class 1 was 'disc' and is 'apple' now" in refused(*words)
    for part in ("train", "test"):
        shutil.rmtree(data / part / "apple")
        shutil.copytree(two_and_one[0] / part / "square", data / part / "square")
    assert "other options (mode" in refused(*words, "--mode", "paper")
    assert "other options (rate)" in refused(*words, "--rate", 0.5)


NEW = ("--from", "FINISHED", "--new-data", "ONE")
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "more tasks than classes": (("--tasks", "2"), "2 classes cannot make 2 tasks"),
    "a buffer of nothing": (("--buffer", "0"), "a buffer of 0 remembers nothing"),
    "a sparsity of 0": (("--sparsity", "0"), "leaves all or nothing"),
    "a sparsity of 1": (("--sparsity", "1"), "leaves all or nothing"),
    "a sparsity that this network cannot have": (("--sparsity", "0.99"), "take a wider one"),
    "fewer pictures than a batch": (("--batch", "64"), "a batch 64: add some"),
    "a rate that explodes": (("--rate", "1e30"), "step 2 (first in "),
    "an unknown mode": (("--mode", "fast"), "no mode 'fast'"),
    "an unknown method": (("--method", "magic"), "no method 'magic'"),
    "an unknown protocol": (("--protocol", "all"), "is no protocol"),
    "an unknown part": (("--without", "noise"), "some of masks, removal, gradients"),
    "no part at all": (("--without", "masks,removal,gradients"), "is dense"),
    "mixed labels": (("--augment", "mixup"), "leave it out"),
    "a mode of a dense method": (("--method", "er", "--mode", "edge"), "belong to sparcl"),
    "half an epoch": (("--epochs", "0.5"), "whole number"),
    "one class": (("--data", "ONE"), "one class only"),
    "events": (("--tensorboard", "events"), "see report.html"),
    "new data without an origin": (("--new-data", "ONE"), "give --from too"),
}
BAD_NEXT: dict[str, tuple[tuple[str, ...], str]] = {
    "another network": (("--network", "resnet18"), "leave --network out"),
    "other weights": (("--weights", "imagenet"), "leave --weights out"),
    "another method": (("--method", "derpp"), "with --method sparcl-derpp, not derpp"),
    "another mode": (("--mode", "paper"), "with --mode edge, not paper"),
    "another sparsity": (("--sparsity", "0.9"), "with --sparsity 0.75, not 0.9"),
    "another buffer": (("--buffer", "500"), "with --buffer 12, not 500"),
    "other parts": (("--without", "masks"), "with --without none, not masks"),
    "old data": (("--data", "TWO"), "takes no --data"),
    "no continual training": (("--from", "BACKBONE"), "holds no continual training"),
    "more tasks than new classes": (("--tasks", "2"), "1 classes cannot make 2 tasks"),
    "too few new pictures": (("--batch", "16"), "has 8 pictures to learn from"),
    "a changed picture format": (("--new-data", "EMPTY"), "holds no pictures"),
}


@pytest.fixture
def named(backbone: Path, two_and_one: tuple[Path, Path], finished: Path, tmp_path: Path) -> dict[str, str]:
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"TWO": two_and_one[0], "ONE": two_and_one[1], "FINISHED": finished, "BACKBONE": backbone}
    return {name: str(place) for name, place in {**places, "EMPTY": empty}.items()}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_line(
    words: tuple[str, ...], said: str, named: dict[str, str], backbone: Path, tmp_path: Path
) -> None:
    given = [named.get(word, word) for word in words]
    out = tmp_path / "out"
    assert said in refused("train", "--data", named["TWO"], "--out", out, *small(backbone), *given)
    assert not (out / "network.json").exists() and not (out / CONTINUAL).exists()


@pytest.mark.parametrize(("words", "said"), BAD_NEXT.values(), ids=BAD_NEXT)
def test_what_contradicts_the_first_training_is_refused(
    words: tuple[str, ...], said: str, named: dict[str, str], tmp_path: Path
) -> None:
    given = [named.get(word, word) for word in (*NEW, *words)]
    assert said in refused("train", "--out", tmp_path / "out", *given)


@pytest.mark.parametrize(
    "words", [("--buffer", 5), ("--mode", "edge"), ("--without", "masks"), ("--protocol", "x"), ("--clip", 1)]
)
def test_options_of_a_continual_training_are_not_ignored_by_another(
    words: tuple[object, ...], drawn: Path, tmp_path: Path
) -> None:
    assert "give --method too" in refused("train", "--data", drawn, "--out", tmp_path / "out", *words)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_killed_goes_on_bit_for_bit(
    number: signal.Signals, finished: Path, two_and_one: tuple[Path, Path], tmp_path: Path
) -> None:
    def words(name: str) -> tuple[object, ...]:
        asked = ("--epochs", 40, "--batch", 4, "--save-every", 7)
        return ("train", "--from", finished, "--new-data", two_and_one[1], "--out", tmp_path / name, *asked)

    ok(*words("whole"))
    process = started(*words("cut"))
    _await(tmp_path / "cut" / RUNNING / "training.json", process)
    process.send_signal(number)
    said, err = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[number], err
    assert said == "" and not (tmp_path / "cut" / "network.json").exists()
    again = call(*words("cut"), "--json")
    assert again.status == 0 and "going on at step" in again.err, again
    same_training(tmp_path / "whole", tmp_path / "cut")


def _await(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
