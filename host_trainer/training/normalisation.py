"""Changes how a network normalises while a step is traced; layers and checkpoints stay Keras' own.

Keras takes the moments of a batch and applies them in half a dozen operations, each of which reads and writes
the whole map, and as many again on the way back. TensorFlow's fused kernel does the same (Ioffe and Szegedy
2015, algorithm 1) in two passes; for a small residual network on a processor that is a tenth of the step.
Several processes take their statistics together instead.
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


@contextmanager
def synchronised(model: Any) -> Iterator[None]:
    """Let normalisations take their statistics over all processes, while a step is being traced."""
    layers = [layer for layer in model.layers if type(layer).__name__ == NORM]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in layers:  # a model is saved without: only TensorFlow knows it
            layer.synchronized = False


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
    # The kernel tells the variance of a sample, Keras keeps that of the batch.
    variance = unbiased * ((values - 1) / values)
    for kept, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        kept.assign(kept * layer.momentum + now * (1 - layer.momentum))
    return found
