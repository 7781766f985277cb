"""Makes what is learned and who learns it: data, tasks, network, learner; new or from a finished training."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.increment import places, union
from host_trainer.backbones.networks import backbone_of, with_head
from host_trainer.backbones.weights import RANDOM
from host_trainer.checkpoints import weights_of
from host_trainer.datasets.domains import Transform
from host_trainer.datasets.examples import DataSet, Examples
from host_trainer.network import Network
from host_trainer.sparcl.accounting import forward_macs
from host_trainer.sparcl.continuation import widened_state, widened_weights
from host_trainer.sparcl.course import Clock, Course
from host_trainer.sparcl.learner import Learner, Lesson, open_learner
from host_trainer.sparcl.methods import method_of
from host_trainer.sparcl.options import USUAL_NETWORK, Options, new_plan, next_plan
from host_trainer.sparcl.plan import Plan, plan_facts, usual_epochs
from host_trainer.sparcl.record import Metrics, Record, Totals
from host_trainer.sparcl.record import Task as TaskRecord
from host_trainer.sparcl.recorder import Recorder
from host_trainer.sparcl.saved import open_finished
from host_trainer.sparcl.tasks import LEAST_CLASSES, Task, check_batch, plan_tasks, transform_of
from host_trainer.sparcl.weights import sparse_kernels
from host_trainer.training.session import open_network
from host_trainer.training.workers import Workers

USUAL_TASKS = 5

OpenData = Callable[[tuple[int, int], int], DataSet]  # (size, least classes)


class Whole(NamedTuple):
    """The whole network around a learner's own; not its weights, which in edge mode nobody needs.

    Attributes:
        name: what a person calls it.
        classes: names of its logits.
        graph: Keras' own configuration, as plain JSON values.
        macs: multiply-adds of one picture's forward pass, by kernel path.
        sizes: how many weights the kernels under masks have, by path.
    """

    name: str
    classes: tuple[str, ...]
    graph: dict[str, Any]
    macs: dict[str, int]
    sizes: dict[str, int]


class Subject(NamedTuple):
    """What is learned, and by whom.

    Attributes:
        data: decoded pictures.
        protocol: how they were shared out.
        tasks: in the order taught.
        learner: who learns.
        whole: the network around the learner's own.
        plan: how.
        before: tasks that the learner was taught in earlier trainings.
    """

    data: DataSet
    protocol: str
    tasks: tuple[Task, ...]
    learner: Learner
    whole: Whole
    plan: Plan
    before: int = 0


def new_subject(options: Options, open_data: OpenData, workers: Workers | None = None) -> Subject:
    """Draw a network and share out the data.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done.
    """
    plan = new_plan(options)
    backbone = open_network(options.network or USUAL_NETWORK, options.weights or RANDOM, plan.seed)
    data = open_data(backbone.input_size, LEAST_CLASSES)
    count = options.tasks or min(USUAL_TASKS, len(data.classes) // LEAST_CLASSES)
    tasks = plan_tasks(data, options.protocol, count, plan.seed)
    check_batch(tasks, plan.batch)
    if options.epochs is None:
        pictures = float(np.mean([len(task.train) for task in tasks]))
        plan = replace(plan, epochs=usual_epochs(pictures, plan.batch))
    model = with_head(backbone.model, len(data.classes), plan.seed)
    wide = backbone._replace(model=model, classes=data.classes)
    whole = whole_of(wide)
    return Subject(data, options.protocol, tasks, open_learner(wide, plan, workers), whole, plan)


def next_subject(
    options: Options, origin: Path, open_data: OpenData, workers: Workers | None = None
) -> Subject:
    """Take up a finished training: network, masks, buffer and averages, wide enough for new classes.

    One new class may come alone.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done.
    """
    finished = open_finished(origin)
    plan = next_plan(options, finished.plan)
    before = finished.network
    found = open_data(before.input_size, 1)
    data = _renumbered(found, union(before.classes, found.classes))
    tasks = plan_tasks(data, options.protocol, options.tasks or 1, plan.seed, least=1, before=finished.taught)
    check_batch(tasks, plan.batch)
    count = len(data.classes)
    wide = before._replace(model=with_head(backbone_of(finished.wide), count), classes=data.classes)
    learner = open_learner(wide, plan, workers)
    weights = widened_weights(weights_of(before.model), count)
    learner.restore(weights, widened_state(finished.state, count), finished.steps)
    return Subject(data, options.protocol, tasks, learner, whole_of(wide), plan, finished.taught)


def whole_of(network: Network) -> Whole:
    """Return what is told of a whole network."""
    model = network.model
    sizes = {path: int(np.prod(kernel.shape)) for path, kernel in sparse_kernels(model).items()}
    return Whole(network.name, network.classes, json.loads(model.to_json()), forward_macs(model), sizes)


def course_of(subject: Subject, clock: Clock) -> Course:
    """Return the course over the tasks of a subject."""
    data, joint = subject.data, subject.plan.method.joint
    lessons: list[Callable[[], Lesson]] = []
    exams: list[Callable[[], Lesson]] = []
    for number, task in enumerate(subject.tasks, start=subject.before):
        change = transform_of(data.name, subject.protocol, number, subject.plan.seed)
        lessons.append(partial(_lesson, data.train, task.train, task.classes, change))
        exams.append(partial(_lesson, data.test, task.test, task.classes, change))
    taught = [partial(_together, lessons)] if joint else lessons
    return Course(subject.learner, taught, exams, clock, joint, subject.before)


def recorder_of(subject: Subject, command: str) -> Recorder:
    """Return the record of a subject before anything happened; `command` is what repeats it."""
    plan, whole = subject.plan, subject.whole
    rules = plan.sparsity
    unknown = ((None,) * len(subject.tasks),) * len(subject.tasks)
    described = Record(
        command=command,
        method=plan.method.name,
        mode=rules.mode if rules else None,
        protocol=subject.protocol,
        sparsity=rules.sparsity if rules else None,
        buffer=plan.buffer if plan.method.draws else 0,
        seed=plan.seed,
        network=whole.name,
        dataset=Path(subject.data.name).name,
        classes=whole.classes,
        tasks=tuple(_told(task, whole.classes) for task in subject.tasks),
        class_il=unknown,
        task_il=unknown,
        metrics=Metrics(*(None,) * 6),
        totals=Totals({}, 0, 0, 0, 0, 0, 0, 0),
        settings=_settings(plan),
    )
    return Recorder(described, whole.macs, whole.sizes, method_of(plan.method.name).draws)


def _lesson(
    examples: Examples, chosen: NDArray[np.intp], classes: NDArray[np.intp], change: Transform
) -> Lesson:
    return Lesson(change(examples.values[chosen]), examples.labels[chosen], classes)


def _together(lessons: Sequence[Callable[[], Lesson]]) -> Lesson:
    """Return all tasks as one lesson: joint training."""
    images, labels, classes = zip(*(lesson() for lesson in lessons), strict=True)
    return Lesson(np.concatenate(images), np.concatenate(labels), np.unique(np.concatenate(classes)))


def _told(task: Task, classes: Sequence[str]) -> TaskRecord:
    names = tuple(classes[number] for number in task.classes)
    return TaskRecord(task.name, names, len(task.train), len(task.test))


def _settings(plan: Plan) -> dict[str, str]:
    """Return what else the run was given, in words."""
    facts = plan_facts(plan)
    rules = facts.pop("sparsity") or {}
    return {name.replace("_", " "): str(value) for name, value in {**facts, **rules}.items()}


def _renumbered(data: DataSet, classes: tuple[str, ...]) -> DataSet:
    """Return the data with labels that count in `classes`."""
    numbers = places(data.classes, classes).astype(np.int32)
    train, test = (part._replace(labels=numbers[part.labels]) for part in (data.train, data.test))
    return data._replace(classes=classes, train=train, test=test)
