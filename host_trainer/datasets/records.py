"""Reads pictures kept as plain bytes: CIFAR's binary records and MNIST's idx files; believes no header.

Layouts: the data sets' own pages (Krizhevsky 2009, "binary version"; LeCun et al., "the IDX file format").
"""

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from edge_cl.vision.files import one_line, open_plain, shown

CIFAR_SIDE_PX = 32
CIFAR_VALUES = 3 * CIFAR_SIDE_PX**2  # red, green and blue planes, row by row
IDX_BYTES_OF = b"\0\0\x08"  # magic: two zeros, then 8 for unsigned bytes; the number of axes follows
MAX_IDX_BYTES = 256 << 20  # MNIST's largest file unpacks to 47 MB
MAX_NAMES_BYTES = 1 << 16
GZIP_SUFFIX = ".gz"


class Records(NamedTuple):
    """Pictures as they lie in files.

    Attributes:
        paths: of the files.
        blocks: (n, H, W, 3) uint8 each, views of the files' bytes; together N pictures.
        labels: (N,) int32.
    """

    paths: tuple[Path, ...]
    blocks: tuple[NDArray[np.uint8], ...]
    labels: NDArray[np.int32]


def read_cifar(paths: Sequence[Path], label_bytes: int, classes: int) -> Records:
    """Read records of `label_bytes` labels (the last one counts) and a picture of 32 x 32.

    Raises:
        ConfigError: a file that cannot be opened, is cut off, or names a class that does not exist.
    """
    parts = [_cifar_records(path, label_bytes) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        _check_labels(path, part[:, label_bytes - 1], classes)
    blocks = tuple(_planes_last(part[:, label_bytes:]) for part in parts)
    return Records(
        tuple(paths), blocks, np.concatenate([part[:, label_bytes - 1] for part in parts]).astype(np.int32)
    )


def read_idx_pair(images: Path, labels: Path, size: tuple[int, int], classes: int) -> Records:
    """Read grey pictures of `size` = (H, W) and their labels from two idx files, packed by gzip or not.

    Raises:
        ConfigError: a file that cannot be opened, is cut off or damaged, is of another kind or size, names a
            class that does not exist, or is not the other one's partner.
    """
    pictures, names = read_idx(images, 3), read_idx(labels, 1)
    if pictures.shape[1:] != size:
        height, width = pictures.shape[1:]
        raise ConfigError(
            f"{shown(images.name)}: holds pictures of {width} x {height}, not of {size[1]} x {size[0]}:"
            " take the data set's own file"
        )
    if len(pictures) != len(names):
        raise ConfigError(
            f"{shown(images.name)} holds {len(pictures)} pictures and {shown(labels.name)} {len(names)}"
            " labels: take both from one archive"
        )
    _check_labels(labels, names, classes)
    grey = np.broadcast_to(pictures[..., None], (*pictures.shape, 3))
    return Records((images, labels), (grey,), names.astype(np.int32))


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return the array of bytes in an idx file, packed by gzip where its name ends in .gz.

    Raises:
        ConfigError: not such a file, of another number of axes, empty, cut off, too long, or too large.
    """
    name = shown(path.name)
    file, _ = open_plain(path, ConfigError)
    with file:
        source = gzip.GzipFile(fileobj=file) if path.suffix == GZIP_SUFFIX else file
        header = _bytes(source, 4 + 4 * axes, name)
        if header[:4] != IDX_BYTES_OF + bytes([axes]):
            raise ConfigError(
                f"{name}: is no idx file of bytes with {axes} axes: take the data set's own file"
            )
        shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
        if not 0 < prod(shape) <= MAX_IDX_BYTES:
            raise ConfigError(
                f"{name}: claims {prod(shape)} values, not 1 to {MAX_IDX_BYTES}: fetch it again"
            )
        values = _bytes(source, prod(shape) + 1, name)  # one more shows that it ends
    if len(values) != prod(shape):
        raise ConfigError(f"{name}: does not hold the {prod(shape)} values it claims: fetch it again")
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_names(path: Path, count: int | None = None) -> tuple[str, ...]:
    """Return the class names of a text file, one a line; `count` of them where it is given.

    Raises:
        ConfigError: cannot be read, or holds no names, another number of them, or one twice.
    """
    names = tuple(line.strip() for line in read_text(path, MAX_NAMES_BYTES).splitlines() if line.strip())
    if count is not None and len(names) != count:
        raise ConfigError(f"{shown(path.name)}: holds {len(names)} names, not {count}: fetch it again")
    if not names:
        raise ConfigError(f"{shown(path.name)}: holds no names: fetch it again")
    if len(set(names)) != len(names):
        raise ConfigError(f"{shown(path.name)}: holds a name twice: fetch it again")
    return names


def read_text(path: Path, most_bytes: int) -> str:
    """Return a text file in UTF-8.

    Raises:
        ConfigError: cannot be opened, too large, or no text.
    """
    file, size_bytes = open_plain(path, ConfigError)
    with file:
        if size_bytes > most_bytes:
            raise ConfigError(f"{shown(path.name)}: is larger than {most_bytes} bytes: fetch it again")
        try:
            return file.read(most_bytes).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{shown(path.name)}: is no text in UTF-8: fetch it again") from error


def _cifar_records(path: Path, label_bytes: int) -> NDArray[np.uint8]:
    """Map a file as (n, label_bytes + 3072)."""
    file, size_bytes = open_plain(path, ConfigError)
    with file:
        count, left = divmod(size_bytes, label_bytes + CIFAR_VALUES)
        if left or not count:
            raise ConfigError(
                f"{shown(path.name)}: {size_bytes} bytes are no whole number of records of"
                f" {label_bytes + CIFAR_VALUES}: it is cut off or of another kind; fetch it again"
            )
        return np.memmap(file, np.uint8, "r", shape=(count, label_bytes + CIFAR_VALUES))


def _planes_last(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """View (n, 3072) as (n, 32, 32, 3)."""
    return values.reshape(len(values), 3, CIFAR_SIDE_PX, CIFAR_SIDE_PX).transpose(0, 2, 3, 1)


def _check_labels(path: Path, labels: NDArray[np.uint8], classes: int) -> None:
    if labels.max() >= classes:
        raise ConfigError(
            f"{shown(path.name)}: names class {labels.max()}, there are 0 to {classes - 1}: it is damaged or"
            " of another kind; fetch it again"
        )


def _bytes(source: BinaryIO | gzip.GzipFile, most: int, name: str) -> bytes:
    try:
        return source.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{name}: is damaged or cut off ({one_line(error)}): fetch it again") from error
