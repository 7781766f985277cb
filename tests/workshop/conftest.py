"""What the workshop's tests share: drawn pictures where many are needed, and real photographs."""

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KINDS = ("disc", "square", "stripes")
TAUGHT, ASKED = 8, 3  # pictures of a class


def draw(kind: str, number: int, size: int = 48) -> Image.Image:
    """Draw one picture: a bright shape on a dark, noisy ground."""
    rng = np.random.default_rng((KINDS.index(kind), number))
    y, x = np.mgrid[:size, :size] / size - rng.uniform(0.4, 0.6, (2, 1, 1))
    shape = {
        "disc": x**2 + y**2 < 0.06,
        "square": np.maximum(abs(x), abs(y)) < 0.25,
        "stripes": np.sin(40 * x) > 0,
    }[kind]
    pixels = rng.integers(0, 60, (size, size, 3)) + 150 * shape[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three kinds of drawn pictures, train and test."""
    root = tmp_path_factory.mktemp("drawn")
    for kind in KINDS:
        for number in range(TAUGHT + ASKED):
            place = root / ("train" if number < TAUGHT else "test") / kind
            place.mkdir(parents=True, exist_ok=True)
            draw(kind, number).save(place / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def photos(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of real photographs: three kinds of waste, eight each to learn from, three to ask."""
    root, source = tmp_path_factory.mktemp("photos"), data_dir / "trashnet_224"
    with (source / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] in ("glass", "paper", "metal")]
    count: dict[tuple[str, str], int] = {}
    with tarfile.open(source / "trashnet_224.tar") as tar:
        members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
        for row in rows:
            key = ("test" if row["split"] == "test" else "train", row["class"])
            count[key] = count.get(key, 0) + 1
            if count[key] > (TAUGHT if key[0] == "train" else ASKED):
                continue
            place = root / key[0] / key[1]
            place.mkdir(parents=True, exist_ok=True)
            data = tar.extractfile(members[row["path"]])
            assert data is not None
            (place / Path(row["path"]).name).write_bytes(data.read())
    return root
