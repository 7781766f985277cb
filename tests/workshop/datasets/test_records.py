"""CIFAR's and MNIST's own files are read as they are, and files that lie are refused in one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.datasets.records import MAX_IDX_BYTES, read_cifar, read_idx, read_idx_pair, read_names

SEEDS = st.integers(0, 2**31)
FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def cifar_bytes(images: np.ndarray, labels: np.ndarray, coarse: bool = False) -> bytes:
    """Write records as the data set's page describes them: labels, then red, green and blue planes."""
    first = [np.full((len(labels), 1), 7, np.uint8)] if coarse else []
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.hstack([*first, labels[:, None].astype(np.uint8), planes]).tobytes()


def idx_bytes(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def drawn_pictures(count: int, seed: int, shape: tuple[int, ...] = (32, 32, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), SEEDS)
def test_cifar_records_read_back_as_written(
    tmp_path: Path, counts: list[int], coarse: bool, seed: int
) -> None:
    images = drawn_pictures(sum(counts), seed)
    labels = np.random.default_rng(seed).integers(0, 10, sum(counts))
    paths, at = [tmp_path / f"{number}.bin" for number in range(len(counts))], 0
    for path, count in zip(paths, counts, strict=True):
        path.write_bytes(cifar_bytes(images[at : at + count], labels[at : at + count], coarse))
        at += count
    records = read_cifar(paths, 2 if coarse else 1, 10)
    assert np.array_equal(np.concatenate(records.blocks), images)
    assert records.labels.dtype == np.int32
    assert np.array_equal(records.labels, labels)


@FEW
@given(st.integers(1, 5), st.booleans(), SEEDS)
def test_idx_files_read_back_as_written_in_three_channels(
    tmp_path: Path, count: int, packed: bool, seed: int
) -> None:
    images = drawn_pictures(count, seed, (28, 28))
    labels = np.random.default_rng(seed).integers(0, 10, count)
    ending, pack = (".gz", gzip.compress) if packed else ("", bytes)
    paths = [tmp_path / f"{name}{ending}" for name in ("images", "labels")]
    for path, values in zip(paths, (images, labels), strict=True):
        path.write_bytes(pack(idx_bytes(values)))
    records = read_idx_pair(*paths, (28, 28), 10)
    assert records.blocks[0].shape == (count, 28, 28, 3)
    assert all(np.array_equal(records.blocks[0][..., channel], images) for channel in range(3))
    assert np.array_equal(records.labels, labels)


CIFAR = cifar_bytes(drawn_pictures(2, 0), np.array([3, 9]))
HOSTILE_CIFAR = {
    "empty": (b"", "no whole number of records"),
    "cut off": (CIFAR[:-1], "no whole number of records"),
    "one byte more": (CIFAR + b"\0", "no whole number of records"),
    "a class too many": (
        cifar_bytes(drawn_pictures(1, 0), np.array([10])),
        "names class 10, there are 0 to 9",
    ),
}


@pytest.mark.parametrize(("data", "says"), HOSTILE_CIFAR.values(), ids=HOSTILE_CIFAR)
def test_a_hostile_cifar_file_is_one_line(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(data)
    with pytest.raises(ConfigError, match=says) as refusal:
        read_cifar([tmp_path / "data_batch_1.bin"], 1, 10)
    assert str(refusal.value).startswith("data_batch_1.bin: ")
    assert "\n" not in str(refusal.value)


IDX = idx_bytes(drawn_pictures(2, 0, (28, 28)))
HUGE = bytes([0, 0, 8, 3]) + b"\xff" * 12
HOSTILE_IDX = {
    "empty": (b"", "is no idx file"),
    "half a header": (IDX[:6], "is no idx file|claims"),
    "wrong magic": (b"\x89PNG" + IDX[4:], "is no idx file"),
    "floats": (bytes([0, 0, 13, 3]) + IDX[4:], "is no idx file"),
    "labels for pictures": (idx_bytes(np.arange(4)), "with 3 axes"),
    "cut off": (IDX[:-1], "does not hold the 1568 values"),
    "one byte more": (IDX + b"\0", "does not hold the 1568 values"),
    "a huge header": (HUGE, f"not 1 to {MAX_IDX_BYTES}"),
    "a header near the bound": (bytes([0, 0, 8, 3]) + b"\0\0\x10\0" * 2 + b"\0\0\0\x10", "does not hold"),
    "no pictures": (bytes([0, 0, 8, 3]) + bytes(12), "claims 0 values"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("data", "says"), HOSTILE_IDX.values(), ids=HOSTILE_IDX)
def test_a_hostile_idx_file_is_one_line(tmp_path: Path, data: bytes, says: str, packed: bool) -> None:
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ConfigError, match=says) as refusal:
        read_idx(path, 3)
    assert "\n" not in str(refusal.value)


DAMAGED_GZIP = {
    "no gzip": IDX,
    "cut off": gzip.compress(IDX)[:-20],
    "a flipped bit": (lambda data: data[:40] + bytes([data[40] ^ 255]) + data[41:])(gzip.compress(IDX)),
    "an empty file": b"",
}


@pytest.mark.parametrize("data", DAMAGED_GZIP.values(), ids=DAMAGED_GZIP)
def test_a_damaged_gzip_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "images.gz").write_bytes(data)
    with pytest.raises(ConfigError, match="^images.gz: .*(damaged or cut off|is no idx file|does not hold)"):
        read_idx(tmp_path / "images.gz", 3)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    claimed = bytes([0, 0, 8, 1]) + (1000).to_bytes(4, "big")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(claimed + bytes(64 << 20)))
    with pytest.raises(ConfigError, match="does not hold the 1000 values"):
        read_idx(tmp_path / "bomb.gz", 1)


PAIRS = {
    "another size": (np.zeros((2, 27, 28)), np.array([0, 1]), "pictures of 28 x 27, not of 28 x 28"),
    "fewer labels": (np.zeros((2, 28, 28)), np.array([0]), "2 pictures and labels 1 labels"),
    "a class too many": (np.zeros((2, 28, 28)), np.array([0, 10]), "labels: names class 10"),
}


@pytest.mark.parametrize(("images", "labels", "says"), PAIRS.values(), ids=PAIRS)
def test_idx_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, says: str
) -> None:
    (tmp_path / "images").write_bytes(idx_bytes(images))
    (tmp_path / "labels").write_bytes(idx_bytes(labels))
    with pytest.raises(ConfigError, match=says):
        read_idx_pair(tmp_path / "images", tmp_path / "labels", (28, 28), 10)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    for read in (lambda path: read_idx(path, 3), lambda path: read_cifar([path], 1, 10), read_names):
        with pytest.raises(ConfigError, match="cannot be opened"):
            read(tmp_path / "absent")
        with pytest.raises(ConfigError, match="is not a plain file"):
            read(tmp_path)


def test_lists_of_names_are_held_to_their_number(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\ndog\n\n\n")
    assert read_names(path, 2) == ("cat", "dog")
    for data, says in (
        (b"cat\n", "1 names, not 2"),
        (b"cat\ncat\n", "a name twice"),
        (b"cat\n\xff\xfe\n", "no text in UTF-8"),
        (b"x" * 70_000, "larger than"),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=says):
            read_names(path, 2)
