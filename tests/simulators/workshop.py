"""A person's desk: real photographs in folders, a real backbone, a state folder, and the command line."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_cl.cli import main

BACKBONE = Path("mlperf_tiny") / "pretrainedResnet_quant.tflite"  # 64 values, a millisecond: the quickest
BETTER_BACKBONE = Path("coral") / "mobilenet_v1_0.25_128_quant.tflite"  # a classifier that has to be cut
PHOTOS_PER_CLASS = 6
TIMEOUT_S = 120.0


class Said(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        return json.loads(self.out)


def call(*words: object) -> Said:
    """Run `edge-cl` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    return Said(status, out.getvalue(), err.getvalue())


def ok(*words: object) -> dict[str, Any]:
    """Run `edge-cl` in this process with --json; it has to succeed."""
    said = call(*words, "--json")
    assert said.status == 0, said
    return said.json


def refused(*words: object) -> str:
    """Run `edge-cl` in this process; it has to end with status 2 and one line, which is returned."""
    said = call(*words)
    assert said.status == 2, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    return said.err


def process(*words: object, **environment: str) -> Said:
    """Run `edge-cl` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_cl.cli", *(str(word) for word in words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **environment},
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def backbone(models_dir: Path) -> Path:
    """The quickest real image model at hand."""
    return models_dir / BACKBONE


@pytest.fixture(scope="session")
def all_photos(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs of ten hand signs: train/DIGIT/*.jpg, a dozen each."""
    folder = tmp_path_factory.mktemp("photos")
    taken: dict[str, int] = {}
    with tarfile.open(data_dir / "signdigits_100" / "signdigits_100.tar") as tar:
        for member in (each for each in tar if each.name.lower().endswith(".jpg")):
            label = Path(member.name).parent.name
            taken[label] = taken.get(label, 0) + 1
            picture = tar.extractfile(member)
            if taken[label] <= 2 * PHOTOS_PER_CLASS and picture is not None:
                place = folder / label / f"{taken[label]:02}.jpg"
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(picture.read())
    return folder


@pytest.fixture
def photos(all_photos: Path, tmp_path: Path) -> Path:
    """Three classes of six photographs, free to be spoiled: PHOTOS/CLASS/*.jpg."""
    folder = tmp_path / "PHOTOS"
    for label in ("0", "1", "2"):
        (folder / label).mkdir(parents=True)
        for path in sorted((all_photos / label).iterdir())[:PHOTOS_PER_CLASS]:
            (folder / label / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def state(backbone: Path, tmp_path: Path) -> Path:
    """A new learner."""
    folder = tmp_path / "state"
    ok("init", "--state", folder, "--backbone", backbone, "--buffer-bytes", "200k")
    return folder


@pytest.fixture
def taught(state: Path, photos: Path) -> Path:
    """A learner that was taught PHOTOS."""
    assert ok("learn", photos, "--state", state)["learned"] == 3 * PHOTOS_PER_CLASS
    return state
