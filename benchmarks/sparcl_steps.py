"""Claim: our dense DER++ step is no straw man, and a step of edge mode takes a third of it or less.

Method: ResNet-18 of 32 px at half and at full width, 32 pictures of the stream and two draws of 32 from a
full memory, crop and flip, SGD. By hand: the same network, augmentation, losses and update written in plain
TensorFlow (`tf.nn`, a GradientTape, `assign_sub`; no Keras, no masks), compiled by `tf.function`, the logits
read back for the memory each step as ours are. All take turns in one process on one thread, in blocks of a
few steps, so that a busy machine slows all; figures are ratios of the medians of processor seconds a step.
What edge mode does between epochs (assessing channels) and the pictures it leaves out are not in a step: the
table of `sparcl.py` has the seconds of whole trainings.

Expected: by hand over ours 1 or more; dense over edge 3 or more. 25 minutes on a slow core.

    python benchmarks/sparcl_steps.py [--width 0.5 1] [--write]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import cifar
import ledger
import numpy as np
from sparcl_memory import learner_of

EDGE = ("edge-0.75", "edge-0.9", "edge-0.95")
BATCH, CLASSES, BUFFER = 32, 10, 200  # as usual plans have them
BLOCKS, STEPS = 5, 4  # turns of each, and steps of a turn
RATE, ALPHA, BETA, DECAY, EPSILON = 0.03, 0.1, 0.5, 0.9, 1e-3
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride of ResNet-18's stages
PADDING = 4
AS_FAST, FASTER = 1.0, 3.0
Turn = Callable[[], None]


def ours(name: str, width: str) -> Turn:
    """Return a turn of our learner in its second task, with a full memory."""
    learner = learner_of(name, width, epochs=5)
    for task in range(2):
        lesson = _lesson(2 * task)
        learner.begin_task(lesson)
        learner.begin_epoch(lesson, task, 0)
        for at in range(2 * BUFFER // BATCH if task == 0 else 2):  # fills the memory, compiles both steps
            learner.step(lesson, learner.batch_of(lesson, task, 0, at), task, at, False)

    def turn() -> None:
        for at in range(STEPS):
            learner.step(lesson, learner.batch_of(lesson, 1, 0, at), 1, at, False)

    return turn


def by_hand(width: str) -> Turn:
    """Return a turn of DER++ in plain TensorFlow."""
    import tensorflow as tf

    network, lesson, rng = PlainResNet(float(width)), _lesson(2), np.random.default_rng(0)
    kept_images, kept_labels = lesson.images[:BUFFER].copy(), lesson.labels[:BUFFER].copy()
    kept_logits, seen = np.zeros((BUFFER, CLASSES), np.float32), BUFFER
    kinds = (tf.TensorSpec((BATCH, 32, 32, 3), tf.uint8), tf.TensorSpec((BATCH,), tf.int32))

    @tf.function(input_signature=[*kinds, *kinds[:1], tf.TensorSpec((BATCH, CLASSES), tf.float32), *kinds])
    def step(images: Any, labels: Any, one: Any, logits: Any, two: Any, two_labels: Any) -> tuple[Any, Any]:
        shown = [_augmented(each) for each in (images, one, two)]
        with tf.GradientTape() as tape:
            stream, first, second = (network(each) for each in shown)  # as published: a batch of its own each
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, stream))
            loss += ALPHA * tf.reduce_mean(tf.square(first - logits))
            loss += BETA * tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(two_labels, second))
        for weight, gradient in zip(network.weights, tape.gradient(loss, network.weights), strict=True):
            weight.assign_sub(RATE * gradient)
        return loss, stream

    def turn() -> None:
        nonlocal seen
        for _ in range(STEPS):
            chosen = rng.integers(0, len(lesson.labels), BATCH)
            one, two = (rng.choice(BUFFER, BATCH, replace=False) for _ in range(2))
            replay = (kept_images[one], kept_logits[one], kept_images[two], kept_labels[two])
            loss, logits = step(lesson.images[chosen], lesson.labels[chosen], *replay)
            assert np.isfinite(float(loss))
            for place, answer in zip(chosen, logits.numpy(), strict=True):
                seen += 1
                slot = int(rng.integers(0, seen))
                if slot < BUFFER:
                    kept_images[slot], kept_labels[slot] = lesson.images[place], lesson.labels[place]
                    kept_logits[slot] = answer

    turn()  # compiles
    return turn


def _augmented(images: Any) -> Any:
    """Shift each picture by up to PADDING pixels, flip half of them, and bring all to [-1, 1]."""
    import tensorflow as tf

    count = images.shape[0]
    padded = tf.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    down, right = (tf.random.uniform((count, 1), 0, 2 * PADDING + 1, tf.int32) for _ in range(2))
    rows, columns = down + tf.range(32)[None], right + tf.range(32)[None]
    columns = tf.where(tf.random.uniform((count, 1)) < 0.5, columns, columns[:, ::-1])
    shape = (count, 32, 32)
    places = tf.stack(
        [tf.broadcast_to(rows[:, :, None], shape), tf.broadcast_to(columns[:, None, :], shape)], -1
    )
    return tf.cast(tf.gather_nd(padded, places, batch_dims=1), tf.float32) / 127.5 - 1


class PlainResNet:
    """ResNet-18 for 32 px in `tf.nn`: kernels, and what its normalisations learn and remember."""

    def __init__(self, width: float) -> None:
        from host_trainer.backbones.networks import rounded

        self.weights: list[Any] = []
        self._norms: list[tuple[Any, ...]] = []
        self._rng = np.random.default_rng(0)
        self._stem = self._unit(3, rounded(64 * width), 3)
        self._blocks, before = [], rounded(64 * width)
        for channels, stride in STAGES:
            after = rounded(channels * width)
            for number in range(2):
                step = stride if number == 0 else 1
                short = None if step == 1 and before == after else self._unit(before, after, 1)
                units = (self._unit(before, after, 3), self._unit(after, after, 3))
                self._blocks.append((step, *units, short))
                before = after
        self._head = self._weight(self._rng.normal(0, before**-0.5, (before, CLASSES)))
        self._bias = self._weight(np.zeros(CLASSES))

    def __call__(self, images: Any) -> Any:
        """Return logits (B, C) in training: normalised by the batch, running statistics updated."""
        import tensorflow as tf

        maps = tf.nn.relu(_normed(images, self._stem, 1))
        for stride, first, second, short in self._blocks:
            inner = _normed(tf.nn.relu(_normed(maps, first, stride)), second, 1)
            maps = tf.nn.relu(inner + (maps if short is None else _normed(maps, short, stride)))
        return tf.reduce_mean(maps, (1, 2)) @ self._head + self._bias

    def _unit(self, channels: int, after: int, side: int) -> tuple[Any, ...]:
        import tensorflow as tf

        scale = np.sqrt(2 / (side * side * channels))
        kernel = self._weight(self._rng.normal(0, scale, (side, side, channels, after)))
        running = (
            tf.Variable(tf.zeros(after), trainable=False),
            tf.Variable(tf.ones(after), trainable=False),
        )
        return kernel, self._weight(np.ones(after)), self._weight(np.zeros(after)), *running

    def _weight(self, values: np.ndarray) -> Any:
        import tensorflow as tf

        self.weights.append(tf.Variable(values.astype(np.float32)))
        return self.weights[-1]


def _normed(maps: Any, unit: tuple[Any, ...], stride: int) -> Any:
    import tensorflow as tf

    kernel, gamma, beta, mean, variance = unit
    maps = tf.nn.conv2d(maps, kernel, stride, "SAME")
    maps, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(maps, gamma, beta, epsilon=EPSILON)
    mean.assign(DECAY * mean + (1 - DECAY) * batch_mean)
    variance.assign(DECAY * variance + (1 - DECAY) * batch_variance)
    return maps


def _lesson(first: int) -> Any:
    from host_trainer.sparcl.learner import Lesson

    data = cifar.load(500, 1).train
    chosen = np.isin(data.pictures.labels, (first, first + 1))
    images = np.ascontiguousarray(data.values[chosen, 0])
    return Lesson(images, data.pictures.labels[chosen], np.arange(first, first + 2))


def measured(width: str) -> dict[str, float]:
    """Return the median processor seconds of a step by name, all taking turns."""
    turns = {"by hand": by_hand(width), **{name: ours(name, width) for name in ("derpp", *EDGE)}}
    spent: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(BLOCKS):
        for name, turn in turns.items():
            start = time.process_time()
            turn()
            spent[name].append((time.process_time() - start) / STEPS)
    found = {name: statistics.median(values) for name, values in spent.items()}
    print(f"width {width}: {found}", file=sys.stderr, flush=True)
    return found


def rows(width: str) -> list[ledger.Row]:
    """Hold the step by hand and those of edge mode against ours."""
    took = measured(width)
    claim = f"width {width}: a step by hand over our dense DER++ step"
    told = [ledger.at_least(claim, took["by hand"] / took["derpp"], AS_FAST)]
    for name in EDGE:
        claim = f"width {width}: our dense DER++ step over one of {name}"
        told.append(ledger.at_least(claim, took["derpp"] / took[name], FASTER, 1))
    seconds = ", ".join(f"{each:.2f}" for each in took.values())
    told.append(ledger.Row(f"width {width}: {', '.join(took)}", f"{seconds} s"))
    return told


def main() -> None:
    """Measure, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--width", nargs="+", default=["0.5", "1"], metavar="FACTOR")
    parser.add_argument("--write", action="store_true", help="put the rows into the ledger")
    args = parser.parse_args()
    told = [row for width in args.width for row in rows(width)]
    ledger.show("A step of continual training, ResNet-18", told)
    if args.write:
        ledger.write("sparcl-steps", "python benchmarks/sparcl_steps.py", ledger.rows_table(told))


if __name__ == "__main__":
    cifar.on_one_core()
    main()
