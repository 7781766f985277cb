"""The device's learner: base, residual and rehearsal buffer behind one way of being taught, asked and
corrected.

Labels are names in every call. The state is a pure fold over the calls that change it: the same calls in the
same order give the same arrays bit for bit on one machine; randomness comes from (seed, purpose, count).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import audit, calibration, gate, snapshot
from edge_cl.learning import residual as mlp
from edge_cl.learning.base import Base
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.docket import Docket, Suspect
from edge_cl.learning.embedding import embed
from edge_cl.learning.held_out import HeldOut, Solution
from edge_cl.learning.inherited import Inherited, less, statistics
from edge_cl.learning.progress import Progress
from edge_cl.learning.report import Report, make_report
from edge_cl.learning.shrinkage import Candidate
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics
from edge_cl.learning.training import Training
from edge_cl.memory.buffer import EMPTY, Buffer, Leaving, capacity, is_exemplar
from edge_cl.sample import FeatureSpace, Prediction, label_key

BLOCK_SAMPLES = 32  # held-out answers worked out at once, to bound memory
OFFERS = 1  # purpose of random numbers; 2 is that of `training`


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
    """

    slots: NDArray[np.intp]
    numbers: NDArray[np.int32]
    scores: NDArray[np.float64]
    norms: NDArray[np.float64]


def never() -> bool:
    """Say that nobody wants to stop."""
    return False


