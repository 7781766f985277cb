"""A newcomer names no backbone: the one that ships is taken, and where it was left out, one line says so."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.workshop import TIMEOUT_S, Said, call, ok

import edge_cl
from edge_cl.device import shipped

ROOT = Path(__file__).parents[2]
DIGITS = ("0", "1", "7")
PICTURES = {"train": 12, "test": 12}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real handwritten digits that need no download: DIR/train/DIGIT/*.png and DIR/test/DIGIT/*.png."""
    spec = importlib.util.spec_from_file_location("digits", ROOT / "benchmarks" / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    folder = tmp_path_factory.mktemp("digits")
    assert source.unpack(folder, PICTURES) == 240
    for part in PICTURES:
        for label in set(source.CLASSES) - set(DIGITS):
            shutil.rmtree(folder / part / label)
    return folder


@pytest.fixture
def stripped(tmp_path: Path) -> Callable[..., Said]:
    """Return the command line of an installation that left the backbone out, for the sake of its size."""
    folder = tmp_path / "stripped"
    shutil.copytree(
        Path(edge_cl.__file__).parent, folder / "edge_cl", ignore=shutil.ignore_patterns("__pycache__")
    )

    def say(*words: object) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "edge_cl.cli", *map(str, words)],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    return say


def test_a_newcomer_names_no_backbone_and_teaches_at_once(tmp_path, digits):
    state = tmp_path / "state"
    made = ok("init", "--state", state, "--no-mirror")
    assert made["is_shipped"]
    assert made["backbone"]["name"] == shipped.BACKBONE
    assert made["backbone"]["warnings"] == []
    assert ok("learn", digits / "train", "--state", state)["learned"] == 36
    files = sorted((digits / "test").glob("*/*.png"))
    told = ok("predict", *files, "--state", state)["predictions"]
    right = sum(found["best"] == path.parent.name for found, path in zip(told, files, strict=True))
    assert right >= 30  # of 36


def test_the_words_say_which_it_is_and_how_to_take_another(tmp_path):
    said = call("init", "--state", tmp_path / "state")
    assert said.status == 0
    assert shipped.BACKBONE in said.out
    assert "`edge-cl init --backbone FILE` takes another" in said.out


def test_a_backbone_that_was_named_is_not_called_ours(tmp_path, backbone):
    state = tmp_path / "state"
    said = call("init", "--state", state, "--backbone", backbone)
    assert "ships with edge-cl" not in said.out
    assert ok("backbone", "add", "--state", state)["name"] == shipped.BACKBONE  # back to the one that ships
    assert len(ok("backbone", "list", "--state", state)["backbones"]) == 2


def test_a_learner_is_measured_without_naming_a_backbone(tmp_path, digits):
    cache = tmp_path / "features.db"
    found = ok("eval", "--data", digits, "--learner", "slda", "--no-mirror", "--cache", cache)
    assert found["backbone"]["file"] == shipped.BACKBONE
    assert found["final_accuracy"] > 0.8


def test_a_stripped_installation_makes_a_learner_that_says_what_is_missing(tmp_path, digits, stripped):
    state = tmp_path / "state"
    made = stripped("init", "--state", state, "--json")
    assert (made.json["backbone"], made.json["is_shipped"]) == (None, False)
    assert "edge-cl backbone add FILE" in stripped("init", "--state", state).out
    assert stripped("status", "--state", state, "--json").json["backbone"] is None
    refused = stripped("learn", digits / "train", "--state", state)
    assert (refused.status, "edge-cl backbone add" in refused.err) == (2, True)
    added = stripped("backbone", "add", shipped.find(), "--state", state, "--json")
    assert added.json["name"] == shipped.BACKBONE
    assert stripped("learn", digits / "train", "--state", state, "--json").json["learned"] == 36


@pytest.mark.parametrize("command", ["eval --data {data}", "backbone add --state {state}"])
def test_a_stripped_installation_asks_for_a_file_in_one_line(tmp_path, digits, stripped, command):
    stripped("init", "--state", tmp_path / "state")
    said = stripped(*command.format(data=digits, state=tmp_path / "state").split())
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert shipped.BACKBONE in said.err
