"""Trains the residual on the rehearsal memory: who is in a round, what a batch is, when the mask moves."""

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import calibration, gate, mixing, removal
from edge_cl.learning import residual as mlp
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics
from edge_cl.memory.buffer import EMPTY, Buffer
from edge_cl.sample import FeatureSpace

STEPS = 2  # purpose of random numbers; the learner has the others


class Training:
    """The residual and where its training stands; changes in place.

    Attributes:
        residual: what is trained.
        trained: (C,) classes that it has been shown.
        kept: (K,) slots still in this round (data removal).
        mistakes_before: (K,) each slot's mistakes at the start of the round.
        round_steps: SGD steps of this round.
        teacher: (K, C) what somebody else answers to each slot, times how much it counts beside the label;
            None where there is nobody (distillation: Hinton, Vinyals and Dean 2014).
    """

    def __init__(self, space: FeatureSpace, config: LearnerConfig, buffer: Buffer) -> None:
        self.space, self.config, self.buffer = space, config, buffer
        slots = len(buffer.slots.sample)
        self.residual = mlp.create(space.size, config.network, config.seed)
        self.trained = np.zeros(0, bool)
        self.kept = np.ones(slots, bool)
        self.mistakes_before = np.zeros(slots, np.int32)
        self.round_steps = 0
        self.teacher: NDArray[np.float32] | None = None

    def outputs(self, rows: NDArray) -> NDArray:
        """Return the (..., C) answers of the residual to (..., D) embeddings."""
        flat = self.inputs(rows.reshape(-1, self.space.size))
        return mlp.forward(self.residual, flat).reshape(*rows.shape[:-1], len(self.trained))

    def inputs(self, rows: NDArray) -> NDArray[np.float32]:
        """Return (..., D) embeddings in the residual's scale: about one a value."""
        return (rows * (np.sqrt(self.space.size) / UNIT)).astype(np.float32)

    def add_class(self) -> None:
        """Make room for one more class."""
        self.residual = mlp.add_class(self.residual)
        self.trained = np.append(self.trained, False)

    def drop_class(self, number: int) -> None:
        """Forget a class; later ones move down by one."""
        self.residual = mlp.drop_class(self.residual, number)
        self.trained = np.delete(self.trained, number)

    def admit(self, slot: int) -> None:
        """Let the sample that has just come into a slot take part in the round."""
        self.kept[slot], self.mistakes_before[slot] = True, 0

    def restart(self) -> None:
        """Start the residual anew: trained weights cannot be made to forget, only replaced."""
        step = self.residual.step
        self.residual = mlp.create(self.space.size, self.config.network, self.config.seed)._replace(step=step)
        for _ in self.trained:
            self.residual = mlp.add_class(self.residual)
        self.trained[:] = False

    def start_round(self, statistics: Statistics) -> None:
        """Centre the residual's inputs on the samples; after new ones everybody is trained on again."""
        mean = statistics.sums.sum(axis=0) / max(int(statistics.counts.sum()), 1)
        self.residual = mlp.recentre(self.residual, self.inputs(mean))
        if self.buffer.slots.fresh.any():
            self._take_everybody_back()

    def _take_everybody_back(self) -> None:
        self.kept[:] = True
        self.mistakes_before[:] = self.buffer.slots.mistakes
        self.round_steps = 0

    def step(self, offsets: NDArray[np.float32], counts: NDArray[np.int64]) -> float:
        """Make one SGD step and return its loss; 0 where there is nobody to train on.

        Args:
            offsets: (K, V, C) base logits that have not seen the sample.
            counts: (C,) weight of each class in the base; a sample that is alone in its class is not heard.
        """
        config, slots = self.config, self.buffer.slots
        rng = np.random.default_rng((config.seed, STEPS, self.residual.step))
        heard = (slots.sample != EMPTY) & ~slots.suspect & (counts[slots.number] > SAMPLE_WEIGHT)
        heard &= ~gate.is_held_back(slots.sample)
        if not heard.any():
            self.residual = self.residual._replace(step=self.residual.step + 1)
            return 0.0
        if self.residual.step and self.residual.step % config.network.stage_steps == 0:
            self._adjust_mask(offsets, heard, rng)
        live = heard & self.kept
        if not live.any():  # all who were left in the round have been forgotten or set aside
            self._take_everybody_back()
            live = heard
        chosen, is_new = mixing.draw_batch(
            np.flatnonzero(live & ~slots.fresh),
            np.flatnonzero(live & slots.fresh),
            config.batch,
            config.lam,
            rng,
        )
        inputs, base, numbers = self._batch(offsets, chosen, rng)
        allowed = self._allowed(numbers, is_new) if config.masked_loss else self._prior(live)
        self.residual, found = mlp.step(
            self.residual, inputs, base, numbers, config.network, allowed, self._targets(chosen, numbers)
        )
        np.add.at(slots.shown, chosen, 1)
        np.add.at(slots.mistakes, chosen[found.wrong], 1)
        self.trained[numbers] = True
        self._remove_easy(heard, rng)
        return found.loss

    def _batch(
        self, offsets: NDArray[np.float32], chosen: NDArray, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray]:
        """Return inputs (B, D), offsets (B, C) and classes (B,) of one random view of each chosen sample."""
        view = rng.integers(self.config.views, size=len(chosen))
        rows = embed(self.buffer.features[chosen, view], self.space.zero_point)
        return self.inputs(rows), offsets[chosen, view], self.buffer.slots.number[chosen]

    def _targets(self, chosen: NDArray, numbers: NDArray) -> NDArray[np.float32] | None:
        """Return (B, C): what the teacher says, and the label for what that leaves of one."""
        if self.teacher is None:
            return None
        targets = self.teacher[chosen]
        targets[np.arange(len(chosen)), numbers] += 1.0 - targets.sum(axis=1)
        return targets

    def _allowed(self, numbers: NDArray, is_new: NDArray) -> NDArray[np.float32]:
        """Return (B, C): new samples compete only within the update set (the single-head mask of L~)."""
        outside = np.ones(len(self.trained), bool)
        outside[self.buffer.slots.number[self.buffer.slots.fresh]] = False
        return np.where(is_new[:, None] & outside, np.float32(calibration.LOWEST_SCORE), np.float32(0.0))

    def _prior(self, live: NDArray) -> NDArray[np.float32]:
        """Return (C,) log of how often a batch shows each class, relative to evenly.

        Added to the logits in training only, it keeps the residual from learning how often classes are drawn,
        which says nothing about the world (logit adjustment: Menon et al. 2021).
        """
        fresh, numbers, size = self.buffer.slots.fresh, self.buffer.slots.number, len(self.trained)
        old, new = (
            np.bincount(numbers[live & side], minlength=size).astype(float) for side in (~fresh, fresh)
        )
        old, new = (side if side.any() else other for side, other in ((old, new), (new, old)))
        drawn = self.config.lam * old / old.sum() + (1.0 - self.config.lam) * new / new.sum()
        return np.log(np.maximum(drawn * size, 1e-6)).astype(np.float32)

    def _adjust_mask(self, offsets: NDArray[np.float32], heard: NDArray, rng: np.random.Generator) -> None:
        slots, config = self.buffer.slots, self.config
        new, old = np.flatnonzero(heard & slots.fresh), np.flatnonzero(heard & ~slots.fresh)
        everything = self.residual.blocks.shape[1]
        parts = []
        for side, is_new in ((new, True), (old, False)):
            if not len(side):
                parts.append(np.zeros_like(self.residual.weights.first))
                continue
            chosen = side[rng.integers(len(side), size=config.batch)]
            inputs, base, numbers = self._batch(offsets, chosen, rng)
            allowed = self._allowed(numbers, np.full(len(chosen), is_new))
            parts.append(
                mlp.gradients(self.residual, inputs, base, numbers, everything, allowed).weights.first
            )
        expand = self.residual.extra == 0 and not self.trained.all()
        self.residual = mlp.adjust(self.residual, parts[0], parts[1], config.network, rng, expand)

    def _remove_easy(self, heard: NDArray, rng: np.random.Generator) -> None:
        self.round_steps += 1
        stage, rest = divmod(self.round_steps, self.config.removal_steps)
        if rest or stage > self.config.cutoff:
            return
        kept = removal.kept_count(int(heard.sum()), self.config.removed, self.config.cutoff, stage)
        mistakes = self.buffer.slots.mistakes - self.mistakes_before
        self.kept = removal.drop_easiest(heard & self.kept, mistakes, kept, rng)
