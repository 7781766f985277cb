"""Fine-tunes a network with its rounding in place until it answers as its float self did; needs no labels.

It starts where rounding with compensation ends. The float network is the teacher: its features of unlabelled
pictures are what the rounded one is to give.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host_trainer.datasets.splits import spread
from host_trainer.network import to_input
from host_trainer.quantisation import qat
from host_trainer.quantisation.compensation import compensated
from host_trainer.training.gradients import open_stepper, predict

RISING = 10  # one step in so many brings the rate up

Watch = Callable[[int, float], None]  # (steps done, loss)


@dataclass(frozen=True)
class Tuning:
    """How long and how fast."""

    steps: int = 300  # some ten rounds through a thousand pictures
    batch: int = 32  # pictures
    rate: float = 2e-4  # of Adam; rises along a line, falls along half a cosine
    calibration: int = 256  # pictures that set the ranges before the first step
    seed: int = 0  # decides the order of the pictures


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
    import keras

    tuning = tuning or Tuning()
    shown = pixels[spread(len(pixels), tuning.calibration)]
    wrapped = qat.wrap(compensated(folded, shown, input_range), input_range)
    qat.calibrate(wrapped, shown, input_range)
    if not tuning.steps:
        return wrapped
    wanted = _features(folded, pixels, input_range)
    # Adam divides by a gradient's size: the loss's scale does not matter, a relative one is for the eye.
    stepper = open_stepper(wrapped, keras.optimizers.Adam(_schedule(tuning)), _loss(wanted))
    for step in range(tuning.steps):
        places = _places(len(pixels), tuning, step)
        batch = {"images": to_input(pixels[places], input_range), "wanted": wanted[places]}
        watch(step + 1, stepper.step(batch)["loss"])
    stepper.settle()
    return wrapped


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


def _loss(wanted: NDArray[np.float32]) -> Callable[[Any, Any], tuple[Any, dict[str, Any]]]:
    """Return the loss: mean squared distance of the features, as a fraction of their mean square."""
    size = float(np.square(wanted).mean()) or 1.0

    def loss(call: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        from keras import ops

        found = call(batch["images"], training=True)
        return ops.mean(ops.square(found - batch["wanted"])) / size, {}

    return loss


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
