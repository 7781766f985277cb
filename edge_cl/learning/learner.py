"""The device's learner: base, residual and rehearsal buffer behind one way of being taught, asked and
corrected.

Labels are names in every call. The state is a pure fold over the calls that change it: the same calls in the
same order give the same arrays bit for bit on one machine; randomness comes from (seed, purpose, count).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import audit, calibration, gate, mixing, removal
from edge_cl.learning import residual as mlp
from edge_cl.learning.audit import Suspect
from edge_cl.learning.base import SAMPLE_WEIGHT, Base
from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.progress import Progress
from edge_cl.learning.report import Report, make_report
from edge_cl.memory.buffer import EMPTY, Buffer, capacity
from edge_cl.sample import FeatureSpace, Prediction, label_key

CHOICE_SAMPLES = 256  # held-out answers that choose the shrinkage; more did not change the choice
BLOCK_SAMPLES = 32  # held-out answers worked out at once, to bound memory
OFFERS, STEPS, CHOICES = 1, 2, 3  # purposes of random numbers


@dataclass(frozen=True)
class LearnerConfig:
    """How a learner learns; fixed for the life of its state."""

    views: int = 4  # views stored of a sample; fewer are repeated in turn up to this many
    buffer_bytes: int = 4_000_000  # rehearsal memory
    lam: float = 0.5  # chance that a place in a batch is an old sample
    steps_per_update: int = (
        64  # SGD steps of one consolidation; about the update set's size (Kaeding et al. 2016)
    )
    batch: int = 32  # samples a step
    removed: float = 0.3  # rho, share of samples that data removal leaves out by the end of a round
    cutoff: int = 4  # stages after which a round removes no more
    removal_steps: int = 16  # SGD steps of a removal stage
    masked_loss: bool = False  # train new samples against the update set's classes only (L~), as SparCL does
    seed: int = 0
    residual: bool = True  # off: the base alone
    audit: bool = True  # set suspects aside
    unknown: float = 0.02  # familiarity below which the answer is "unknown"
    network: mlp.ResidualConfig = field(default_factory=mlp.ResidualConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a settings file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LearnerConfig":
        """Return the config of `to_dict`."""
        return cls(**{**values, "network": mlp.ResidualConfig(**values.get("network", {}))})


class Lesson(NamedTuple):
    """What came of teaching one sample; `predicted` was answered before it was learned."""

    sample: int
    label: str
    predicted: str | None
    correct: bool | None
    new_class: bool
    evicted: int | None


class Consolidation(NamedTuple):
    """What a consolidation did; `gate` is the residual's weight after it, `loss` the mean over its steps."""

    steps: int
    loss: float | None
    gate: float
    set_aside: int
    taken_back: int


class Forgotten(NamedTuple):
    """How much went exactly, how much only from its class's mean, and the samples that left the buffer."""

    exact: int
    approximate: int
    samples: tuple[int, ...]


class Relabelled(NamedTuple):
    """Whether the correction reached the statistics; False when the sample had left the memory."""

    exact: bool
    was: str | None


class Rehearsal(NamedTuple):
    """Held-out answers for n remembered samples.

    Attributes:
        slots: (n,) where they are.
        numbers: (n,) their classes.
        scores: (n, V, C) of the base without the sample.
        norms: (n, V) squared length under the base without the sample.
        outputs: (n, V, C) of the residual, which may have trained on it.
    """

    slots: NDArray[np.intp]
    numbers: NDArray[np.int32]
    scores: NDArray[np.float64]
    norms: NDArray[np.float64]
    outputs: NDArray[np.float32]


def never() -> bool:
    """Say that nobody wants to stop."""
    return False


