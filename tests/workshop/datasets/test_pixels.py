"""Pictures are decoded once, as the device sees them, and what cannot be read is left out aloud."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_cl.errors import ConfigError, StoreError
from edge_cl.vision.frames import read_image
from edge_cl.vision.preprocess import prepare
from host_trainer.datasets.folders import read_folder, read_unlabelled
from host_trainer.datasets.pixels import Views, open_pixels


def test_the_whole_picture_is_what_the_device_sees(photos: Path, tmp_path: Path) -> None:
    train = read_folder(photos).train
    pixels = open_pixels(train, (32, 40), tmp_path / "cache")
    assert pixels.values.shape == (24, 1, 32, 40, 3)
    for number in (0, 11, 23):
        assert np.array_equal(pixels.values[number, 0], prepare(read_image(train.paths[number]), (32, 40)))


def test_the_second_time_nothing_is_decoded(drawn: Path, tmp_path: Path) -> None:
    train = read_folder(drawn).train
    seen: list[int] = []
    first = open_pixels(train, (16, 16), tmp_path, watch=seen.append)
    again = open_pixels(train, (16, 16), tmp_path, watch=seen.append)
    assert seen == list(range(1, 25))
    assert np.array_equal(first.values, again.values)


def test_a_changed_picture_is_decoded_anew(drawn: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    before = open_pixels(read_folder(copy).train, (16, 16), tmp_path / "cache").values[0].copy()
    shutil.copy(copy / "train" / "stripes" / "0.png", copy / "train" / "disc" / "0.png")
    after = open_pixels(read_folder(copy).train, (16, 16), tmp_path / "cache").values[0]
    assert not np.array_equal(before, after)


def test_unreadable_pictures_are_left_out_and_named(drawn: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    damaged = copy / "train" / "disc" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    for _ in range(2):  # decoded, and from the cache
        pixels = open_pixels(read_folder(copy).train, (16, 16), tmp_path / "cache")
        assert len(pixels.values) == len(pixels.pictures.paths) == 23
        assert len(pixels.refused) == 1
        assert pixels.refused[0].startswith("0.png: ")


def test_with_no_readable_picture_it_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="none of 4 pictures can be read"):
        open_pixels(read_folder(tmp_path).train, (16, 16), tmp_path / "cache")


def test_views_decoded_on_demand_are_those_of_the_file(photos: Path, tmp_path: Path) -> None:
    pictures = read_unlabelled([photos])
    kept = open_pixels(pictures, (24, 24), tmp_path, views=5, seed=3).values
    views = Views(pictures, (24, 24), 5, seed=3)
    which, number = np.array([7, 0, 7, 23]), np.array([4, 0, 1, 2])
    assert np.array_equal(views[which, number], kept[which, number])


def test_a_cache_that_cannot_be_written_is_one_line(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        open_pixels(read_folder(drawn).train, (16, 16), tmp_path / "file")


def test_a_full_disk_leaves_no_half_cache(drawn: Path, tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from host_trainer.datasets.folders import read_folder
from host_trainer.datasets.pixels import open_pixels
from edge_cl.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
train = read_folder(Path({str(drawn)!r})).train
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    open_pixels(train, (64, 64), Path({str(tmp_path / "cache")!r}))
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert not list((tmp_path / "cache").glob("*"))


def test_many_pictures_do_not_cost_memory(drawn: Path, tmp_path: Path) -> None:
    """30,000 pictures of 96 px are 829 MB on the disk; mapped, the process stays small."""
    many = tmp_path / "many"
    for number in range(1500):
        place = many / f"class{number % 3}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(drawn / "train" / "disc" / "0.png", place)
    code = f"""
import resource
from pathlib import Path
from host_trainer.datasets.folders import read_folder
from host_trainer.datasets.pixels import open_pixels
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
train = read_folder(Path({str(many)!r})).train
before = peak()
pixels = open_pixels(train, (96, 96), Path({str(tmp_path / "cache")!r}))
print(peak() - before, pixels.values.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, held = map(int, done.stdout.split())
    assert held == 1500 * 96 * 96 * 3
    assert grown < held / 2
