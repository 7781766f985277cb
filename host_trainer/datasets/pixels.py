"""Decodes every picture once, at the size it is trained at, into one file that is mapped, not loaded."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_cl.errors import ConfigError, ImageError, StoreError
from edge_cl.vision.frames import decode_image, image_hash, read_bytes
from host_trainer.artefacts import PART, make_folder
from host_trainer.datasets.folders import Pictures
from host_trainer.datasets.records import Records
from host_trainer.datasets.views import WHOLE, View, views_of

DECODERS = 2  # threads; Pillow decodes outside of Python's lock
AHEAD = 64  # pictures decoded before they are wanted: 64 of 12 MP are 36 MB each, but scaled at once
LAYOUT = 2  # of the file; another number makes every cache anew

Watch = Callable[[int], None]


class Pixels(NamedTuple):
    """Decoded pictures.

    Attributes:
        values: (N, V, H, W, 3) uint8, mapped from the file; V views of each picture, the whole one first.
        pictures: the N that could be read, in their order.
        refused: for each other one, why: "NAME: REASON".
    """

    values: NDArray[np.uint8]
    pictures: Pictures
    refused: tuple[str, ...]


def open_pixels(
    pictures: Pictures,
    size: tuple[int, int],
    cache: Path,
    *,
    views: int = 1,
    seed: int = 0,
    watch: Watch = lambda done: None,
) -> Pixels:
    """Return the pictures at `size` = (H, W), stretched to fit as the device does it.

    The file in `cache` is found again by what the pictures' names, lengths and times were; the second call
    takes no time. Memory: pages of the mapped file, which the system takes back as it likes.

    Raises:
        ConfigError: no picture can be read.
        StoreError: the cache cannot be written.
    """
    name = _name(pictures.paths, size, views, seed)
    path, refusals = make_folder(cache) / f"{name}.pixels", cache / f"{name}.refused"
    shape = (views, *size, 3)
    if not path.is_file() or not refusals.is_file():
        _decode(pictures, size, views, seed, path, refusals, watch)
    refused = dict(line.split("\t", 1) for line in refusals.read_text("utf-8").splitlines())
    kept = [i for i in range(len(pictures.paths)) if str(i) not in refused]
    if not kept:
        raise ConfigError(
            f"none of {len(pictures.paths)} pictures can be read: {next(iter(refused.values()))}"
        )
    values = np.memmap(path, np.uint8, "r", shape=(len(kept), *shape))
    return Pixels(values, pictures.at(kept), tuple(refused.values()))


def open_records(
    records: Records, size: tuple[int, int], cache: Path, watch: Watch = lambda done: None
) -> NDArray[np.uint8]:
    """Return recorded pictures at `size` = (H, W), (N, H, W, 3) uint8, from such a file in `cache` too.

    Raises:
        StoreError: the cache cannot be written.
    """
    path = make_folder(cache) / f"{_name(records.paths, size, 1, 0)}.pixels"
    if not path.is_file():
        with _whole_file(path) as file:
            pictures = (picture for block in records.blocks for picture in block)
            for done, picture in enumerate(pictures, start=1):
                image = Image.fromarray(np.ascontiguousarray(picture))
                file.write(np.ascontiguousarray(scaled(image, WHOLE, size)).tobytes())
                watch(done)
    return np.memmap(path, np.uint8, "r", shape=(len(records.labels), *size, 3))


class Views:
    """Views of pictures, decoded when asked for: `views[pictures, numbers]`, (B,) indices each.

    Attributes:
        shape: (N, V, H, W, 3).
        key: hash of everything the pixels depend on.
    """

    dtype, ndim = np.dtype(np.uint8), 5

    def __init__(self, pictures: Pictures, size: tuple[int, int], views: int, seed: int = 0) -> None:
        self.shape = (len(pictures.paths), views, *size, 3)
        self.key = _name(pictures.paths, size, views, seed)
        self._pictures, self._seed = pictures, seed

    def __getitem__(self, places: tuple[NDArray[np.intp], NDArray[np.intp]]) -> NDArray[np.uint8]:
        """Return the views at these places: (B, H, W, 3) uint8.

        Raises:
            ImageError: a picture that can no longer be read.
        """
        found = np.empty((len(places[0]), *self.shape[2:]), np.uint8)
        for picture in np.unique(places[0]):
            data = read_bytes(self._pictures.paths[picture])
            image = decode_image(data, self._pictures.paths[picture].name)
            seen = views_of(image_hash(data), self.shape[1], self._seed)
            for row in np.flatnonzero(places[0] == picture):
                found[row] = scaled(image, seen[places[1][row]], self.shape[2:4])
        return found


def scaled(image: Image.Image, view: View, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return one view of a picture at `size` = (H, W): (H, W, 3) uint8."""
    box = (
        view.left * image.width,
        view.top * image.height,
        view.right * image.width,
        view.bottom * image.height,
    )
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if view.mirrored else pixels


def decoded_views(
    pictures: Pictures, size: tuple[int, int], views: int, seed: int
) -> Iterator[NDArray[np.uint8] | str]:
    """Yield for each picture its views (V, H, W, 3) uint8, or why it cannot be read; in two threads."""

    def decode(path: Path) -> NDArray[np.uint8] | str:
        try:
            data = read_bytes(path)
            image = decode_image(data, path.name)
        except ImageError as error:
            return str(error)
        return np.stack([scaled(image, view, size) for view in views_of(image_hash(data), views, seed)])

    with ThreadPoolExecutor(DECODERS) as pool:
        paths = iter(pictures.paths)
        waiting = [pool.submit(decode, path) for path in islice(paths, AHEAD)]
        while waiting:
            found = waiting.pop(0).result()
            waiting += [pool.submit(decode, path) for path in islice(paths, 1)]
            yield found


def _decode(
    pictures: Pictures, size: tuple[int, int], views: int, seed: int, path: Path, refusals: Path, watch: Watch
) -> None:
    refused = []
    with _whole_file(path) as file:
        for number, found in enumerate(decoded_views(pictures, size, views, seed)):
            if isinstance(found, str):
                refused.append(f"{number}\t{found}")
            else:
                file.write(np.ascontiguousarray(found).tobytes())
            watch(number + 1)
        refusals.write_text("\n".join(refused), "utf-8")


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the name `path` when the block ends well, and is gone when it does not.

    Its name until then is this process's own: others may be making the same.
    """
    part = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise StoreError(
            f"the picture cache {path.parent} cannot be written ({error.strerror}): name another with --cache"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _name(paths: Sequence[Path], size: tuple[int, int], views: int, seed: int) -> str:
    digest = hashlib.sha256(f"{LAYOUT} {size} {views} {seed}".encode())
    for path in paths:
        facts = path.stat()
        digest.update(
            f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()[:24]
