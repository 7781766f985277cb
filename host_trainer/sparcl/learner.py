"""Trains one network on one task after another, step by step; everything random comes from (seed, step).

The learner holds what changes: weights, masks, averages, reservoir, attendance. It knows no files, no clock
and no end: `session` asks for one step after the other, and saves between any two of them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, MismatchError
from host_trainer.checkpoints import below, set_weights, under, weights_of
from host_trainer.datasets.augmentation import Augmentation
from host_trainer.network import Network, to_input
from host_trainer.sparcl.attendance import Attendance, dismissed, everybody, noted
from host_trainer.sparcl.importance import Assessor, Importance, Snapshot
from host_trainer.sparcl.losses import ABSENT, LOGITS, WHOLE, objective
from host_trainer.sparcl.masks import Masking, open_masking
from host_trainer.sparcl.methods import Scope
from host_trainer.sparcl.plan import Plan
from host_trainer.sparcl.reservoir import Memories, Reservoir, draw, empty, offer
from host_trainer.sparcl.schedule import OFFICIAL, Sparsity, move_at, stage_of
from host_trainer.sparcl.shares import shares_of
from host_trainer.training.gradients import FOLLOW, open_forward, open_stepper
from host_trainer.training.workers import Workers

# What the last number of a random generator's seed stands for.
ORDER, KEPT, DRAWN, CHANCE, MASKS, DISMISSED, ASSESSED = range(7)
STREAM, FIRST_DRAW, SECOND_DRAW = range(3)  # whose augmentation
NORM_MOMENTUM = 0.9  # of running statistics, as in every publication compared with; a task has few steps
SAVED = "the saved training"  # what a refusal calls it
ASKED_AT_ONCE = 250  # pictures an evaluation shows the network at a time; test sets are multiples of it


class Lesson(NamedTuple):
    """The pictures of one task: images (N, H, W, 3) uint8, labels (N,) int32, and what it teaches (T,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: NDArray[np.intp]


class Step(NamedTuple):
    """What one step did: its loss, right answers, and pictures seen, replayed, and asked of averages."""

    loss: float
    right: int
    seen: int
    replayed: int
    taught: int


class Learner:
    """A network in training.

    Args:
        network: a classifier of all classes; its model is changed in place.
        masking: of its weights, already in force on model and followers; None for a dense network.
        followers: models of the same graph, as saved, which become averages of the weights.
        plan: what is trained, and how.
        workers: the processes that share each batch; the learners of all of them do the same.
    """

    def __init__(
        self,
        network: Network,
        masking: Masking | None,
        followers: list[Any],
        plan: Plan,
        workers: Workers | None = None,
    ) -> None:
        import keras

        self.network, self.masking, self.followers, self.plan = network, masking, followers, plan
        model = network.model
        clip = {"global_clipnorm": plan.clip} if plan.clip else {}
        self.optimizer = keras.optimizers.SGD(plan.method.rate, momentum=plan.momentum, **clip)
        guarded = masking.guarded if masking else ()
        self._loss = objective(plan.method)
        self.stepper = open_stepper(
            model,
            self.optimizer,
            self._loss,
            guarded=guarded,
            followers=followers,
            workers=workers,
            whole=WHOLE,
        )
        classes, places = int(model.output.shape[-1]), plan.buffer if plan.method.draws else 1
        self.reservoir: Reservoir = empty(places, network.input_size, classes)
        self.attendance: Attendance = everybody(0)
        self.steps = 0  # over all tasks
        self.taught = np.zeros(classes, np.int64)  # pictures of each class in finished and running tasks
        self._left: Importance | None = None  # the gradient the last epoch left behind, in official mode
        self._changes = [
            Augmentation(plan.augment, network.input_size, plan.seed * 3 + who)
            for who in (STREAM, FIRST_DRAW, SECOND_DRAW)
        ]
        self._answers = open_forward(followers[0] if followers else model)
        self._assessor = self._snapshot = None
        if masking is not None and plan.sparsity is not None:
            if plan.sparsity.mode == OFFICIAL:
                self._snapshot = Snapshot(model, self._loss, workers)
            else:
                self._assessor = Assessor(model, workers)
            self.stepper.guard(masking.guards())

    def begin_task(self, lesson: Lesson) -> None:
        """Take up a task."""
        self.attendance = everybody(len(lesson.labels))
        self.taught += np.bincount(lesson.labels, minlength=len(self.taught))

    def begin_epoch(self, lesson: Lesson, task: int, epoch: int) -> int:
        """Remove data and move masks where a stage begins; return how many pictures were assessed for it."""
        rules, stage = self.plan.sparsity, stage_of(epoch, self.plan.epochs)
        if rules is None or stage is None:
            return 0
        if rules.removal and stage > 0:
            rng = self._rng(DISMISSED)
            self.attendance = dismissed(
                self.attendance, rules.removed, rules.cutoff, stage, self.plan.by_events, rng
            )
        return self._adjust(lesson, rules, task, epoch) if self.masking is not None else 0

    def length(self) -> int:
        """Return the steps of an epoch over the pictures that are still shown."""
        return -(-int(self.attendance.kept.sum()) // self.plan.batch)

    def batch_of(self, lesson: Lesson, task: int, epoch: int, step: int) -> dict[str, NDArray[Any]]:
        """Return the stream's part of a batch, by (task, epoch, step) alone; the last one is filled up."""
        kept = np.flatnonzero(self.attendance.kept)
        order = kept[np.random.default_rng((self.plan.seed, task, epoch, ORDER)).permutation(len(kept))]
        chosen = order[(step * self.plan.batch + np.arange(self.plan.batch)) % len(order)]
        number = (task * self.plan.epochs + epoch) * len(lesson.labels) + step
        labels = lesson.labels[chosen]
        return {
            "chosen": chosen,
            "images": self._changed(STREAM, lesson.images[chosen], number),
            "labels": labels,
            "known": self._known(lesson, labels, task),
        }

    def step(self, lesson: Lesson, stream: dict[str, NDArray[Any]], task: int, at: int, last: bool) -> Step:
        """Change the weights once.

        Args:
            lesson: the task.
            stream: its batch, from `batch_of`.
            task: its number.
            at: the step's number within the epoch.
            last: whether a stage ends with it.

        Raises:
            ConfigError: the loss or the weights are no longer numbers.
        """
        chosen = stream["chosen"]
        batch = {name: values for name, values in stream.items() if name != "chosen"}
        batch |= self._memory(task)
        if self.plan.method.adjustment and self._lacks_classes(lesson):
            kept = self.reservoir.labels[: self.reservoir.filled]
            batch["known"] = shares_of(lesson.labels, kept, self.taught, self.plan.method)
            batch["memory_known"] = batch["known"]
        batch[FOLLOW] = self._follow(lesson)
        self._look_back(batch, at, last)
        told = self.stepper.step(batch)
        self._check(told)
        logits = told[LOGITS]
        right = _right(logits, stream["labels"], stream["known"], self.plan.by_events)
        self.attendance = noted(self.attendance, chosen, right)
        if self.plan.method.draws:
            new = Memories(lesson.images[chosen], stream["labels"], logits)
            self.reservoir = offer(self.reservoir, new, self._rng(KEPT))
        self.steps += 1
        replayed = sum(
            len(values) for name, values in batch.items() if name in ("memory_labels", "later_labels")
        )
        taught = len(batch.get("memory_labels", ())) * len(self.followers)
        return Step(told["loss"], int(right.sum()), len(chosen), replayed, taught)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which classes (C,) a finished or running task taught."""
        return self.taught > 0

    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (N, C) of what answers questions: the first average, else the network itself."""
        self.stepper.settle()
        parts = [np.zeros((0, len(self.taught)), np.float32)]
        for at in range(0, len(images), ASKED_AT_ONCE):
            part = to_input(images[at : at + ASKED_AT_ONCE], self.network.input_range)
            short = ASKED_AT_ONCE - len(part)
            filled = np.concatenate([part, np.zeros((short, *part.shape[1:]), np.float32)]) if short else part
            parts.append(self._answers(filled)[: len(part)])
        return np.concatenate(parts)

    def saved(self) -> Network:
        """Return the network that is trained, as it is saved: of Keras' own layers."""
        self.stepper.settle()
        return self.network._replace(model=self.masking.saved()) if self.masking else self.network

    def finished(self) -> Network:
        """Return the network as it is given away: what answers questions, of Keras' own layers."""
        self.stepper.settle()
        answering = self.followers[0] if self.followers else self.network.model
        return self.network._replace(model=self.masking.finished(answering) if self.masking else answering)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything but the network's own weights, as arrays."""
        self.stepper.settle()
        state: dict[str, NDArray[Any]] = {"taught": self.taught}
        state |= under("reservoir", {name: np.asarray(v) for name, v in self.reservoir._asdict().items()})
        state |= under("attendance", self.attendance._asdict())
        for number, follower in enumerate(self.followers):
            state |= under(f"average{number}", weights_of(follower))
        if self.masking is not None:
            state |= under("masks", self.masking.state())
        if self._left is not None:
            state |= under("left", self._left.stream)
        return state

    def restore(
        self, weights: Mapping[str, NDArray[Any]], state: Mapping[str, NDArray[Any]], steps: int
    ) -> None:
        """Take up the weights and the state of a saved training; the optimizer's are already in place.

        Raises:
            MismatchError: weights of another network, or a training of an earlier version.
        """
        if "taught" not in state:
            raise MismatchError(
                f"{SAVED} is of an earlier version, which did not count the pictures of each class: begin"
                " anew in another --out"
            )
        if self.masking is not None:
            self.masking.take(weights)
        else:
            set_weights(self.network.model, weights, SAVED)
        self.steps, self.taught = steps, state["taught"].astype(np.int64)
        kept = below("reservoir", state)
        self.reservoir = Reservoir(kept["images"], kept["labels"], kept["logits"], int(kept["seen"]))
        told = below("attendance", state)
        flags = {name: v if v.dtype == np.int32 else v.astype(bool) for name, v in told.items()}
        self.attendance = Attendance(**flags)
        for number, follower in enumerate(self.followers):
            set_weights(follower, below(f"average{number}", state), "the saved average")
        if self.masking is not None:
            self.masking.restore(below("masks", state))
            self.stepper.guard(self.masking.guards())
        left = below("left", state)
        self._left = Importance(left, None) if left else None
        self.stepper.resume()

    def _adjust(self, lesson: Lesson, rules: Sparsity, task: int, epoch: int) -> int:
        assert self.masking is not None
        self.stepper.settle()
        self.masking.release()
        found, shown = self._found(lesson, rules, task, epoch)
        move = move_at(rules, task, epoch, self.plan.epochs)
        if rules.masks and move is not None:
            self._calm(self.masking.move(move, found, (self.plan.seed, self.steps, MASKS)))
        if rules.gradients and found is not None and self._snapshot is None:
            self.masking.choose(found)
        self._guard(self.masking)
        self.stepper.resume()
        return shown

    def _guard(self, masking: Masking) -> dict[str, NDArray[Any]]:
        """Let nothing move but what the masks let, the momentum included; return the masks."""
        guards = masking.guards()
        self._calm(guards)
        self.stepper.guard(guards)
        return guards

    def _calm(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Take the momentum from weights that died, that are new, or that may not move."""
        moments = getattr(self.optimizer, "momentums", None) or []
        for variable, moment in zip(self.network.model.trainable_variables, moments, strict=bool(moments)):
            if variable.path in masks:
                moment.assign(np.asarray(moment.value) * masks[variable.path])

    def _found(self, lesson: Lesson, rules: Sparsity, task: int, epoch: int) -> tuple[Importance | None, int]:
        """Return the importance of weights before an epoch, and how many pictures it took."""
        if self._snapshot is not None:
            return self._left, 0
        if self._assessor is None:
            return None, 0

        def stream(step: int) -> dict[str, NDArray[Any]]:
            batch = self.batch_of(lesson, task, epoch, step)
            return {name: batch[name] for name in ("images", "labels", "known")}

        def memory(step: int) -> dict[str, NDArray[Any]]:
            drawn = draw(self.reservoir, self.plan.replay, self._rng(ASSESSED, step))
            images = self._changed(FIRST_DRAW, drawn.images, self.steps + step)
            return {"images": images, "labels": drawn.labels, "known": np.ones(len(self.taught), np.float32)}

        batches = min(rules.batches, self.length())
        remembered = self.reservoir.filled > 0
        shown = batches * (self.plan.batch + (self.plan.replay if remembered else 0))
        return self._assessor.assess(stream, memory if remembered else None, batches), shown

    def _look_back(self, batch: Mapping[str, NDArray[Any]], at: int, last: bool) -> None:
        """Take this batch's gradient where the authors' code does: for the gradient mask and the next CWI."""
        rules, masking = self.plan.sparsity, self.masking
        if self._snapshot is None or rules is None or masking is None:
            return
        refresh = rules.gradients and at % rules.refresh == 0
        if not refresh and not last:
            return
        self.stepper.settle()
        given = {name: values for name, values in batch.items() if name != FOLLOW}
        if refresh:
            masking.choose(self._snapshot.take(given, {}))
            self._guard(masking)
        if last:
            self._left = self._snapshot.take(given, masking.guards())
        self.stepper.resume()

    def _memory(self, task: int) -> dict[str, NDArray[Any]]:
        method = self.plan.method
        if not method.draws or not self.reservoir.filled or (task == 0 and not method.first_task):
            return {}
        drawn = [draw(self.reservoir, self.plan.replay, self._rng(DRAWN, n)) for n in range(method.draws)]
        images = [self._changed(FIRST_DRAW + n, one.images, self.steps) for n, one in enumerate(drawn)]
        batch = {
            "memory_images": images[0],
            "memory_labels": drawn[0].labels,
            "memory_known": np.ones(len(self.taught), np.float32),
            "memory_logits": drawn[0].logits,
        }
        if len(drawn) > 1:
            batch |= {"later_images": images[1], "later_labels": drawn[1].labels}
        return batch

    def _follow(self, lesson: Lesson) -> NDArray[np.float32]:
        """Return how far each average goes towards the weights after this step (CLS-ER eq. 2, stochastic)."""
        averages = self.plan.method.averages
        if averages is None:
            return np.zeros(0, np.float32)
        steps = self.plan.epochs * len(lesson.labels) / self.plan.batch
        shares = []
        luck = self._rng(CHANCE).random(len(averages.spans))
        for span, chance, drawn in zip(averages.spans, averages.chances, luck, strict=True):
            share = max(1 / (span * steps * chance), 1 / (self.steps + 1)) if drawn < chance else 0.0
            shares.append(min(1.0, share))
        return np.asarray(shares, np.float32)

    def _lacks_classes(self, lesson: Lesson) -> bool:
        """Tell whether a class was taught that this task does not show; else its own loss compares all."""
        return bool(np.delete(self.seen, lesson.classes).any())

    def _known(self, lesson: Lesson, labels: NDArray[np.int32], task: int) -> NDArray[np.float32]:
        known = np.ones(len(self.taught), np.float32)
        scope = self.plan.method.scope
        if scope is Scope.TASK:
            # Among one class alone there is nothing to tell apart, so then all that were seen count.
            known[:] = self.seen if len(lesson.classes) == 1 else 0
            known[lesson.classes] = 1
        elif scope is Scope.PRESENT and task > 0:
            known[:] = ~self.seen
            known[labels] = 1
        return known

    def _changed(self, who: int, images: NDArray[np.uint8], number: int) -> NDArray[np.float32]:
        values, _ = self._changes[who](images, images[:, 0, 0, 0], number)
        return np.asarray(to_input(values, self.network.input_range))

    def _check(self, told: Mapping[str, Any]) -> None:
        if np.isfinite(told["loss"]):
            return
        self.stepper.settle()
        bad = [v.path for v in self.network.model.variables if not np.isfinite(np.asarray(v.value)).all()]
        where = f"first in {bad[0]}" if bad else "the weights are still numbers"
        raise ConfigError(
            f"the loss is {told['loss']} at step {self.steps + 1} ({where}): lower the learning rate (--rate)"
            " or bound the gradient (--clip 5); what was saved before is whole"
        )

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.plan.seed, self.steps, *what))


def _right(
    logits: NDArray[np.float32], labels: NDArray[np.int32], known: NDArray[np.float32], among_all: bool
) -> NDArray[np.bool_]:
    """Return which answers (B,) are right: among the classes that counted, or among all."""
    judged = logits if among_all else np.where(known > 0, logits, ABSENT)
    return np.asarray(judged.argmax(-1) == labels)


def open_learner(network: Network, plan: Plan, workers: Workers | None = None) -> Learner:
    """Return the learner of a classifier that was not trained yet, masks in force and averages beside it.

    In edge mode the learner's network is the small one inside of the given, wide one.

    Raises:
        ConfigError: masks that this network cannot have.
    """
    import keras

    for layer in network.model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = NORM_MOMENTUM
    masking = open_masking(network.model, plan)
    model = masking.model if masking else network.model
    averages = plan.method.averages
    answering = masking.saved() if masking else model
    followers = [_copy(answering) for _ in averages.spans] if averages else []
    if masking:
        masking.lead(followers)
    return Learner(network._replace(model=model), masking, followers, plan, workers)


def _copy(model: Any) -> Any:
    import keras

    copy = keras.models.clone_model(model)
    set_weights(copy, weights_of(model), "an average")
    return copy
