"""Normalises by TensorFlow's one fused kernel while a step is traced; layers and checkpoints stay Keras' own.

Keras takes the moments of a batch and applies them in half a dozen operations, each of which reads and writes
the whole map, and as many again on the way back. The fused kernel does the same (Ioffe and Szegedy 2015,
algorithm 1) in two passes; for a small residual network on a processor that is a tenth of the step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

NORM = "BatchNormalization"


@contextmanager
def fused(model: Any) -> Iterator[None]:
    """Let the normalisations of a network use the fused kernel while a training step is traced.

    Those it cannot serve stay as they are: of vectors, of another axis than the last, in other numbers than
    float32, renormalised, or with statistics over several processes.
    """
    layers = [layer for layer in model.layers if _may_be_fused(layer)]
    for layer in layers:
        layer.call = partial(_normalised, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _may_be_fused(layer: Any) -> bool:
    if type(layer).__name__ != NORM or layer.synchronized or layer.renorm:
        return False
    rank = len(layer.input.shape)
    return rank == 4 and layer.axis in (-1, 3) and layer.scale and layer.center and layer.dtype == "float32"


def _normalised(layer: Any, maps: Any, training: bool | None = None, mask: Any = None) -> Any:
    """Return maps (B, H, W, C) normalised over B, H and W; the running statistics move as in Keras."""
    import tensorflow as tf

    if mask is not None or not (training and layer.trainable):
        return type(layer).call(layer, maps, training=training, mask=mask)
    scale, offset = layer.gamma.value, layer.beta.value
    found, mean, unbiased = tf.compat.v1.nn.fused_batch_norm(maps, scale, offset, epsilon=layer.epsilon)
    values = tf.cast(tf.size(maps) // tf.size(mean), tf.float32)
    variance = unbiased * (
        (values - 1) / values
    )  # the kernel tells that of a sample, Keras keeps the batch's
    for kept, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        kept.assign(kept * layer.momentum + now * (1 - layer.momentum))
    return found
