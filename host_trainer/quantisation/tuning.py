"""Fine-tunes a network with its rounding in place until it answers as its float self did; needs no labels.

It starts where rounding with compensation ends. The float network is the teacher: its features of unlabelled
pictures are what the rounded one is to give. Weights, biases and the sizes of ranges are learned together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.network import to_input
from host_trainer.quantisation import qat
from host_trainer.quantisation.compensation import compensated
from host_trainer.quantisation.preparation import prepared
from host_trainer.quantisation.stepwise import stepwise_adam, units
from host_trainer.training.gradients import open_stepper, predict

RISING = 10  # one step in so many brings the rate up
SMALLEST_LENGTH = 1e-6  # squared: a picture without any feature must not divide by nothing

Watch = Callable[[int, float], None]  # (steps done, loss)


@dataclass(frozen=True)
class Tuning:
    """How long and how fast."""

    steps: int = 600  # more bring ever less
    batch: int = 32  # pictures
    rate: float = 0.01  # of an int8 step, in one step of Adam; rises along a line, falls along half a cosine
    seed: int = 0  # decides the order of the pictures
    symmetric: bool = False  # ranges without a zero point, as TensorRT's


def tuned(
    folded: Any,
    pixels: NDArray[np.uint8],
    input_range: tuple[float, float] = (-1.0, 1.0),
    tuning: Tuning | None = None,
    watch: Watch = lambda done, loss: None,
) -> Any:
    """Return a wrapped network, fine-tuned on pictures (N, H, W, 3) uint8 to answer as `folded` does.

    Raises:
        ModelError: a layer without an int8 form.
    """
    tuning = tuning or Tuning()
    ready = prepared(folded, pixels, input_range)
    wrapped = qat.wrap(compensated(ready, pixels, input_range), input_range, tuning.symmetric)
    qat.calibrate(wrapped, pixels, input_range)
    if not tuning.steps:
        return wrapped
    wanted = _features(folded, pixels, input_range)
    stepper = open_stepper(wrapped, stepwise_adam(_schedule(tuning), units(wrapped)), relative_distance)
    for step in range(tuning.steps):
        places = _places(len(pixels), tuning, step)
        batch = {"images": to_input(pixels[places], input_range), "wanted": wanted[places]}
        watch(step + 1, stepper.step(batch)["loss"])
    stepper.settle()
    return wrapped


def relative_distance(call: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
    """Return the mean of |found - wanted|^2 / |wanted|^2, each picture by its own size.

    Twice 1 - cosine where lengths are kept: a picture of small features counts as much as any other.
    """
    from keras import ops

    wanted = batch["wanted"]
    apart = ops.sum(ops.square(call(batch["images"], training=True) - wanted), axis=-1)
    return ops.mean(apart / ops.maximum(ops.sum(ops.square(wanted), axis=-1), SMALLEST_LENGTH)), {}


def _schedule(tuning: Tuning) -> Any:
    """Return the rate of each step: up a line, as Adam does not know its scale yet, then down a cosine."""
    import keras

    rising = tuning.steps // RISING
    return keras.optimizers.schedules.CosineDecay(
        0.0 if rising else tuning.rate,
        tuning.steps - rising,
        warmup_target=tuning.rate if rising else None,
        warmup_steps=rising,
    )


def _features(model: Any, pixels: NDArray[np.uint8], input_range: tuple[float, float]) -> NDArray[np.float32]:
    parts = [
        pixels[at : at + 64] for at in range(0, len(pixels), 64)
    ]  # float images of a part at a time only
    return np.concatenate([predict(model, to_input(part, input_range)) for part in parts])


def _places(count: int, tuning: Tuning, step: int) -> NDArray[np.intp]:
    """Return which pictures a step takes: a fresh order each round, from (seed, round) alone."""
    size = min(tuning.batch, count)
    per_round = max(1, count // size)
    order = np.random.default_rng((tuning.seed, step // per_round)).permutation(count)
    return order[step % per_round * size :][:size]
