"""Prunes single weights while a network trains on, and keeps what was pruned at exactly zero."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from host_trainer.compression.curvature import Estimator
from host_trainer.compression.distribution import counts
from host_trainer.compression.masks import Masks, density_of, full_masks, hold, moved, prunable, regrown
from host_trainer.compression.saliency import magnitude, obd
from host_trainer.compression.schedule import Cubic
from host_trainer.datasets.batches import Source, ahead
from host_trainer.network import Network
from host_trainer.training.gradients import Loss, open_stepper
from host_trainer.training.trainer import Recipe, Watch, make_optimizer

SALIENCIES = ("magnitude", "obd")
PRUNED_BY = 0.75  # share of the steps; the rest of them mends


@dataclass(frozen=True)
class Plan:
    """How a network is pruned.

    Attributes:
        density: of the prunable weights at the end, exactly.
        saliency: `magnitude`, or `obd` (second derivative; costs `batches` gradients at each pruning).
        distribution: `uniform` or `erk` over the layers.
        prunings: how often; the density falls by the cubic schedule.
        regrow: share of the live weights that are tried anew at each pruning but the last; 0 for none.
        batches: of the second-derivative estimate.
        depthwise: prune depthwise kernels too.
    """

    density: float
    saliency: str = "magnitude"
    distribution: str = "erk"
    prunings: int = 10
    regrow: float = 0.0
    batches: int = 16
    depthwise: bool = False

    def __post_init__(self) -> None:
        if self.saliency not in SALIENCIES:
            raise ConfigError(f"no saliency {self.saliency!r}: give {' or '.join(SALIENCIES)}")
        if self.prunings < 1 or self.batches < 1 or not 0 <= self.regrow < 1:
            raise ConfigError("give at least 1 pruning and 1 batch, and regrow a share from 0 to below 1")

    def schedule(self, steps: int) -> Cubic:
        """Return when a training of so many steps prunes, and how much."""
        end = int(steps * PRUNED_BY)
        return Cubic(self.density, 0, end, max(1, end // self.prunings))


def compress(
    network: Network,
    loss: Loss,
    source: Source,
    recipe: Recipe,
    plan: Plan,
    watch: Watch = lambda step, told: None,
) -> Network:
    """Prune a network's weights while it trains for `recipe.steps`; its model is changed in place.

    Every step sees the pruned weights as exact zeros, and the returned network has them.

    Raises:
        ConfigError: a plan that cannot be carried out on this network.
    """
    model = network.model
    kernels = prunable(model, plan.depthwise)
    shapes = {path: tuple(kernel.shape) for path, kernel in kernels.items()}
    counts(shapes, plan.density, plan.distribution)  # refuses before a step is made
    optimizer, schedule = make_optimizer(recipe), plan.schedule(recipe.steps)
    stepper, masks = open_stepper(model, optimizer, loss), full_masks(kernels)
    estimator = Estimator(model, loss) if plan.saliency == "obd" else None
    for step, batch in enumerate(ahead(source, 0, recipe.steps)):
        if schedule.prunes(step):
            wanted = counts(shapes, schedule.density(step), plan.distribution)
            found = scores(kernels, estimator, source, plan.batches)
            masks = moved(masks, found, wanted, (recipe.seed, step))
            if step < schedule.end:
                masks = regrown(masks, plan.regrow, (recipe.seed, step))
        hold(kernels, masks)
        stepper.resume()
        told = stepper.step(batch)
        stepper.settle()
        watch(step + 1, told)
    if recipe.average:
        optimizer.finalize_variable_values(model.trainable_variables)
    hold(kernels, masks)  # the average remembers weights from before they were pruned
    return network._replace(origin={**network.origin, "pruned": _told(plan, masks)})


def scores(
    kernels: dict[str, Any], estimator: Estimator | None, source: Source, batches: int
) -> dict[str, NDArray[Any]]:
    """Return each prunable weight's saliency, by path: OBD's with an estimator, else the magnitude."""
    values = {path: np.asarray(kernel.value) for path, kernel in kernels.items()}
    if estimator is None:
        return {path: magnitude(weights) for path, weights in values.items()}
    estimated = estimator.estimate(source, batches)
    return {path: obd(weights, estimated[path]) for path, weights in values.items()}


def _told(plan: Plan, masks: Masks) -> dict[str, Any]:
    return {"density": density_of(masks), "saliency": plan.saliency, "distribution": plan.distribution}
