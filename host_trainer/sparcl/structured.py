"""Holds masks of whole channels, and blocks that move: TDM and DGM in the form that saves seconds.

The living channels of a wide network are kept in a small one, which is trained as it is. When masks move,
departed channels give their slots to fresh ones; shapes stay, so nothing is compiled anew.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.masking import grow, live_count, most_important, moved_count, random_mask, shrink
from host_trainer.checkpoints import set_weights, weights_of
from host_trainer.sparcl.channels import (
    KERNEL,
    KERNELS,
    Masks,
    Slots,
    Structure,
    channel_importance,
    compact,
    counts_of,
    first_slots,
    gather,
    kernel_densities,
    live_counts,
    live_masks,
    rearrange,
    scatter,
    structure_of,
    survivor_masks,
    weight_masks,
)
from host_trainer.sparcl.gates import choose_blocks
from host_trainer.sparcl.importance import Importance, movement, standing
from host_trainer.sparcl.schedule import Move, Sparsity

SLOTS, MOVING = "slots", "moving"
NAME = "compact"  # what a refusal calls the network


class ChannelMasks:
    """The masks of a wide network and the small one inside of it; `model` is what is trained."""

    def __init__(self, wide: Any, sparsity: Sparsity, seed: int) -> None:
        """Take a classifier's most important channels, or some by chance; `wide` is not changed.

        Raises:
            ConfigError: a network without channels to mask, or too narrow for this sparsity.
        """
        self._wide, self._rules = wide, sparsity
        self.structure = structure_of(wide)
        widths = {group.name: group.width for group in self.structure.groups}
        room = live_counts(self.structure, 1 - sparsity.density)
        # The slots are multiples of eight for the kernels' sake; a new task's channels take the spare ones.
        self._spare = {n: min(moved_count(w, sparsity.inter), room[n] - 1) for n, w in widths.items()}
        if not sparsity.masks:
            self._spare = dict.fromkeys(widths, 0)
        self._counts = {name: room[name] - self._spare[name] for name in room}
        self.slots = first_slots(self._first(widths, seed), room)
        self.model = compact(wide, room)
        set_weights(self.model, gather(weights_of(wide), self.structure, self.slots), NAME)
        self._followers: list[Any] = []
        self.blocks = _blocks(self.structure)
        self.moving = dict.fromkeys(self.blocks, True)

    def lead(self, followers: list[Any]) -> None:
        """Move the channels of these copies of `model` too."""
        self._followers = followers

    @property
    def guarded(self) -> tuple[str, ...]:
        """Paths of the variables whose gradients pass a mask: all of them."""
        return tuple(variable.path for variable in self.model.trainable_variables)

    def guards(self) -> dict[str, NDArray[np.bool_]]:
        """Return which entries move, by path: those of occupied slots, in blocks that are not frozen."""
        masks = weight_masks(self.structure, self.slots)
        for block, moves in self.moving.items():
            if not moves:
                masks |= {path: np.zeros_like(masks[path]) for path in self.blocks[block]}
        return masks

    def move(self, move: Move, found: Importance | None, seed: tuple[int, ...]) -> Masks:
        """Prune and grow channels (TDM): survivors keep their weights, fresh ones change no answer.

        Returns, by path, which entries are weights of survivors.
        """
        kernels = {v.path: v for v in self.model.trainable_variables if self._is_kernel(v.path)}
        worth = channel_importance(self.structure, self.slots, standing(kernels, found, self._rules))
        live = live_masks(self.structure, self.slots)
        for number, offset in enumerate(move):
            rng = np.random.default_rng((*seed, number))
            live = {name: self._with(mask, worth[name], offset, name, rng) for name, mask in live.items()}
        before = self.slots
        self._rearrange(live, seed)
        self.moving = dict.fromkeys(self.moving, True)
        return survivor_masks(self.structure, before, self.slots)

    def choose(self, found: Importance) -> None:
        """Freeze the least important blocks until the next choice (DGM)."""
        scores = movement(found, self._rules)
        worth = {n: sum(float(scores[path].sum()) for path in paths) for n, paths in self.blocks.items()}
        count = live_count(len(worth), (1 - self._rules.still) / (1 - self._rules.sparsity))
        chosen = choose_blocks(worth, count)
        self.moving = {name: name in chosen for name in worth}

    def densities(self) -> dict[str, float]:
        """Return which share of each kernel of the wide network lives, by path."""
        return kernel_densities(self.structure, self.slots)

    def movements(self) -> dict[str, float]:
        """Return which share of each kernel of the wide network moves, by path."""
        still = {path for block, moves in self.moving.items() if not moves for path in self.blocks[block]}
        return {path: 0.0 if path in still else share for path, share in self.densities().items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that `restore` needs."""
        moving = np.array(list(self.moving.values()), bool)
        return {MOVING: moving, **{f"{SLOTS}/{name}": index for name, index in self.slots.index.items()}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a saved state; the models' weights are restored elsewhere."""
        self.slots = Slots({name: state[f"{SLOTS}/{name}"].astype(np.intp) for name in self.slots.index})
        self.moving = {n: bool(m) for n, m in zip(self.moving, state[MOVING], strict=True)}

    def finished(self, model: Any) -> Any:
        """Return a model as it is given away: a plain network of the living channels, no slot empty."""
        counts = counts_of(self.slots)
        tight = first_slots(live_masks(self.structure, self.slots), counts)
        small = compact(self._wide, counts)
        wide = scatter(weights_of(model), self.structure, self.slots)
        set_weights(small, gather(wide, self.structure, tight), NAME)
        return small

    def _first(self, widths: Mapping[str, int], seed: int) -> Masks:
        if self._rules.initial != "magnitude":
            rng = np.random.default_rng(seed)
            return {name: random_mask(width, self._counts[name], rng) for name, width in widths.items()}
        every = {name: np.ones(width, bool) for name, width in widths.items()}
        scores = {path: np.abs(v) for path, v in weights_of(self._wide).items() if self._is_kernel(path)}
        whole = Slots({name: np.arange(width) for name, width in widths.items()})
        worth = channel_importance(self.structure, whole, scores)
        return {n: most_important(mask, worth[n], self._counts[n]) for n, mask in every.items()}

    def _with(
        self, mask: NDArray[np.bool_], worth: NDArray[Any], offset: float, name: str, rng: np.random.Generator
    ) -> NDArray[np.bool_]:
        wanted = self._counts[name]
        if offset:
            change = self._spare[name] if offset > 0 else moved_count(mask.size, -offset)
            wanted = max(1, wanted + (change if offset > 0 else -change))
        surplus = int(mask.sum()) - wanted
        if surplus > 0:
            return shrink(mask, worth, surplus)
        return grow(mask, min(-surplus, int((~mask).sum())), rng) if surplus < 0 else mask

    def _rearrange(self, live: Masks, seed: tuple[int, ...]) -> None:
        slots = self.slots
        for model in (self.model, *self._followers):
            rng = np.random.default_rng((*seed, len(seed)))  # the same fresh channels for all of them
            values, slots = rearrange(weights_of(model), self.structure, self.slots, live, rng)
            set_weights(model, values, NAME)
        self.slots = slots

    def _is_kernel(self, path: str) -> bool:
        return self.structure.variables[path].kind in KERNELS


def _blocks(structure: Structure) -> dict[str, list[str]]:
    """Return the kernels that freeze together, by path, of those between channels that may die."""
    found: dict[str, list[str]] = {}
    for path, variable in structure.variables.items():
        if variable.kind == KERNEL and None not in variable.axes[-2:]:
            found.setdefault(path.rpartition("_conv")[0] or path, []).append(path)
    return found
