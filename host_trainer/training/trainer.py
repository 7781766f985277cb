"""The loop around the step: goes on where it stopped, saves as it goes, ends well on Ctrl-C.

State after a stop and a new start is that of the uninterrupted run, bit for bit: batches are functions of the
step, and the optimizer's variables are in the checkpoint, its step and its average of the weights among them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import ConfigError
from host_trainer.checkpoints import (
    Training,
    check_facts,
    load_network,
    load_training,
    optimizer_state,
    restore_optimizer,
    save_network,
    set_weights,
    weights_of,
)
from host_trainer.datasets.batches import Source, ahead
from host_trainer.network import Network
from host_trainer.training.gradients import Loss, open_stepper

RUNNING = "running"  # folder inside --out that holds what is not finished
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        steps: how many.
        batch: samples a step.
        rate: highest learning rate; it rises linearly at first, then falls as a cosine to zero.
        warmup: share of the steps in which it rises.
        optimizer: `adamw` (Loshchilov and Hutter 2019) or `sgd` with momentum 0.9 (Nesterov).
        decay: weight decay, decoupled.
        average: of the weights over the steps, which is what is kept at the end; 0 keeps the last ones.
        clip: longest gradient, over all weights together.
        seed: of order and augmentation.
        save_every: steps between two checkpoints.
    """

    steps: int
    batch: int = 64
    rate: float = 2e-3
    warmup: float = 0.05
    optimizer: str = "adamw"
    decay: float = 0.01
    average: float = 0.99
    clip: float = 5.0
    seed: int = 0
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or self.save_every < 1:
            raise ConfigError(
                "a training needs 1 step or more, batches of 2 or more, and 1 step between checkpoints"
            )
        if not self.rate > 0 or not 0 <= self.warmup < 1 or not 0 <= self.average < 1 or not self.clip > 0:
            raise ConfigError("rate and clip must be above 0, warm-up and average from 0 to below 1")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"no optimizer {self.optimizer!r}: give {' or '.join(OPTIMIZERS)}")


class Job(NamedTuple):
    """One training.

    Attributes:
        network: what is trained; its model is changed in place.
        loss: see `gradients.open_stepper`.
        source: step to batch.
        recipe: how.
        facts: plain values that must be the same when it goes on: data, teacher, augmentation.
    """

    network: Network
    loss: Loss
    source: Source
    recipe: Recipe
    facts: Mapping[str, Any]


Watch = Callable[[int, Mapping[str, float]], None]


def fit(job: Job, folder: Path, watch: Watch = lambda step, told: None) -> Network:
    """Train to the last step, going on from the checkpoint in `folder` where there is one.

    On Ctrl-C the state is saved first; the same call goes on. The network returned has the averaged weights.

    Raises:
        MismatchError: the checkpoint is of another training.
        ConfigError: the loss is no longer a number.
        StoreError: a checkpoint cannot be written.
    """
    optimizer = make_optimizer(job.recipe)
    stepper = open_stepper(job.network.model, optimizer, job.loss)
    start = _resume(job, folder, optimizer)
    stepper.resume()
    step = start
    try:
        for batch in ahead(job.source, start, job.recipe.steps):
            told = stepper.step(batch)
            step += 1
            _check(told, step)
            watch(step, told)
            if step % job.recipe.save_every == 0 and step < job.recipe.steps:
                stepper.settle()
                _save(job, folder, optimizer, step)
    except KeyboardInterrupt:
        stepper.settle()
        _save(job, folder, optimizer, step)
        raise
    stepper.settle()
    if job.recipe.average:
        optimizer.finalize_variable_values(job.network.model.trainable_variables)
    return job.network


def make_optimizer(recipe: Recipe) -> Any:
    """Return the Keras optimizer of a recipe, its schedule inside."""
    import keras

    warm = max(1, round(recipe.warmup * recipe.steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.rate / warm,
        decay_steps=max(1, recipe.steps - warm),
        warmup_target=recipe.rate,
        warmup_steps=warm,
    )
    shared = {
        "learning_rate": schedule,
        "weight_decay": recipe.decay,
        "global_clipnorm": recipe.clip,
        "use_ema": bool(recipe.average),
        "ema_momentum": recipe.average or 0.99,
    }
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=0.9, nesterov=True, **shared)
    return keras.optimizers.AdamW(**shared)


def left_off(job: Job, folder: Path) -> Training | None:
    """Return what a stopped training of this job left in a folder; None when there is nothing.

    Raises:
        MismatchError: the checkpoint is of another training.
    """
    saved = load_training(folder) if folder.is_dir() else None
    if saved is not None:
        check_facts(saved, _facts(job), folder)
    return saved


def _resume(job: Job, folder: Path, optimizer: Any) -> int:
    """Load what a stopped training left, and return its step; 0 when there is nothing."""
    saved = left_off(job, folder)
    if saved is None:
        return 0
    set_weights(job.network.model, weights_of(load_network(folder).model), str(folder))
    restore_optimizer(optimizer, saved.optimizer)
    return saved.step


def _save(job: Job, folder: Path, optimizer: Any, step: int) -> None:
    training = Training(step, optimizer_state(optimizer), {}, _facts(job))
    save_network(folder, job.network, training)


def _facts(job: Job) -> dict[str, Any]:
    return {"recipe": asdict(job.recipe), **job.facts}


def _check(told: Mapping[str, float], step: int) -> None:
    if not np.isfinite(told["loss"]):
        raise ConfigError(
            f"the loss is {told['loss']} at step {step}: lower the learning rate (--rate), and start from the"
            " last checkpoint"
        )
