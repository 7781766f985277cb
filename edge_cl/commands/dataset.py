"""Touches a data set on disk: DIR/train/CLASS/*, DIR/test/CLASS/* and manifest.csv become features."""

import contextlib
import csv
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.device.folders import MANIFEST, Picture, Refused, from_folder
from edge_cl.errors import ConfigError, ImageError, ModelError
from edge_cl.evaluation.protocols import Samples
from edge_cl.memory.cache import FeatureCache, FeatureKey
from edge_cl.sample import label_key
from edge_cl.vision.backbone import ONNX, Backbone, open_backbone, read_model_file
from edge_cl.vision.extractor import cut_at_embedding
from edge_cl.vision.frames import decode_image, image_hash, read_bytes
from edge_cl.vision.preprocess import prepare, views

CACHE_BATCH = 32  # pictures kept with one write
EMBED_PROBES = 16  # pictures embedded for their time alone, so that a cached run has a figure too

Watch = Callable[[int, str], None]


class Taken(NamedTuple):
    """When a picture was taken, as the manifest says it."""

    session: str
    order: int | None


class DataSet(NamedTuple):
    """Pictures for training and for asking, and what had to be refused without opening it."""

    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    taken: dict[Path, Taken]
    refused: tuple[Refused, ...]


class Embedded(NamedTuple):
    """Readable pictures as features, and those that were not."""

    samples: Samples
    refused: tuple[Refused, ...]


def read_data_set(folder: Path) -> DataSet:
    """Return the pictures below DIR/train and DIR/test; opens none of them.

    Raises:
        ConfigError: a part is missing, empty, or names classes that differ in spelling only.
    """
    parts = {}
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise ConfigError(
                f"{folder} has no folder {part}: give DIR with DIR/train/CLASS/* and DIR/test/CLASS/*"
            )
        parts[part] = from_folder(folder / part)
        if not parts[part].pictures:
            raise ConfigError(f"{folder / part} holds no pictures: put some into {part}/CLASS/")
    _check_names({picture.label for offer in parts.values() for picture in offer.pictures})
    refused = parts["train"].refused + parts["test"].refused
    return DataSet(parts["train"].pictures, parts["test"].pictures, _taken(folder), refused)


@contextlib.contextmanager
def opened_at_embedding(path: Path, num_threads: int, engines: Path | None = None) -> Iterator[Backbone]:
    """Open a backbone file; a TFLite classifier is cut at its embedding first, in memory.

    `engines` is the folder for what TensorRT builds from an ONNX file.

    Raises:
        ModelError: the file cannot serve.
        EngineError: no interpreter works here.
    """
    format_of_file = read_model_file(path).format  # its refusals are clearer than the parser's
    if format_of_file == ONNX:
        with open_backbone(path, num_threads=num_threads, engine_cache=engines) as backbone:
            yield backbone
        return
    try:
        cut = cut_at_embedding(path.read_bytes())
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from error
    if not cut.removed:
        with open_backbone(path, num_threads=num_threads) as backbone:
            yield backbone
        return
    descriptor = os.memfd_create(path.name)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(cut.data)
        with open_backbone(f"/proc/self/fd/{descriptor}", num_threads=num_threads) as backbone:
            yield backbone
    finally:
        os.close(descriptor)


class Embedder:
    """Turns pictures into `count` views' features with one backbone, and remembers them in the cache."""

    def __init__(self, backbone: Backbone, cache: FeatureCache, count: int, mirror: bool) -> None:
        self._backbone, self._cache = backbone, cache
        self._count, self._mirror = count, mirror
        self._fresh: dict[FeatureKey, NDArray[Any]] = {}

    def embed(self, pictures: tuple[Picture, ...], taken: dict[Path, Taken], watch: Watch) -> Embedded:
        """Embed pictures; unreadable ones are listed and left out."""
        found: list[tuple[Picture, NDArray[Any]]] = []
        refused = []
        for number, picture in enumerate(pictures):
            try:
                found.append((picture, self._features(picture)))
            except ImageError as error:
                refused.append(Refused(str(picture.path), str(error).removeprefix(f"{picture.path.name}: ")))
            watch(number + 1, picture.label)
        self._keep()
        return Embedded(_samples(found, taken, self._empty()), tuple(refused))

    def probe(self, pictures: tuple[Picture, ...]) -> list[float]:
        """Return the milliseconds of embedding one whole picture each, from its pixels, of the first few."""
        times_ms = []
        for picture in pictures[:EMBED_PROBES]:
            with contextlib.suppress(ImageError):
                image = decode_image(read_bytes(picture.path), picture.path.name)
                pixels = prepare(image, self._backbone.input_size, self._backbone.policy)
                start = time.perf_counter()
                self._backbone.embed(pixels)
                times_ms.append(1000 * (time.perf_counter() - start))
        return times_ms

    def _features(self, picture: Picture) -> NDArray[Any]:
        data = read_bytes(picture.path)
        # Fewer views are the first of more, so their number is not part of the key.
        key = FeatureKey(
            image_hash(data), self._backbone.space.id, "mirrored" if self._mirror else "not mirrored"
        )
        known = self._cache.get(key)
        if known is None or len(known) < self._count:
            image = decode_image(data, picture.path.name)
            backbone = self._backbone
            pixels = views(image, self._count, backbone.input_size, backbone.policy, self._mirror)
            known = self._fresh[key] = backbone.embed_many(pixels)
            if len(self._fresh) >= CACHE_BATCH:
                self._keep()
        return known[: self._count]

    def _keep(self) -> None:
        self._cache.put_many(self._fresh)
        self._fresh = {}

    def _empty(self) -> NDArray[Any]:
        return np.zeros((0, self._count, self._backbone.space.size), self._backbone.space.dtype)


def _samples(
    found: list[tuple[Picture, NDArray[Any]]], taken: dict[Path, Taken], empty: NDArray[Any]
) -> Samples:
    facts = [taken.get(picture.path, Taken(picture.session, None)) for picture, _ in found]
    return Samples(
        np.stack([features for _, features in found]) if found else empty,
        tuple(picture.label for picture, _ in found),
        tuple(fact.session for fact in facts),
        tuple(fact.order for fact in facts),
    )


def _check_names(labels: set[str]) -> None:
    spellings: dict[str, str] = {}
    for label in sorted(labels):
        other = spellings.setdefault(label_key(label), label)
        if other != label:
            raise ConfigError(
                f"classes {other!r} and {label!r} are one class in two spellings: rename a folder"
            )


def _taken(folder: Path) -> dict[Path, Taken]:
    """Return what DIR/manifest.csv says of each path; nothing without one."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            if "path" not in (reader.fieldnames or []):
                raise ConfigError(f"{path} has no column 'path': its first row must name the columns")
            return {
                folder / row["path"]: Taken((row.get("session") or "").strip(), _order(row.get("order")))
                for row in reader
            }
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a CSV file in UTF-8 ({error}): export it again") from error


def _order(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