class EdgeLearner:
    """Learns from examples one by one, usable after each of them.

    Args:
        space: where the features come from.
        config: how to learn.
    """

    def __init__(self, space: FeatureSpace, config: LearnerConfig | None = None) -> None:
        self.space = space
        self.config = config = config or LearnerConfig()
        self.labels: tuple[str, ...] = ()
        self.base = Base(space.size)
        item = np.dtype(space.dtype).itemsize
        slots = capacity(config.buffer_bytes, config.views * space.size * item)
        self.buffer = Buffer(slots, config.views, space.size, space.dtype)
        self._kept = np.ones(slots, bool)  # DDR: who is still in this round
        self._mistakes_before = np.zeros(slots, np.int32)  # at the start of the round
        self._round_steps = 0
        self.residual = mlp.create(space.size, config.network, config.seed)
        self._trained = np.zeros(0, bool)  # (C,) classes the residual has been shown
        self.gate = 0.0  # weight of the residual's output
        self.calibration = calibration.Calibration(calibration.FIRST_TEMPERATURE, 0.0, 0.0)
        self.familiarity = calibration.unfitted_familiarity()
        self._doubt = np.zeros(slots)  # of each label, when last judged
        self._suggestion = np.zeros(slots, np.int32)
        self.departed = audit.Record.empty()  # suspects that have left the memory
        self.progress = Progress.empty()
        self._next_sample = 1
        self._taught_count = 0

    # asking

    def scores_many(self, features: NDArray) -> NDArray[np.float64]:
        """Return (B, C) logits for (B, V, D) features in the stored dtype; views are averaged."""
        rows = embed(features, self.space.zero_point)
        return self._logits(rows).mean(axis=1)

    def predict_many(self, features: NDArray) -> list[Prediction]:
        """Answer (B, V, D) features."""
        if not self.labels:
            return [Prediction(None, 0.0, None, None, 0.0, 0.0)] * len(features)
        rows = embed(features, self.space.zero_point)
        logits = self._logits(rows)
        log_probabilities = calibration.log_softmax(
            logits[:, 0] if logits.shape[1] == 1 else logits.mean(axis=1)
        )
        distances = self.base.sketched_distance(rows, log_probabilities.argmax(axis=1))
        familiarity = calibration.rank_familiarity(self.familiarity, distances, log_probabilities.max(axis=1))
        return [
            self._prediction(row, float(rank))
            for row, rank in zip(log_probabilities, familiarity, strict=True)
        ]

    def predict_one(self, features: NDArray) -> Prediction:
        """Answer one (V, D) sample."""
        return self.predict_many(features[None])[0]

    def _logits(self, rows: NDArray) -> NDArray[np.float64]:
        """Return (..., C) calibrated logits of (..., D) embeddings."""
        logits = self.base.scores(rows) / self.calibration.temperature
        return logits + self.gate * self._outputs(rows) if self.gate else logits

    def _prediction(self, log_probabilities: NDArray, familiarity: float) -> Prediction:
        order = np.argsort(-log_probabilities, kind="stable")[:2]
        names = [self.labels[i] for i in order]
        probabilities = np.exp(log_probabilities[order])
        known = familiarity >= self.config.unknown
        return Prediction(
            names[0] if known else None,
            float(probabilities[0]),
            names[0],
            names[1] if len(names) > 1 else None,
            float(probabilities[1]) if len(names) > 1 else 0.0,
            familiarity,
        )

    # teaching

    def learn_one(self, features: NDArray, label: str, sample: int | None = None) -> Lesson:
        """Learn one sample; it counts at once.

        Args:
            features: (V, D) views in the stored dtype, V at most `config.views`.
            label: class name, as `sample.clean_label` returns it.
            sample: its id, rising; by default the next one.
        """
        stored = self._padded(features)
        sample = self._next_sample if sample is None else sample
        self._next_sample = max(self._next_sample, sample + 1)
        rows = embed(stored, self.space.zero_point)
        known = self._number(label)
        number = self._add_class(label) if known is None else known
        predicted = self._answer_before(rows[0], number, known is None)
        self.base.update(rows, number)
        evicted = self._remember(sample, number, stored)
        self._taught_count += 1
        correct = None if known is None else predicted == number
        answer = None if predicted is None else self.labels[predicted]
        return Lesson(sample, self.labels[number], answer, correct, known is None, evicted)

    def learn_many(
        self,
        features: Sequence[NDArray] | NDArray,
        labels: Sequence[str],
        samples: Sequence[int] | None = None,
    ) -> list[Lesson]:
        """Learn samples one after the other; the same as `learn_one` for each."""
        ids: Sequence[int | None] = [None] * len(labels) if samples is None else samples
        return [self.learn_one(f, label, i) for f, label, i in zip(features, labels, ids, strict=True)]

    def _padded(self, features: NDArray) -> NDArray:
        views = self.config.views
        if features.ndim != 2 or not 1 <= len(features) <= views or features.shape[1] != self.space.size:
            raise ValueError(f"features are {features.shape}, not (1..{views}, {self.space.size})")
        if features.dtype != self.space.dtype:
            raise ValueError(f"features are {features.dtype}, not {self.space.dtype}")
        return features[np.arange(views) % len(features)]

    def _number(self, label: str) -> int | None:
        key = label_key(label)
        return next((i for i, known in enumerate(self.labels) if label_key(known) == key), None)

    def _add_class(self, label: str) -> int:
        self.labels += (label,)
        self.buffer.add_class()
        self.residual = mlp.add_class(self.residual)
        self._trained = np.append(self._trained, False)
        self.progress = self.progress.with_class()
        return self.base.add_class()

    def _answer_before(self, row: NDArray, number: int, is_new: bool) -> int | None:
        """Answer a sample that is about to be learned, and let the answer count for gate and progress."""
        if is_new:
            self.progress = self.progress.taught_one(number, None)
            known = len(self.labels) - 1
            return int(self._logits(row)[:known].argmax()) if known else None
        predicted = int(self._logits(row).argmax())
        self.progress = self.progress.taught_one(number, predicted)
        return predicted

    def _remember(self, sample: int, number: int, stored: NDArray) -> int | None:
        rng = np.random.default_rng((self.config.seed, OFFERS, self._taught_count))
        before = self.buffer.slots.suspect.copy(), self.buffer.slots.number.copy()
        offer = self.buffer.offer(sample, number, stored, rng)
        if offer.slot is not None:
            if offer.evicted is not None and before[0][offer.slot]:
                was, slot = int(before[1][offer.slot]), offer.slot
                self.departed = self.departed.with_one(
                    offer.evicted, was, int(self._suggestion[slot]), float(self._doubt[slot])
                )
            self._kept[offer.slot] = True
            self._mistakes_before[offer.slot] = 0
        return offer.evicted

    # consolidating

    def consolidate(self, steps: int | None = None, should_stop: Callable[[], bool] = never) -> Consolidation:
        """Rehearse: choose the shrinkage anew when due, audit labels, calibrate, train the residual.

        Everything answers as before until a part is done, and at once with it. Interrupted after n steps,
        the state is that of `consolidate(n)`.

        Args:
            steps: SGD steps; by default `config.steps_per_update`.
            should_stop: asked between steps.
        """
        steps = self.config.steps_per_update if steps is None else steps
        filled = self.buffer.filled
        if len(self.labels) < 2 or not len(filled):
            return Consolidation(0, None, 0.0, 0, 0)
        if self.base.is_stale:
            self._refresh_base(filled)
        rehearsal = self._rehearse(filled)
        offsets, moved = self._offsets(rehearsal), self._audit(rehearsal) if self.config.audit else (0, 0)
        done, losses = 0, []
        if self.config.residual:
            self._start_round()
            while done < steps and not should_stop():
                losses.append(self._train_step(offsets))
                done += 1
            self.gate = self._judge(filled, offsets)
        self.buffer.slots.fresh[:] = False
        loss = float(np.mean(losses)) if losses else None
        return Consolidation(done if self.config.residual else steps, loss, self.gate, *moved)

    def _refresh_base(self, filled: NDArray) -> None:
        heard = filled[~self.buffer.slots.suspect[filled]]
        company = heard[self.base.counts[self.buffer.slots.number[heard]] > SAMPLE_WEIGHT]
        if len(company) < 2 * len(self.labels):
            self.base.refresh(self.base.shrinkage)
            return
        rng = np.random.default_rng((self.config.seed, CHOICES, self._taught_count))
        chosen = np.sort(rng.permutation(company)[:CHOICE_SAMPLES])
        self.base.choose_shrinkage(lambda: self._held_out_loss(chosen))

    def _held_out_loss(self, slots: NDArray) -> float:
        held_out = self._held_out(slots)
        return calibration.fit(held_out.scores[:, :1], held_out.numbers).loss

    def _rehearse(self, filled: NDArray) -> Rehearsal:
        """Answer every remembered sample as if it had not been taught, and calibrate by the answers."""
        rehearsal = self._held_out(filled)
        fit = self.base.counts[rehearsal.numbers] > SAMPLE_WEIGHT
        if fit.sum() >= max(audit.LEAST_MEMORY, 2 * len(self.labels)):
            self.calibration = calibration.fit(rehearsal.scores[fit], rehearsal.numbers[fit])
            trusted = fit & ~self.buffer.slots.suspect[filled]
            self._fit_familiarity(rehearsal.scores[trusted, 0], rehearsal.norms[trusted, 0])
        return rehearsal

    def _held_out(self, filled: NDArray) -> Rehearsal:
        parts = []
        for start in range(0, len(filled), BLOCK_SAMPLES):
            slots = filled[start : start + BLOCK_SAMPLES]
            rows = embed(self.buffer.features[slots], self.space.zero_point)
            numbers = self.buffer.slots.number[slots]
            answers = self.base.hold_out(rows, numbers)
            aside = self.buffer.slots.suspect[slots]
            answers.scores[aside] = self.base.scores(
                rows[aside]
            )  # not in the statistics: nothing to take out
            parts.append((slots, numbers, *answers, self._outputs(rows)))
        return Rehearsal(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _offsets(self, rehearsal: Rehearsal) -> NDArray[np.float32]:
        """Return the residual's offsets (K, V, C): base logits that have not seen the sample."""
        offsets = np.zeros((len(self._kept), *rehearsal.scores.shape[1:]), np.float32)
        offsets[rehearsal.slots] = self._held_out_logits(rehearsal)
        return offsets

    def _held_out_logits(self, rehearsal: Rehearsal) -> NDArray[np.float64]:
        return np.maximum(rehearsal.scores, calibration.LOWEST_SCORE) / self.calibration.temperature

    def _fit_familiarity(self, scores: NDArray, norms: NDArray) -> None:
        scores = np.maximum(scores, calibration.LOWEST_SCORE)
        log_probabilities = calibration.log_softmax(scores / self.calibration.temperature)
        distances = norms - 2.0 * scores.max(axis=1)
        self.familiarity = calibration.fit_familiarity(distances, log_probabilities.max(axis=1))

    def _audit(self, rehearsal: Rehearsal) -> tuple[int, int]:
        """Set suspects aside - out of the statistics and of training - and take cleared ones back."""
        logits = self._held_out_logits(rehearsal)
        learned = (logits + rehearsal.outputs).mean(axis=1).argmax(axis=1) == rehearsal.numbers
        suspected = self.buffer.slots.suspect[rehearsal.slots]
        doubts = self._doubts(logits, rehearsal.numbers)
        self._doubt[rehearsal.slots] = doubts
        self._suggestion[rehearsal.slots] = calibration.log_softmax(logits).mean(axis=1).argmax(axis=1)
        verdict = audit.judge(
            suspected,
            doubts,
            learned,
            self.base.counts[rehearsal.numbers] // SAMPLE_WEIGHT,
        )
        verdict &= ~self.buffer.slots.confirmed[rehearsal.slots]
        for slot, number in zip(
            rehearsal.slots[verdict != suspected], rehearsal.numbers[verdict != suspected], strict=True
        ):
            move = self.base.update if self.buffer.slots.suspect[slot] else self.base.revert
            move(embed(self.buffer.features[slot], self.space.zero_point), int(number))
        self.buffer.slots.suspect[rehearsal.slots] = verdict
        return int((verdict & ~suspected).sum()), int((suspected & ~verdict).sum())

    def _judge(self, filled: NDArray, offsets: NDArray) -> float:
        """Return the residual's weight, by the samples that it never trains on."""
        judges = filled[
            gate.is_held_back(self.buffer.slots.sample[filled]) & ~self.buffer.slots.suspect[filled]
        ]
        if not len(judges):
            return 0.0
        parts = np.array_split(self.buffer.features[judges], -(-len(judges) // BLOCK_SAMPLES))
        outputs = [self._outputs(embed(part, self.space.zero_point)) for part in parts]
        return gate.opening(offsets[judges], np.concatenate(outputs), self.buffer.slots.number[judges])

    def _doubts(self, logits: NDArray, numbers: NDArray) -> NDArray[np.float64]:
        """Return (n,) the probability that a label is wrong, from held-out (n, V, C) logits."""
        own = np.exp(calibration.log_softmax(logits))[np.arange(len(numbers)), :, numbers].mean(axis=1)
        return calibration.wrong_label(self.calibration, own, len(self.labels))

    def _outputs(self, rows: NDArray) -> NDArray:
        flat = self._inputs(rows.reshape(-1, self.space.size))
        return mlp.forward(self.residual, flat).reshape(*rows.shape[:-1], len(self.labels))

    # training the residual

    def _start_round(self) -> None:
        statistics = self.base.statistics
        mean = statistics.sums.sum(axis=0) / max(int(statistics.counts.sum()), 1)
        self.residual = mlp.recentre(self.residual, self._inputs(mean))
        if self.buffer.slots.fresh.any():
            self._take_everybody_back()

    def _take_everybody_back(self) -> None:
        self._kept[:] = True
        self._mistakes_before[:] = self.buffer.slots.mistakes
        self._round_steps = 0

    def _train_step(self, offsets: NDArray[np.float32]) -> float:
        config, slots = self.config, self.buffer.slots
        rng = np.random.default_rng((config.seed, STEPS, self.residual.step))
        heard = (slots.sample != EMPTY) & ~slots.suspect & (self.base.counts[slots.number] > SAMPLE_WEIGHT)
        heard &= ~gate.is_held_back(slots.sample)
        if not heard.any():
            self.residual = self.residual._replace(step=self.residual.step + 1)
            return 0.0
        if self.residual.step and self.residual.step % config.network.stage_steps == 0:
            self._adjust_mask(offsets, heard, rng)
        live = heard & self._kept
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
        self.residual, found = mlp.step(self.residual, inputs, base, numbers, config.network, allowed)
        np.add.at(slots.shown, chosen, 1)
        np.add.at(slots.mistakes, chosen[found.wrong], 1)
        self._trained[numbers] = True
        self._remove_easy(heard, rng)
        return found.loss

    def _batch(
        self, offsets: NDArray[np.float32], chosen: NDArray, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray]:
        """Return inputs (B, D), offsets (B, C) and classes (B,) of one random view of each chosen sample."""
        view = rng.integers(self.config.views, size=len(chosen))
        rows = embed(self.buffer.features[chosen, view], self.space.zero_point)
        return self._inputs(rows), offsets[chosen, view], self.buffer.slots.number[chosen]

    def _allowed(self, numbers: NDArray, is_new: NDArray) -> NDArray[np.float32]:
        """Return (B, C): new samples compete only within the update set (the single-head mask of L~)."""
        outside = np.ones(len(self.labels), bool)
        outside[self.buffer.slots.number[self.buffer.slots.fresh]] = False
        return np.where(is_new[:, None] & outside, np.float32(calibration.LOWEST_SCORE), np.float32(0.0))

    def _prior(self, live: NDArray) -> NDArray[np.float32]:
        """Return (C,) log of how often a batch shows each class, relative to evenly.

        Added to the logits in training only, it keeps the residual from learning how often classes are drawn,
        which says nothing about the world (logit adjustment: Menon et al. 2021).
        """
        fresh, numbers, size = self.buffer.slots.fresh, self.buffer.slots.number, len(self.labels)
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
        expand = self.residual.extra == 0 and not self._trained.all()
        self.residual = mlp.adjust(self.residual, parts[0], parts[1], config.network, rng, expand)

    def _remove_easy(self, heard: NDArray, rng: np.random.Generator) -> None:
        self._round_steps += 1
        stage, rest = divmod(self._round_steps, self.config.removal_steps)
        if rest or stage > self.config.cutoff:
            return
        kept = removal.kept_count(int(heard.sum()), self.config.removed, self.config.cutoff, stage)
        mistakes = self.buffer.slots.mistakes - self._mistakes_before
        self._kept = removal.drop_easiest(heard & self._kept, mistakes, kept, rng)

    def _inputs(self, rows: NDArray) -> NDArray[np.float32]:
        """Return (..., D) embeddings in the residual's scale: about one a value."""
        return (rows * (np.sqrt(self.space.size) / UNIT)).astype(np.float32)

    # correcting

    def relabel(self, sample: int, label: str) -> Relabelled:
        """Correct a taught label; the same one again confirms it, and the audit leaves the sample alone."""
        self.departed = self.departed.without_sample(sample)
        slot = self.buffer.find(sample)
        if slot is None:
            return Relabelled(False, None)
        slots = self.buffer.slots
        was = int(slots.number[slot])
        found = self._number(label)
        number = self._add_class(label) if found is None else found
        rows = embed(self.buffer.features[slot], self.space.zero_point)
        if not slots.suspect[slot]:
            self.base.revert(rows, was)
        self.base.update(rows, number)
        slots.number[slot] = number
        slots.suspect[slot], slots.confirmed[slot] = False, True
        slots.fresh[slot] |= number != was
        return Relabelled(True, self.labels[was])

    def forget_sample(self, sample: int) -> Forgotten:
        """Take one sample out of everything.

        A sample that has left the memory cannot be taken out of the sums any more; `approximate` then says 1.
        """
        was_aside = bool((self.departed.sample == sample).any())
        self.departed = self.departed.without_sample(sample)
        slot = self.buffer.find(sample)
        if slot is None:  # a suspect that has left is in no sum any more
            return Forgotten(1, 0, ()) if was_aside else Forgotten(0, 1, ())
        self._take_out(slot)
        self._restart_residual()
        return Forgotten(1, 0, (sample,))

    def forget_label(self, label: str) -> Forgotten:
        """Take a whole class out of everything; what has left the memory goes by the class's count and mean.

        Raises:
            ValueError: the class was never taught.
        """
        number = self._number(label)
        if number is None:
            raise ValueError(f"no class {label!r}")
        slots = self.buffer.slots
        members = np.flatnonzero((slots.sample != EMPTY) & (slots.number == number))
        samples = tuple(int(s) for s in slots.sample[members])
        for slot in members:
            self._take_out(int(slot))
        rest = int(self.base.counts[number]) // SAMPLE_WEIGHT
        self.base.forget_class(number)
        self.buffer.drop_class(number)
        self.residual = mlp.drop_class(self.residual, number)
        self._trained = np.delete(self._trained, number)
        self.progress = self.progress.without_class(number)
        self.departed = self.departed.without_class(number)
        gone = self._suggestion == number
        self._suggestion -= self._suggestion > number
        self._suggestion[gone] = self.buffer.slots.number[gone]
        self.labels = self.labels[:number] + self.labels[number + 1 :]
        self._restart_residual()
        return Forgotten(len(samples), rest, samples)

    def _take_out(self, slot: int) -> None:
        rows = embed(self.buffer.features[slot], self.space.zero_point)
        if not self.buffer.slots.suspect[slot]:
            self.base.revert(rows, int(self.buffer.slots.number[slot]))
        self.buffer.remove(slot)

    def _restart_residual(self) -> None:
        """Start the residual anew: trained weights cannot be made to forget, only replaced."""
        step = self.residual.step
        self.residual = mlp.create(self.space.size, self.config.network, self.config.seed)._replace(step=step)
        for _ in self.labels:
            self.residual = mlp.add_class(self.residual)
        self._trained[:] = False
        self.gate = 0.0

    # explaining

    def suspects(self) -> list[Suspect]:
        """Return the samples whose labels look wrong, the most doubtful first."""
        slots = self.buffer.slots
        found = np.flatnonzero(slots.suspect)
        rows = [
            *zip(
                slots.sample[found],
                slots.number[found],
                self._suggestion[found],
                self._doubt[found],
                strict=True,
            )
        ]
        rows += zip(*self.departed, strict=True)
        named = [Suspect(int(s), self.labels[n], self.labels[g], float(d)) for s, n, g, d in rows]
        return sorted(named, key=lambda suspect: (-suspect.doubt, suspect.sample))

    def report(self) -> Report:
        """Return what the learner knows of itself: accuracy per class, confusions, whether data suffices."""
        filled = self.buffer.filled
        slots = self.buffer.slots
        heard = filled[~slots.suspect[filled]]
        answers = self._held_out(heard).scores[:, 0].argmax(axis=1) if len(heard) else np.zeros(0, np.intp)
        numbers = slots.number[heard]
        suspects = np.bincount(slots.number[filled[slots.suspect[filled]]], minlength=len(self.labels))
        return make_report(self.labels, self.progress, self.buffer.kept(), suspects, numbers, answers)

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of each part of the state."""
        statistics = self.base.statistics
        weights = [*self.residual.weights, *self.residual.average, *self.residual.velocity]
        return {
            "base": sum(a.nbytes for a in statistics[:3]),
            "residual": sum(a.nbytes for a in weights) + self.residual.blocks.nbytes,
            "buffer": self.buffer.features[self.buffer.filled].nbytes
            + sum(a.nbytes for a in self.buffer.slots),
        }

    def density(self) -> float:
        """Return the share of the residual's first-layer weights that live."""
        return mlp.density(self.residual)

    def live_samples(self) -> frozenset[int]:
        """Return the ids of samples whose features are kept."""
        return frozenset(int(s) for s in self.buffer.slots.sample[self.buffer.filled])

    # state as data

    def settle(self) -> None:
        """Solve what is derived anew from what is stored: a restored learner then is equal bit for bit."""
        self.base.settle()

    def flatten(self) -> dict[str, NDArray]:
        """Return the whole state but the buffered features, as arrays; `settle` is called first."""
        self.settle()
        statistics = self.base.statistics
        tensors: dict[str, NDArray] = {
            "labels": np.frombuffer(json.dumps(self.labels).encode(), np.uint8),
            "counters": np.array(
                [
                    self._next_sample,
                    self._taught_count,
                    self._round_steps,
                    statistics.residue,
                    self.base.refreshed_weight,
                ],
                np.int64,
            ),
            "base.counts": statistics.counts.copy(),  # copied: what changes in place
            "base.sums": statistics.sums.copy(),
            "base.moment": _upper_triangle(statistics.moment),
            "base.shape": np.array([self.base.shrinkage, self.base.ridge]),
            "audit.doubt": self._doubt.copy(),
            "audit.suggestion": self._suggestion.copy(),
            "removal.kept": self._kept.copy(),
            "removal.mistakes_before": self._mistakes_before.copy(),
            "residual.trained": self._trained.copy(),
            "residual.blocks": self.residual.blocks,
            "residual.centre": self.residual.centre,
            "residual.counters": np.array(
                [self.residual.moving, self.residual.extra, self.residual.step], np.int64
            ),
            "buffer.offered": self.buffer.offered.copy(),
            "calibration.numbers": np.array([*self.calibration, self.gate]),
        }
        parts: dict[str, Any] = {
            "buffer": self.buffer.slots,
            "familiarity": self.familiarity,
            "progress": self.progress,
            "departed": self.departed,
            "residual.weights": self.residual.weights,
            "residual.velocity": self.residual.velocity,
            "residual.average": self.residual.average,
        }
        for part, columns in parts.items():
            tensors |= {f"{part}.{name}": array.copy() for name, array in columns._asdict().items()}
        return tensors

    @classmethod
    def restore(
        cls,
        space: FeatureSpace,
        config: LearnerConfig,
        tensors: Mapping[str, NDArray],
        features: Mapping[int, NDArray],
    ) -> "EdgeLearner":
        """Return the learner of `flatten`, given the (V, D) features of its live samples.

        A live sample whose features are missing (lost with a damaged database) leaves the buffer.
        """
        learner = cls(space, config)
        learner.labels = tuple(json.loads(bytes(tensors["labels"]).decode()))
        counters = [int(v) for v in tensors["counters"]]
        learner._next_sample, learner._taught_count, learner._round_steps = counters[:3]
        moment = _symmetric(tensors["base.moment"], space.size)
        shrinkage, ridge = (float(v) for v in tensors["base.shape"])
        learner.base.restore(
            tensors["base.counts"], tensors["base.sums"], moment, counters[3], shrinkage, ridge, counters[4]
        )
        learner._restore_buffer(tensors, features)
        learner._restore_residual(tensors)
        numbers = [float(v) for v in tensors["calibration.numbers"]]
        learner.calibration = calibration.Calibration(*numbers[:3])
        learner.gate = numbers[3]
        learner.familiarity = calibration.Familiarity(
            *(tensors[f"familiarity.{n}"] for n in calibration.Familiarity._fields)
        )
        learner.departed = audit.Record(*(tensors[f"departed.{n}"] for n in audit.Record._fields))
        learner.progress = Progress(*(tensors[f"progress.{n}"] for n in Progress._fields))
        return learner

    def _restore_buffer(self, tensors: Mapping[str, NDArray], features: Mapping[int, NDArray]) -> None:
        for name in self.buffer.slots._fields:
            getattr(self.buffer.slots, name)[:] = tensors[f"buffer.{name}"]
        self.buffer.offered = tensors["buffer.offered"].copy()
        self._kept = tensors["removal.kept"].copy()
        self._doubt, self._suggestion = tensors["audit.doubt"].copy(), tensors["audit.suggestion"].copy()
        self._mistakes_before = tensors["removal.mistakes_before"].copy()
        for slot in self.buffer.filled:
            found = features.get(int(self.buffer.slots.sample[slot]))
            if found is None:
                self.buffer.remove(int(slot))
            else:
                self.buffer.features[slot] = found

    def _restore_residual(self, tensors: Mapping[str, NDArray]) -> None:
        moving, extra, step = (int(v) for v in tensors["residual.counters"])
        parts = [
            mlp.Weights(*(tensors[f"residual.{part}.{n}"] for n in mlp.Weights._fields))
            for part in ("weights", "velocity", "average")
        ]
        self.residual = mlp.Residual(
            blocks=tensors["residual.blocks"],
            moving=moving,
            weights=parts[0],
            velocity=parts[1],
            average=parts[2],
            centre=tensors["residual.centre"],
            extra=extra,
            step=step,
        )
        self._trained = tensors["residual.trained"].copy()


def _upper_triangle(moment: NDArray[np.float64]) -> NDArray:
    """Return the rows of the upper triangle end to end, as the smallest integers that hold them.

    Row by row: index arrays for a triangle would be as large as the matrix.
    """
    small = max(float(moment.max()), -float(moment.min())) < 2**31
    dtype = np.int32 if small else np.int64
    return np.concatenate([row[i:].astype(dtype) for i, row in enumerate(moment)])


def _symmetric(triangle: NDArray, size: int) -> NDArray[np.float64]:
    """Return the (D, D) matrix of `_upper_triangle`."""
    moment = np.zeros((size, size))
    start = 0
    for i in range(size):
        moment[i, i:] = triangle[start : start + size - i]
        moment[i:, i] = moment[i, i:]
        start += size - i
    return moment
