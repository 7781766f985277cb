"""Holds masks of whole channels, and blocks that move: TDM and DGM in the form that saves seconds.

The living channels of a wide network are kept in a small one, which is trained as it is. When masks move,
departed channels give their slots to fresh ones; shapes stay, so nothing is compiled anew. Of a block that is
frozen the gates are closed, so that its kernels' gradients are not computed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.masking import grow, live_count, most_important, moved_count, random_mask, shrink
from host_trainer.checkpoints import set_weights, weights_of
from host_trainer.sparcl.channels import (
    KERNELS,
    Masks,
    Slots,
    Structure,
    Variable,
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
from host_trainer.sparcl.gates import blocks_of, choose_blocks, gated, switch
from host_trainer.sparcl.importance import Importance, movement, standing
from host_trainer.sparcl.schedule import Move, Sparsity

SLOTS, MOVING = "slots", "moving"
NAME = "compact"  # what a refusal calls the network
SAVED = "the saved network"


class ChannelMasks:
    """The masks of a wide network and the small one inside of it; `model`, with gates, is trained."""

    def __init__(self, wide: Any, sparsity: Sparsity, seed: int) -> None:
        """Take a classifier's most important channels, or some by chance; `wide` is not changed.

        Raises:
            ConfigError: a network without channels to mask, or too narrow for this sparsity.
        """
        self._drawing, self._rules = wide.to_json(), sparsity  # not its weights: they are nobody's any more
        self.structure = structure_of(wide)
        widths = {group.name: group.width for group in self.structure.groups}
        room = live_counts(self.structure, 1 - sparsity.density)
        # The slots are multiples of eight for the kernels' sake; a new task's channels take the spare ones.
        self._spare = {n: min(moved_count(w, sparsity.inter), room[n] - 1) for n, w in widths.items()}
        if not sparsity.masks:
            self._spare = dict.fromkeys(widths, 0)
        self._counts = {name: room[name] - self._spare[name] for name in room}
        self.slots = first_slots(self._first(wide, widths, seed), room)
        self.plain = compact(wide, room)
        set_weights(self.plain, gather(weights_of(wide), self.structure, self.slots), NAME)
        self.model, self.gates = gated(self.plain)
        self._followers: list[Any] = []
        self.blocks = _blocks(self.plain, self.structure)
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
        self.release()
        return survivor_masks(self.structure, before, self.slots)

    def release(self) -> None:
        """Let every block move, so that gradients of all of them can be taken."""
        self._let(dict.fromkeys(self.moving, True))

    def choose(self, found: Importance) -> None:
        """Freeze the least important blocks until the next choice (DGM)."""
        scores = movement(found, self._rules)
        worth = {n: sum(float(scores[path].sum()) for path in paths) for n, paths in self.blocks.items()}
        count = live_count(len(worth), (1 - self._rules.still) / (1 - self._rules.sparsity))
        chosen = choose_blocks(worth, count)
        self._let({name: name in chosen for name in worth})

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
        self._let({n: bool(m) for n, m in zip(self.moving, state[MOVING], strict=True)})

    def saved(self) -> Any:
        """Return the small network as it is now, of Keras' own layers: without gates."""
        set_weights(self.plain, self._own(self.model), NAME)
        return self.plain

    def take(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Give the small network the weights of a saved one.

        Raises:
            MismatchError: they are of another network.
        """
        set_weights(self.plain, weights, SAVED)
        self._give(self.model, weights)

    def finished(self, model: Any) -> Any:
        """Return a model as it is given away: a plain network of the living channels, no slot empty."""
        import keras

        counts = counts_of(self.slots)
        tight = first_slots(live_masks(self.structure, self.slots), counts)
        small = compact(keras.models.model_from_json(self._drawing), counts)
        wide = scatter(self._own(model), self.structure, self.slots)
        set_weights(small, gather(wide, self.structure, tight), NAME)
        return small

    def _first(self, wide: Any, widths: Mapping[str, int], seed: int) -> Masks:
        if self._rules.initial != "magnitude":
            rng = np.random.default_rng(seed)
            return {name: random_mask(width, self._counts[name], rng) for name, width in widths.items()}
        every = {name: np.ones(width, bool) for name, width in widths.items()}
        scores = {path: np.abs(v) for path, v in weights_of(wide).items() if self._is_kernel(path)}
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
            values, slots = rearrange(self._own(model), self.structure, self.slots, live, rng)
            self._give(model, values)
        self.slots = slots

    def _let(self, moving: dict[str, bool]) -> None:
        """Open the gates of blocks that move, and of all that can never be frozen; close the others."""
        self.moving = moving
        still = {
            path.rpartition("/")[0]
            for name, moves in moving.items()
            if not moves
            for path in self.blocks[name]
        }
        switch(self.gates, self.gates.keys() - still)

    def _own(self, model: Any) -> dict[str, NDArray[Any]]:
        """Return the variables of the structure: all but the gates."""
        return {
            path: values for path, values in weights_of(model).items() if path in self.structure.variables
        }

    def _give(self, model: Any, values: Mapping[str, NDArray[Any]]) -> None:
        """Set the variables of the structure, and leave the gates."""
        set_weights(model, {**weights_of(model), **values}, NAME)

    def _is_kernel(self, path: str) -> bool:
        return self.structure.variables[path].kind in KERNELS


def _blocks(model: Any, structure: Structure) -> dict[str, list[str]]:
    """Return the kernels that freeze together, by path, of those between channels that may die."""
    found = {
        block: [
            path for path in (f"{layer}/kernel" for layer in layers) if _may_freeze(structure.variables[path])
        ]
        for block, layers in blocks_of(model).items()
    }
    return {block: paths for block, paths in found.items() if paths}


def _may_freeze(variable: Variable) -> bool:
    return variable.kind in KERNELS and variable.axes[2] is not None
