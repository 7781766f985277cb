"""Leads a learner through its tasks, epoch by epoch, and keeps what is told of them; stops between two steps.

Whoever calls hands in time, a way to save, and a question whether to stop. A course that goes on from a saved
state is the uninterrupted one, bit for bit, but for its seconds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_cl.evaluation.metrics import Reliability, calibration_error, reliability
from edge_cl.learning.calibration import log_softmax
from host_trainer.datasets.batches import ahead
from host_trainer.sparcl.accounting import Work
from host_trainer.sparcl.learner import Learner, Lesson, Step
from host_trainer.sparcl.losses import ABSENT
from host_trainer.sparcl.schedule import stage_of

Clock = Callable[[], float]  # seconds


class Place(NamedTuple):
    """Where a course stands: before this step."""

    task: int = 0
    epoch: int = 0
    step: int = 0


class Sums(NamedTuple):
    """What an epoch has gathered so far; seconds by phase."""

    steps: int = 0
    loss: float = 0.0
    right: int = 0
    seen: int = 0
    replayed: int = 0
    taught: int = 0
    assessed: int = 0
    training_s: float = 0.0
    importance_s: float = 0.0

    def plus(self, step: Step, seconds: float) -> "Sums":
        """Return the sums after one more step."""
        return self._replace(
            steps=self.steps + 1,
            loss=self.loss + step.loss,
            right=self.right + step.right,
            seen=self.seen + step.seen,
            replayed=self.replayed + step.replayed,
            taught=self.taught + step.taught,
            training_s=self.training_s + seconds,
        )


START, NOTHING = Place(), Sums()


class Epoch(NamedTuple):
    """A finished epoch: where, what it gathered, pictures there were and are still shown, and its work."""

    task: int
    epoch: int
    sums: Sums
    offered: int
    kept: int
    work: Work


class Answers(NamedTuple):
    """What the network says to all test pictures after a task.

    Attributes:
        class_il: (T,) accuracy on each task's pictures among all classes seen so far; NaN where not taught.
        task_il: (T,) accuracy among the classes of that task.
        sure: answers by confidence among the classes seen, over the tasks taught; None before the first.
        calibration: their expected calibration error.
        seconds: it took.
    """

    class_il: NDArray[np.float64]
    task_il: NDArray[np.float64]
    sure: Reliability | None
    calibration: float
    seconds: float


class Watch(Protocol):
    """Hears how a course goes, and keeps it."""

    def stepped(self, place: Place, length: int, sums: Sums) -> bool:
        """Hear of a step; return whether to stop now. Saves, where it is time to."""
        ...

    def ended_epoch(self, epoch: Epoch, place: Place) -> bool:
        """Hear of an epoch's end; `place` is what comes next. Return whether to stop now."""
        ...

    def ended_task(self, task: int, answers: Answers) -> None:
        """Hear what the network answers after a task; comes before the end of the task's last epoch."""
        ...


class Course(NamedTuple):
    """What is taught in which order, and what is asked after each task.

    Attributes:
        learner: who learns.
        lessons: the tasks.
        exams: (images, labels, classes) for each task whose pictures are asked about.
        clock: seconds.
        joint: all tasks are one lesson; its exams are those of all tasks.
        before: tasks that the learner was taught earlier: its own count goes on from there.
    """

    learner: Learner
    lessons: Sequence[Callable[[], Lesson]]
    exams: Sequence[Callable[[], Lesson]]
    clock: Clock
    joint: bool = False
    before: int = 0

    def run(self, watch: Watch, place: Place = START, sums: Sums = NOTHING) -> bool:
        """Go on from a place to the end; False when it was told to stop before."""
        epochs = self.learner.plan.epochs
        for task in range(place.task, len(self.lessons)):
            lesson = self.lessons[task]()
            first = place if task == place.task else Place(task)
            for epoch in range(first.epoch, epochs):
                begun = first if epoch == first.epoch else Place(task, epoch)
                if not self._epoch(lesson, begun, sums if begun.step else Sums(), watch):
                    return False
        return True

    def answers(self, task: int) -> Answers:
        """Return what the network says to the test pictures of all tasks; `task` was taught last."""
        start, learner = self.clock(), self.learner
        seen = learner.seen
        class_il, task_il, said, truth = [], [], [], []
        for number, open_exam in enumerate(self.exams):
            exam = open_exam()
            logits, taught = learner.answer(exam.images), task >= 0 and (self.joint or number <= task)
            among_all, among_own = _only(logits, np.flatnonzero(seen)), _only(logits, exam.classes)
            class_il.append(_accuracy(among_all, exam.labels) if taught else np.nan)
            task_il.append(_accuracy(among_own, exam.labels))
            if taught:
                said.append(np.exp(log_softmax(among_all)))
                truth.append(exam.labels)
        both = (np.concatenate(said), np.concatenate(truth)) if said else None
        return Answers(
            np.array(class_il),
            np.array(task_il),
            reliability(*both) if both else None,
            calibration_error(*both) if both else np.nan,
            self.clock() - start,
        )

    def _epoch(self, lesson: Lesson, place: Place, sums: Sums, watch: Watch) -> bool:
        learner, task, epoch = self.learner, self.before + place.task, place.epoch
        if place.step == 0:
            sums = self._begin(lesson, task, epoch)
        length, epochs = learner.length(), learner.plan.epochs
        ends_stage = epoch + 1 == epochs or stage_of(epoch + 1, epochs) is not None

        def stream(step: int) -> dict[str, NDArray]:
            return learner.batch_of(lesson, task, epoch, step)

        at, before = place.step, self.clock()
        for batch in ahead(stream, place.step, length):
            told = learner.step(lesson, dict(batch), task, at, ends_stage and at + 1 == length)
            now = self.clock()
            at, sums, before = at + 1, sums.plus(told, now - before), now
            if watch.stepped(Place(place.task, epoch, at), length, sums) and at < length:
                return False
        return self._end(lesson, Place(place.task, epoch), sums, watch)

    def _begin(self, lesson: Lesson, task: int, epoch: int) -> Sums:
        start = self.clock()
        if epoch == 0:
            self.learner.begin_task(lesson)
        assessed = self.learner.begin_epoch(lesson, task, epoch)
        return Sums(assessed=assessed, importance_s=self.clock() - start)

    def _end(self, lesson: Lesson, place: Place, sums: Sums, watch: Watch) -> bool:
        learner, last = self.learner, place.epoch + 1 == self.learner.plan.epochs
        masking, rules = learner.masking, learner.plan.sparsity
        work = Work(
            samples=sums.seen,
            replayed=sums.replayed,
            forward_only=sums.taught,
            assessed=sums.assessed,
            draws=learner.plan.method.draws,
            live=masking.densities() if masking else {},
            moving=masking.movements() if masking and rules and rules.gradients else None,
        )
        kept = int(learner.attendance.kept.sum())
        if last:
            watch.ended_task(place.task, self.answers(place.task))
        then = Place(place.task + 1) if last else Place(place.task, place.epoch + 1)
        epoch = Epoch(place.task, place.epoch, sums, len(lesson.labels), kept, work)
        return not watch.ended_epoch(epoch, then) or (last and place.task + 1 == len(self.lessons))


def _only(logits: NDArray[np.float32], classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return logits in which the other classes cannot win."""
    masked = np.full_like(logits, ABSENT)
    masked[:, classes] = logits[:, classes]
    return masked


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> float:
    return float((logits.argmax(-1) == labels).mean()) if len(labels) else float("nan")
