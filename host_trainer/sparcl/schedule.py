"""Decides when the masks move, by how much, and when samples leave: SparCL's calendar of a task.

A task of E epochs is cut into ten stages (delta_k is five of fifty epochs in the paper; at least one epoch).
Sparsity at the begin of a stage, for a target s:

    official (the authors' code):  s, then s - p_inter | s + p_intra, then s | ... | s, no growth
    paper, edge:        (from task 2:) s - p_inter     | s + p_intra, then s | ...
"""

from dataclasses import dataclass
from typing import NamedTuple

from edge_cl.errors import ConfigError

PAPER, OFFICIAL, EDGE = "paper", "official", "edge"
MODES = (PAPER, OFFICIAL, EDGE)
PARTS = ("masks", "removal", "gradients")  # switches of `Sparsity`: each can be left out
STAGES = 10
GRADIENT = {0.75: 0.80, 0.90: 0.91, 0.95: 0.955}  # gradient sparsity of the published runs


class Move(NamedTuple):
    """One adjustment of the masks: prune to a density, then grow to another; offsets from the target's."""

    prune: float
    grow: float


@dataclass(frozen=True)
class Sparsity:
    """How sparse a training is, and by which of SparCL's three parts.

    Attributes:
        mode: `paper`, `official` (the authors' code) or `edge` (channels and blocks, so that it saves time).
        sparsity: share of the prunable weights that are zero, in (0, 1).
        gradient: share of the prunable weights that do not move, at least `sparsity`; None for the usual.
        masks: task-aware dynamic masking (TDM); without it all weights live.
        removal: dynamic data removal (DDR).
        gradients: dynamic gradient masking (DGM).
        initial: `magnitude`, `uniform` or `erk`: which weights live at first.
        scope: `layer` or `global`: among which the least important are found.
        alpha, beta: weights of the current task's and the memory's gradient in the importance.
        inter, intra: share of the weights that are added for a new task, and exchanged within one.
        removed: share of a task's samples that leave in all (rho).
        cutoff: stages after which no more leave.
        refresh: steps between two gradient masks in `official` mode.
        batches: over which the importance' gradients are averaged.
    """

    mode: str = PAPER
    sparsity: float = 0.75
    gradient: float | None = None
    masks: bool = True
    removal: bool = True
    gradients: bool = True
    initial: str = "magnitude"
    scope: str = "layer"
    alpha: float = 0.5
    beta: float = 1.0
    inter: float = 0.01
    intra: float = 0.01
    removed: float = 0.3
    cutoff: int = 4
    refresh: int = 30
    batches: int = 8

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"no mode {self.mode!r}: give {', '.join(MODES)}")
        if not 0 < self.sparsity < 1:
            raise ConfigError(
                f"a sparsity of {self.sparsity:g} leaves all or nothing: give more than 0, less than 1"
            )
        if not self.sparsity <= self.still < 1:
            raise ConfigError(
                f"a gradient sparsity of {self.still:g} is under the weights' {self.sparsity:g}, or above 1"
            )
        if self.initial not in ("magnitude", "uniform", "erk") or self.scope not in ("layer", "global"):
            raise ConfigError("masks begin by magnitude, uniform or erk, and move by layer or global")
        if not 0 < self.inter < 1 - self.sparsity or not 0 < self.intra < 1 - self.sparsity:
            raise ConfigError("p_inter and p_intra must be above 0 and below the density")
        if not 0 <= self.removed < 1 or self.cutoff < 1 or self.refresh < 1 or self.batches < 1:
            raise ConfigError("remove a share from 0 to below 1; cutoff, refresh and batches are 1 or more")

    @property
    def density(self) -> float:
        """Share of the prunable weights that live."""
        return 1 - self.sparsity if self.masks else 1.0

    @property
    def still(self) -> float:
        """Share of the prunable weights that do not move."""
        if self.gradient is not None:
            return self.gradient
        return GRADIENT.get(round(self.sparsity, 3), self.sparsity + (1 - self.sparsity) / 10)


def stage_length(epochs: int) -> int:
    """Return delta_k, the epochs of a stage."""
    return max(1, round(epochs / STAGES))


def stage_of(epoch: int, epochs: int) -> int | None:
    """Return which stage begins with this epoch; None when none does."""
    length = stage_length(epochs)
    return epoch // length if epoch % length == 0 else None


def move_at(sparsity: Sparsity, task: int, epoch: int, epochs: int) -> Move | None:
    """Return how the masks move before this epoch; None when they stay."""
    stage, last = stage_of(epoch, epochs), (epochs - 1) // stage_length(epochs)
    if stage is None:
        return None
    official = sparsity.mode == OFFICIAL
    if stage == 0:
        grows = last > 0 and (official or task > 0)  # what is grown must be shrunk again within the task
        return Move(0.0, sparsity.inter if grows else 0.0)
    if official and stage == last:
        return Move(0.0, 0.0)
    return Move(-sparsity.intra, 0.0)