def unseen(solution: Solution, rows: NDArray, numbers: NDArray, aside: NDArray) -> HeldOut:
    """Answer for (n, V, D) embeddings as if never taught; those set aside (n,) are in no sum anyway."""
    answers = solution.hold_out(rows, numbers)
    answers.scores[aside] = solution.scores(rows[aside])
    return answers


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
        self.inherited: Inherited | None = None  # what of the base nobody taught here
        item = np.dtype(space.dtype).itemsize
        slots = capacity(config.buffer_bytes, config.views * space.size * item)
        self.buffer = Buffer(slots, config.views, space.size, space.dtype)
        self.training = Training(space, config, self.buffer)
        self.gate = 0.0  # weight of the residual's output
        self.calibration = calibration.Calibration(calibration.FIRST_TEMPERATURE, 0.0, 0.0)
        self.familiarity = calibration.unfitted_familiarity()
        self.docket = Docket(slots)
        self.progress = Progress.empty()
        self.next_sample = 1
        self.taught_count = 0

    @property
    def residual(self) -> mlp.Residual:
        """The trained half of the head."""
        return self.training.residual

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
        return logits + self.gate * self.training.outputs(rows) if self.gate else logits

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
        sample = self.next_sample if sample is None else sample
        self.next_sample = max(self.next_sample, sample + 1)
        rows = embed(stored, self.space.zero_point)
        known = self._number(label)
        number = self.add_class(label) if known is None else known
        predicted = self._answer_before(rows[0], number, known is None)
        self.base.update(rows, number)
        evicted = self._remember(sample, number, stored)
        self.taught_count += 1
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

    def add_class(self, label: str) -> int:
        """Make room for a class that nothing was taught of yet, and return its number."""
        self.labels += (label,)
        self.buffer.add_class()
        self.training.add_class()
        self.progress = self.progress.with_class()
        self.inherited = self.inherited and self.inherited.with_class()
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
        rng = np.random.default_rng((self.config.seed, OFFERS, self.taught_count))
        offer = self.buffer.offer(sample, number, stored, rng)
        if offer.leaving is not None:
            self._part_with(offer.leaving)
        if offer.slot is None:
            return None
        self.training.admit(offer.slot)
        return None if offer.leaving is None else offer.leaving.sample

    def _part_with(self, leaving: Leaving) -> None:
        """Judge a label for the last time: what is in the sums without its features stays there."""
        if leaving.confirmed or not (leaving.suspect or self.config.audit and self.calibration.noise):
            return
        rows, numbers = embed(leaving.features, self.space.zero_point)[None], np.array([leaving.number])
        aside = np.array([leaving.suspect])
        logits = self._tempered(unseen(self.base, rows, numbers, aside).scores)
        opinion = self._opinion(logits, numbers, aside, lambda _: self.training.outputs(rows))
        is_suspect = bool(opinion.suspect[0])
        if is_suspect != leaving.suspect:
            self._move(rows[0], leaving.number, is_suspect)
        if is_suspect:
            self.docket.depart(leaving.sample, leaving.number, opinion)

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
        rehearsal = self._refreshed(filled) if self.base.is_stale else self._rehearse(filled, self.base)
        self._calibrate(rehearsal)
        offsets, moved = self._offsets(rehearsal), self._audit(rehearsal) if self.config.audit else (0, 0)
        done, losses = 0, []
        if self.config.residual:
            self.training.start_round(self.base.statistics)
            while done < steps and not should_stop():
                losses.append(self.training.step(offsets, self.base.counts))
                done += 1
            self.gate = self._judge(filled, offsets)
        self.buffer.slots.fresh[:] = False
        loss = float(np.mean(losses)) if losses else None
        return Consolidation(done if self.config.residual else steps, loss, self.gate, *moved)

    def _refreshed(self, filled: NDArray) -> Rehearsal:
        """Choose the shrinkage anew, by the first view as most questions are; rehearse at the one chosen."""
        numbers = self.buffer.slots.number[filled]
        company = self._in_company(numbers) & ~self.buffer.slots.suspect[filled]
        if company.sum() < 2 * len(self.labels):
            self.base.refresh(self.base.shrinkage)
            return self._rehearse(filled, self.base)
        rehearsals: dict[float, Rehearsal] = {}  # of the best so far; by its loss

        def loss(candidate: Candidate) -> float:
            rehearsal = self._rehearse(filled, candidate)
            found = calibration.fit(rehearsal.scores[company, :1], numbers[company]).loss
            if not rehearsals or found < min(rehearsals):
                rehearsals.clear()
                rehearsals[found] = rehearsal
            return found

        self.base.choose_shrinkage(loss)
        return next(iter(rehearsals.values()))

    def _rehearse(self, filled: NDArray, solution: Solution) -> Rehearsal:
        """Answer every remembered sample as if it had not been taught."""
        parts = []
        for start in range(0, len(filled), BLOCK_SAMPLES):
            slots = filled[start : start + BLOCK_SAMPLES]
            rows = embed(self.buffer.features[slots], self.space.zero_point)
            numbers = self.buffer.slots.number[slots]
            parts.append((slots, numbers, *unseen(solution, rows, numbers, self.buffer.slots.suspect[slots])))
        return Rehearsal(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _in_company(self, numbers: NDArray) -> NDArray[np.bool_]:
        """Return which samples of classes (n,) are not all that their class was taught of."""
        return self.base.counts[numbers] > SAMPLE_WEIGHT

    def _calibrate(self, rehearsal: Rehearsal) -> None:
        fit = self._in_company(rehearsal.numbers)
        if fit.sum() >= max(audit.LEAST_MEMORY, 2 * len(self.labels)):
            self.calibration = calibration.fit(rehearsal.scores[fit], rehearsal.numbers[fit])
            trusted = fit & ~self.buffer.slots.suspect[rehearsal.slots]
            self._fit_familiarity(rehearsal.scores[trusted, 0], rehearsal.norms[trusted, 0])

    def _offsets(self, rehearsal: Rehearsal) -> NDArray[np.float32]:
        """Return the residual's offsets (K, V, C): base logits that have not seen the sample."""
        offsets = np.zeros((len(self.buffer.slots.sample), *rehearsal.scores.shape[1:]), np.float32)
        offsets[rehearsal.slots] = self._tempered(rehearsal.scores)
        return offsets

    def _tempered(self, scores: NDArray) -> NDArray[np.float64]:
        return np.maximum(scores, calibration.LOWEST_SCORE) / self.calibration.temperature

    def _fit_familiarity(self, scores: NDArray, norms: NDArray) -> None:
        scores = np.maximum(scores, calibration.LOWEST_SCORE)
        log_probabilities = calibration.log_softmax(scores / self.calibration.temperature)
        distances = norms - 2.0 * scores.max(axis=1)
        self.familiarity = calibration.fit_familiarity(distances, log_probabilities.max(axis=1))

    def _audit(self, rehearsal: Rehearsal) -> tuple[int, int]:
        """Set suspects aside - out of the statistics and of training - and take cleared ones back."""
        slots = self.buffer.slots
        suspected = slots.suspect[rehearsal.slots]
        logits = self._tempered(rehearsal.scores)
        opinion = self._opinion(
            logits, rehearsal.numbers, suspected, lambda chosen: self._outputs(rehearsal.slots[chosen])
        )
        self.docket.take(rehearsal.slots, opinion)
        verdict = opinion.suspect & ~slots.confirmed[rehearsal.slots]
        verdict = audit.bounded(verdict, opinion.doubt, rehearsal.numbers)
        for at in np.flatnonzero(verdict != suspected):
            rows = embed(self.buffer.features[rehearsal.slots[at]], self.space.zero_point)
            self._move(rows, int(rehearsal.numbers[at]), bool(verdict[at]))
        slots.suspect[rehearsal.slots] = verdict
        return int((verdict & ~suspected).sum()), int((suspected & ~verdict).sum())

    def _opinion(
        self,
        logits: NDArray,
        numbers: NDArray,
        suspected: NDArray,
        outputs: Callable[[NDArray], NDArray],
    ) -> audit.Opinion:
        """Return what is thought of labels (n,).

        Args:
            logits: (n, V, C) of the base, that has not seen the samples.
            numbers: (n,) classes as taught.
            suspected: (n,) who is a suspect already.
            outputs: of the residual for some of the n, (m, V, C); only the doubtful are asked for.
        """
        log_probabilities = calibration.log_softmax(logits)
        own = np.exp(log_probabilities)[np.arange(len(numbers)), :, numbers].mean(axis=1)
        doubts = calibration.wrong_label(self.calibration, own, len(self.labels))
        learned, doubtful = np.ones(len(numbers), bool), np.flatnonzero(doubts > audit.ACCUSED)
        if len(doubtful):
            together = (logits[doubtful] + outputs(doubtful)).mean(axis=1)
            learned[doubtful] = together.argmax(axis=1) == numbers[doubtful]
        taught = self.base.counts[numbers] // SAMPLE_WEIGHT
        verdict = audit.judge(suspected, doubts, learned, taught)
        return audit.Opinion(verdict, log_probabilities.mean(axis=1).argmax(axis=1), doubts)

    def _outputs(self, slots: NDArray) -> NDArray[np.float32]:
        """Return what the residual says of remembered samples (n, V, C)."""
        blocks = np.array_split(self.buffer.features[slots], -(-len(slots) // BLOCK_SAMPLES))
        return np.concatenate(
            [self.training.outputs(embed(block, self.space.zero_point)) for block in blocks]
        )

    def _move(self, rows: NDArray, number: int, is_suspect: bool) -> None:
        (self.base.revert if is_suspect else self.base.update)(rows, number)

    def _judge(self, filled: NDArray, offsets: NDArray) -> float:
        """Return the residual's weight, by the samples that it never trains on."""
        judges = filled[
            gate.is_held_back(self.buffer.slots.sample[filled]) & ~self.buffer.slots.suspect[filled]
        ]
        if not len(judges):
            return 0.0
        return gate.opening(offsets[judges], self._outputs(judges), self.buffer.slots.number[judges])

    # correcting

    def relabel(self, sample: int, label: str) -> Relabelled:
        """Correct a taught label; the same one again confirms it, and the audit leaves the sample alone."""
        self.docket.clear(sample)
        slot = self.buffer.find(sample)
        if slot is None:
            return Relabelled(False, None)
        slots = self.buffer.slots
        was = int(slots.number[slot])
        found = self._number(label)
        number = self.add_class(label) if found is None else found
        rows = embed(self.buffer.features[slot], self.space.zero_point)
        if not slots.suspect[slot]:
            self.base.revert(rows, was)
        self.base.update(rows, number)
        slots.number[slot] = number
        slots.suspect[slot], slots.confirmed[slot] = False, True
        slots.fresh[slot] |= number != was
        name = self.labels[was]
        self.drop_if_empty(was)
        return Relabelled(True, name)

    def forget_sample(self, sample: int) -> Forgotten:
        """Take one sample out of everything.

        A sample that has left the memory cannot be taken out of the sums any more; `approximate` then says 1.
        """
        aside = self.docket.clear(sample)
        slot = self.buffer.find(sample)
        if slot is None:  # a suspect that has left is in no sum any more
            for number in aside:
                self.drop_if_empty(int(number))
            return Forgotten(1, 0, ()) if len(aside) else Forgotten(0, 1, ())
        number = int(self.buffer.slots.number[slot])
        self._take_out(slot)
        self.drop_if_empty(number)
        self.training.restart()
        self.gate = 0.0
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
        samples = tuple(int(s) for s in slots.sample[members] if s > EMPTY)
        for slot in members:
            self._take_out(int(slot))
        rest = int(self.base.counts[number]) // SAMPLE_WEIGHT
        self._drop_class(number)
        self.training.restart()
        self.gate = 0.0
        return Forgotten(len(samples), rest, samples)

    def rename_label(self, label: str, into: str) -> None:
        """Call a class by another name; where another class has that name, the two become one.

        The statistics stay exact. The residual answers again after the next consolidation has judged it.

        Raises:
            ValueError: the class was never taught.
        """
        source, target = self._number(label), self._number(into)
        if source is None:
            raise ValueError(f"no class {label!r}")
        if target is None or target == source:
            self.labels = (*self.labels[:source], into, *self.labels[source + 1 :])
        else:
            self._join_classes(source, target)

    def _join_classes(self, source: int, target: int) -> None:
        self.base.join_classes(source, target)
        self.inherited = self.inherited and self.inherited.joined(source, target)
        self.training.drop_class(source)
        self.progress = self.progress.joined(source, target)
        self.docket.join_classes(source, target)
        self.buffer.join_classes(source, target)
        self.labels = self.labels[:source] + self.labels[source + 1 :]
        self.gate = 0.0

    def drop_if_empty(self, number: int) -> None:
        """Take a class off the list that nothing speaks of any more: a slip of the pen, corrected."""
        slots = self.buffer.slots
        is_kept = ((slots.sample != EMPTY) & (slots.number == number)).any()
        if not (self.base.counts[number] or is_kept or self.docket.mentions(number)):
            self._drop_class(number)

    def _drop_class(self, number: int) -> None:
        """Drop a class without samples in memory; later ones move down by one."""
        self.base.forget_class(number)
        self.inherited = self.inherited and self.inherited.without_class(number)
        self.buffer.drop_class(number)
        self.training.drop_class(number)
        self.progress = self.progress.without_class(number)
        self.docket.drop_class(number, self.buffer.slots)
        self.labels = self.labels[:number] + self.labels[number + 1 :]

    def _take_out(self, slot: int) -> None:
        rows = embed(self.buffer.features[slot], self.space.zero_point)
        # An exemplar was taught elsewhere: it goes from the sums with its class, or not at all.
        if not self.buffer.slots.suspect[slot] and not is_exemplar(self.buffer.slots.sample[slot]):
            self.base.revert(rows, int(self.buffer.slots.number[slot]))
        self.buffer.remove(slot)

    # explaining

    def suspects(self) -> list[Suspect]:
        """Return the samples whose labels look wrong, the most doubtful first."""
        return self.docket.suspects(self.buffer.slots, self.labels)

    def report(self) -> Report:
        """Return what the learner knows of itself: accuracy per class, confusions, whether data suffices."""
        filled = self.buffer.filled
        slots = self.buffer.slots
        heard = filled[~slots.suspect[filled]]
        answers = np.zeros(0, np.intp)
        if len(heard):
            answers = self._rehearse(heard, self.base).scores[:, 0].argmax(axis=1)
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

    def own_statistics(self) -> Statistics:
        """Return the statistics of all that was ever taught here, of `labels`: the base's less the inherited.

        Exact, and the same whatever release the learner runs under, and whatever of it that release had been
        told: so the whole of it is what a host is told, less what it was told already.
        """
        if self.inherited is None:
            found = self.base.statistics
            return found._replace(
                counts=found.counts.copy(), sums=found.sums.copy(), moment=found.moment.copy()
            )
        return less(self.base.statistics, statistics(self.inherited))

    # state as data

    def settle(self) -> None:
        """Solve what is derived anew from what is stored: a restored learner then is equal bit for bit."""
        self.base.settle()

    def flatten(self) -> dict[str, NDArray]:
        """Return the whole state but the buffered features, as arrays; `settle` is called first."""
        self.settle()
        counters = [self.next_sample, self.taught_count, self.training.round_steps]
        counters += [self.base.statistics.residue, self.base.refreshed_weight]
        return {
            "labels": snapshot.of_names(self.labels),
            "counters": np.array(counters, np.int64),
            "calibration.numbers": np.array([*self.calibration, self.gate]),
            **snapshot.of_base(self.base),
            **snapshot.of_buffer(self.buffer),
            **snapshot.of_training(self.training),
            **snapshot.of_columns("familiarity", self.familiarity),
            **snapshot.of_columns("progress", self.progress),
            **snapshot.of_docket(self.docket),
            **(snapshot.of_columns("inherited", self.inherited) if self.inherited else {}),
        }

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
        learner.labels = snapshot.names(tensors)
        counters = [int(v) for v in tensors["counters"]]
        learner.next_sample, learner.taught_count, learner.training.round_steps = counters[:3]
        snapshot.restore_base(learner.base, tensors, *counters[3:])
        snapshot.restore_training(learner.training, tensors)
        snapshot.restore_docket(learner.docket, tensors)
        snapshot.restore_buffer(learner.buffer, tensors, features)
        *fitted, learner.gate = (float(v) for v in tensors["calibration.numbers"])
        learner.calibration = calibration.Calibration(*fitted)
        learner.familiarity = snapshot.columns(calibration.Familiarity, "familiarity", tensors)
        learner.progress = snapshot.columns(Progress, "progress", tensors)
        if "inherited.counts" in tensors:
            learner.inherited = snapshot.columns(Inherited, "inherited", tensors)
        return learner
