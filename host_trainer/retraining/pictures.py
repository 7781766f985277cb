"""Turns pictures into samples with the backbone that devices run, as they do it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, ImageError
from edge_cl.vision.backbone import Backbone, open_backbone
from edge_cl.vision.frames import decode_image, read_bytes
from edge_cl.vision.preprocess import prepare, views
from host_trainer.datasets.folders import Pictures
from host_trainer.retraining.samples import OWN, Samples

Watch = Callable[[int], None]


class Seen(NamedTuple):
    """Samples of the pictures that could be read, and why the others could not."""

    samples: Samples
    refused: tuple[str, ...]


def opened(path: Path) -> Backbone:
    """Open a backbone file on one thread, as devices do; ModelError when it cannot serve."""
    return open_backbone(path, num_threads=1)


def seen(
    backbone: Backbone, pictures: Pictures, count: int, mirror: bool, watch: Watch = lambda done: None
) -> Seen:
    """Return pictures as samples with `count` views each.

    Raises:
        ConfigError: none of them can be read.
    """
    features, kept, refused = [], [], []
    for number, path in enumerate(pictures.paths):
        try:
            features.append(features_of(backbone, read_bytes(path), path.name, count, mirror))
            kept.append(number)
        except ImageError as error:
            refused.append(str(error))
        watch(number + 1)
    if pictures.paths and not kept:
        raise ConfigError(f"none of {len(pictures.paths)} pictures can be read: {refused[0]}")
    shape = (0, count, backbone.space.size)
    labels = tuple(pictures.classes[pictures.labels[number]] for number in kept)
    found = np.stack(features) if features else np.zeros(shape, backbone.space.dtype)
    return Seen(
        Samples(found, labels, (OWN,) * len(kept), np.arange(1, len(kept) + 1, dtype=np.int64)),
        tuple(refused),
    )


def features_of(backbone: Backbone, data: bytes, name: str, count: int, mirror: bool) -> NDArray[Any]:
    """Return the features (V, D) of one picture; ImageError when it cannot be read."""
    image = decode_image(data, name)
    return backbone.embed_many(views(image, count, backbone.input_size, backbone.policy, mirror))


def whole(backbone: Backbone, paths: Sequence[Path], count: int) -> NDArray[np.uint8]:
    """Return the first `count` readable pictures as the backbone takes them, (N, H, W, 3) uint8.

    Raises:
        ConfigError: none can be read.
    """
    found = []
    for path in paths:
        try:
            image = decode_image(read_bytes(path), path.name)
        except ImageError:
            continue
        found.append(prepare(image, backbone.input_size, backbone.policy))
        if len(found) == count:
            break
    if not found:
        raise ConfigError("no picture can be read that devices could prove the backbone on: give --data DIR")
    return np.stack(found)
