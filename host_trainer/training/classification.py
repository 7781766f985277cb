"""Decides what a classifier is trained towards, and how well it does: losses and accuracy from labels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from host_trainer.datasets.augmentation import Augmentation
from host_trainer.datasets.batches import batch_indices
from host_trainer.datasets.pixels import Pixels
from host_trainer.network import Network, to_input

SMOOTHING = 0.1  # of one-hot labels (Szegedy et al. 2016)
BATCH = 64  # pictures answered at once


def cross_entropy(smoothing: float = SMOOTHING) -> Callable[..., Any]:
    """Return the loss of a classifier: smoothed cross-entropy with rows of class probabilities (B, C)."""

    def loss(call: Callable[..., Any], batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from keras import ops

        logits, wanted = call(batch["images"], training=True), batch["labels"]
        right = ops.cast(ops.equal(ops.argmax(logits, -1), ops.argmax(wanted, -1)), "float32")
        wanted = wanted * (1 - smoothing) + smoothing / logits.shape[-1]
        value = -ops.mean(ops.sum(wanted * ops.log_softmax(logits, axis=-1), axis=-1))
        return value, {"accuracy": ops.mean(right)}

    return loss


class Labelled(NamedTuple):
    """Pictures with labels as a source of batches: `Labelled(...)(step)` is `{"images", "labels"}`."""

    pixels: Pixels
    network: Network
    batch: int
    seed: int
    augmentation: Augmentation

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Return images (B, H, W, 3) as the network takes them, and labels (B, C) as probabilities."""
        chosen = batch_indices(len(self.pixels.values), self.batch, step, self.seed)
        images = np.stack([self.pixels.values[i, 0] for i in chosen])
        classes = len(self.pixels.pictures.classes)
        labels = np.eye(classes, dtype=np.float32)[self.pixels.pictures.labels[chosen]]
        changed, labels = self.augmentation(images, labels, step)
        return {"images": to_input(changed, self.network.input_range), "labels": labels}


def accuracy(network: Network, pixels: Pixels) -> float:
    """Return the fraction of whole pictures that a classifier names rightly; NaN when there are none."""
    if not len(pixels.values):
        return float("nan")
    right = 0
    for at in range(0, len(pixels.values), BATCH):
        images = to_input(pixels.values[at : at + BATCH, 0], network.input_range)
        answers = np.asarray(network.model(images, training=False)).argmax(-1)
        right += int((answers == pixels.pictures.labels[at : at + BATCH]).sum())
    return right / len(pixels.values)
