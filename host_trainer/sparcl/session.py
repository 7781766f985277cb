"""Runs one continual training from options to a saved network, a record and a report: the shell.

`OUT/running` is what a stopped training goes on from; at the end it becomes `OUT/continual`, from which
another training goes on with new data.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, MismatchError, ModelError
from edge_cl.learning.increment import places, union
from host_trainer.artefacts import make_folder, write_file
from host_trainer.backbones.networks import backbone_of, with_head
from host_trainer.checkpoints import (
    Training,
    check_facts,
    load_network,
    load_training,
    optimizer_state,
    restore_optimizer,
    save_network,
    weights_of,
)
from host_trainer.datasets.domains import Transform
from host_trainer.datasets.examples import DataSet, Examples
from host_trainer.datasets.named import open_dataset
from host_trainer.network import Network
from host_trainer.sparcl.accounting import forward_macs
from host_trainer.sparcl.continuation import widened_state, widened_weights
from host_trainer.sparcl.course import Answers, Clock, Course, Epoch, Place, Sums
from host_trainer.sparcl.learner import Learner, Lesson, open_learner
from host_trainer.sparcl.methods import method_of
from host_trainer.sparcl.plan import Plan, make_plan, plan_facts, plan_of
from host_trainer.sparcl.record import Metrics, Record, Totals, to_json
from host_trainer.sparcl.record import Task as TaskRecord
from host_trainer.sparcl.recorder import Recorder, packed, unpacked
from host_trainer.sparcl.report import render
from host_trainer.sparcl.schedule import EDGE, Sparsity
from host_trainer.sparcl.tasks import Task, check_batch, classes_match, plan_tasks, transform_of
from host_trainer.sparcl.weights import sparse_kernels
from host_trainer.training.session import (
    PIXELS,
    Meter,
    OpenMeter,
    Say,
    check_out,
    finish,
    open_network,
    tell_refused,
)
from host_trainer.training.trainer import RUNNING

CONTINUAL = "continual"  # folder inside --out from which a later training goes on
REPORT, RECORD = "report.html", "record.json"
USUAL_METHOD, USUAL_NETWORK, USUAL_SPARSITY = "sparcl-derpp", "resnet18:0.5", 0.9
USUAL_TASKS = 5


@dataclass(frozen=True)
class Options:
    """What a person asks of a continual training; see `host-trainer train --help`. None: the usual.

    With `origin` (--from) it goes on from a finished one, with its method, masks, buffer and averages.
    """

    data: str
    out: Path
    command: str = "host-trainer train"
    root: Path = Path()
    origin: Path | None = None
    protocol: str = "class-incremental"
    tasks: int | None = None
    network: str = USUAL_NETWORK
    weights: str = "random"
    method: str | None = None
    mode: str | None = None
    sparsity: float | None = None
    switches: Mapping[str, bool] | None = None
    buffer: int | None = None
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    clip: float | None = None
    augment: tuple[str, ...] = ("crop", "flip")
    seed: int = 0
    save_every: int = 500
    cache: Path | None = None


class World(NamedTuple):
    """What a training needs of the world: seconds, memory at its peak, a person, and whether to stop."""

    clock: Clock
    peak_bytes: Callable[[], int]
    open_meter: OpenMeter
    say: Say
    stopped: Callable[[], bool]


class Subject(NamedTuple):
    """What is learned, and by whom; `wide` is the whole network around the learner's own."""

    data: DataSet
    protocol: str
    tasks: tuple[Task, ...]
    learner: Learner
    wide: Network
    plan: Plan


def train_continually(options: Options, world: World) -> dict[str, Any]:
    """Train task after task, save everything in `options.out`, and return plain facts about it.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done.
        StoreError: the disk refuses.
        EngineError: the loss is no longer a number.
        KeyboardInterrupt: `world.stopped` said so; the state is saved, and the same call goes on.
    """
    check_out(options.out)
    subject = _continued(options, world) if options.origin else _begun(options, world)
    facts = _facts(options, subject)
    recorder = recorder_of(options, subject)
    course = course_of(subject, world.clock)
    place, sums = _resume(options.out / RUNNING, subject, recorder, facts, world.say)
    if place == Place():
        recorder.before(course.answers(-1))
    with world.open_meter(subject.plan.epochs * len(course.lessons), "images") as meter:
        watch = _Watch(options, subject, recorder, facts, meter, world)
        watch.begin(place)
        if not course.run(watch, place, sums):
            raise KeyboardInterrupt
    return _finished(options, subject, recorder, facts, world)


def _begun(options: Options, world: World) -> Subject:
    plan = _plan(options)
    backbone = open_network(options.network, options.weights, options.seed)
    data = _data(options, backbone.input_size, world)
    tasks = _tasks(options, data, plan)
    model = with_head(backbone.model, len(data.classes), options.seed)
    wide = backbone._replace(model=model, classes=data.classes)
    return Subject(data, options.protocol, tasks, open_learner(wide, plan), wide, plan)


def _continued(options: Options, world: World) -> Subject:
    """Take up a finished training: network, masks, buffer and averages, wide enough for new classes."""
    assert options.origin is not None
    before = open_finished(options.origin)
    plan = _same_plan(options, before.facts)
    data = _data(options, before.network.input_size, world)
    classes = union(before.facts["classes"], data.classes)
    data = _renumbered(data, classes)
    tasks = _tasks(options, data, plan)
    wide = Network(
        with_head(backbone_of(before.wide), len(classes), 0),
        classes,
        before.network.input_range,
        before.network.name,
    )
    learner = open_learner(wide, plan)
    weights = widened_weights(weights_of(before.network.model), len(classes))
    learner.restore(weights, widened_state(before.state, len(classes)), before.steps)
    return Subject(data, options.protocol, tasks, learner, wide, plan)


class Finished(NamedTuple):
    """What a finished training left: the network as it was trained, its wide form, state and facts."""

    network: Network
    wide: Any
    state: dict[str, NDArray[Any]]
    steps: int
    facts: dict[str, Any]


def open_finished(folder: Path) -> Finished:
    """Read what a finished continual training left.

    Raises:
        ModelError: it is none, or damaged.
    """
    import keras

    place = folder / CONTINUAL
    saved = load_training(place) if place.is_dir() else None
    if saved is None:
        raise ModelError(
            f"{folder} holds no continual training (it has no {CONTINUAL}/): give a folder that"
            " `host-trainer train --method ...` finished"
        )
    wide = keras.models.model_from_json(json.dumps(saved.facts["wide"]))
    return Finished(load_network(place), wide, saved.state, saved.step, saved.facts)


def _same_plan(options: Options, facts: Mapping[str, Any]) -> Plan:
    """Return the plan of the earlier training; only its epochs and seed may differ now."""
    old = plan_of(facts["plan"])
    rules = old.sparsity
    asked = {
        "--method": (options.method, old.method.name),
        "--mode": (options.mode, rules.mode if rules else None),
        "--sparsity": (options.sparsity, rules.sparsity if rules else None),
        "--buffer": (options.buffer, old.buffer),
    }
    for name, (now, then) in asked.items():
        if now is not None and now != then:
            raise MismatchError(
                f"{options.origin} was trained with {name} {then}, not {now}: leave {name} out to go on"
            )
    return replace(old, epochs=options.epochs or old.epochs, seed=options.seed)


def _plan(options: Options) -> Plan:
    method = options.method or USUAL_METHOD
    sparse = method_of(method).sparse
    if not sparse and (options.mode or options.sparsity is not None or options.switches):
        raise ConfigError(
            f"--mode, --sparsity and masks belong to sparcl-er and sparcl-derpp, not to {method}"
        )
    rules = None
    if sparse:
        sparsity = USUAL_SPARSITY if options.sparsity is None else options.sparsity
        switches: dict[str, Any] = dict(options.switches or {})
        rules = Sparsity(options.mode or EDGE, sparsity, **switches)
    given = {"epochs": options.epochs, "batch": options.batch, "buffer": options.buffer, "clip": options.clip}
    chosen = {name: value for name, value in given.items() if value is not None}
    return make_plan(method, rules, options.rate, augment=options.augment, seed=options.seed, **chosen)


def _data(options: Options, size: tuple[int, int], world: World) -> DataSet:
    cache = options.cache or options.out / PIXELS
    with world.open_meter(0, "pictures") as meter:
        data = open_dataset(
            options.data, size, options.root, cache, watch=lambda done: meter.show(done, "reading pictures")
        )
    tell_refused(data.refused, world.say)
    return data


def _tasks(options: Options, data: DataSet, plan: Plan) -> tuple[Task, ...]:
    usual = 1 if options.origin else min(USUAL_TASKS, len(data.classes) // 2)
    tasks = plan_tasks(data, options.protocol, options.tasks or usual, options.seed)
    check_batch(tasks, plan.batch)
    return tasks


def course_of(subject: Subject, clock: Clock) -> Course:
    """Return the course over the tasks of a subject."""
    data, joint = subject.data, subject.plan.method.joint
    lessons: list[Callable[[], Lesson]] = []
    exams: list[Callable[[], Lesson]] = []
    for number, task in enumerate(subject.tasks):
        change = transform_of(data.name, subject.protocol, number, subject.plan.seed)
        lessons.append(partial(_lesson, data.train, task.train, task.classes, change))
        exams.append(partial(_lesson, data.test, task.test, task.classes, change))
    return Course(subject.learner, [partial(_together, lessons)] if joint else lessons, exams, clock, joint)


def _lesson(
    examples: Examples, chosen: NDArray[np.intp], classes: NDArray[np.intp], change: Transform
) -> Lesson:
    return Lesson(change(examples.values[chosen]), examples.labels[chosen], classes)


def _together(lessons: Sequence[Callable[[], Lesson]]) -> Lesson:
    """Return all tasks as one lesson: joint training."""
    images, labels, classes = zip(*(lesson() for lesson in lessons), strict=True)
    return Lesson(np.concatenate(images), np.concatenate(labels), np.unique(np.concatenate(classes)))


class _Watch:
    """Shows a course on a progress bar, keeps its record, saves it, and asks whether to stop."""

    def __init__(
        self,
        options: Options,
        subject: Subject,
        recorder: Recorder,
        facts: dict[str, Any],
        meter: Meter,
        world: World,
    ) -> None:
        self._folder, self._every = make_folder(options.out) / RUNNING, options.save_every
        self._subject, self._recorder, self._facts = subject, recorder, facts
        self._meter, self._world = meter, world

    def begin(self, place: Place) -> None:
        self._meter.begin(self._done(place, 1))

    def stepped(self, place: Place, length: int, sums: Sums) -> bool:
        words = (
            f"task {place.task + 1}  loss {sums.loss / sums.steps:.3f}  accuracy {sums.right / sums.seen:.3f}"
        )
        self._meter.show(self._done(place, length), words, self._pictures())
        stop = self._world.stopped()
        if place.step < length and (stop or self._subject.learner.steps % self._every == 0):
            self._save(place, sums)
        return stop

    def ended_epoch(self, epoch: Epoch, place: Place) -> bool:
        self._recorder.ended_epoch(epoch)
        if self._world.stopped() or place.epoch == 0:
            self._save(place, Sums())
        return self._world.stopped()

    def ended_task(self, task: int, answers: Answers) -> None:
        self._recorder.ended_task(answers)
        known = answers.class_il[~np.isnan(answers.class_il)]
        if len(known):
            self._world.say(f"after task {task + 1}: right on {known.mean():.1%} of unseen pictures so far")

    def _save(self, place: Place, sums: Sums) -> None:
        save_state(self._folder, self._subject.learner, self._facts, self._recorder, place, sums)

    def _done(self, place: Place, length: int) -> float:
        return place.task * self._subject.plan.epochs + place.epoch + place.step / length

    def _pictures(self) -> int:
        """Return the pictures of an epoch, stream and replay together: what the bar counts its speed in."""
        plan = self._subject.plan
        return self._subject.learner.length() * (plan.batch + plan.method.draws * plan.replay)


def save_state(
    folder: Path, learner: Learner, facts: dict[str, Any], recorder: Recorder, place: Place, sums: Sums
) -> None:
    """Write everything that the same training needs to go on.

    Raises:
        StoreError: no space, no permission.
    """
    state = learner.state()
    more = {"place": packed(place), "sums": packed(sums), "told": recorder.state()}
    training = Training(learner.steps, optimizer_state(learner.optimizer), {**state, **more}, facts)
    save_network(folder, learner.saved(), training)


def _resume(
    folder: Path, subject: Subject, recorder: Recorder, facts: dict[str, Any], say: Say
) -> tuple[Place, Sums]:
    """Load what a stopped training left; the beginning where there is nothing."""
    saved = load_training(folder) if folder.is_dir() else None
    if saved is None:
        return Place(), Sums()
    classes_match(saved.facts["classes"], facts["classes"])
    check_facts(saved, facts, folder)
    learner = subject.learner
    restore_optimizer(learner.optimizer, saved.optimizer)
    learner.restore(weights_of(load_network(folder).model), saved.state, saved.step)
    recorder.restore(saved.state["told"])
    place = Place(*unpacked(saved.state["place"]))
    say(f"going on at step {saved.step}: task {place.task + 1}, epoch {place.epoch + 1}")
    return place, Sums(*unpacked(saved.state["sums"]))


def _finished(
    options: Options, subject: Subject, recorder: Recorder, facts: dict[str, Any], world: World
) -> dict[str, Any]:
    """Save what answers questions, the record, the report, and what a later training goes on from."""
    learner = subject.learner
    remembers = bool(subject.plan.method.draws)
    record = recorder.finished(world.peak_bytes(), learner.reservoir.size_bytes if remembers else 0)
    save_state(options.out / CONTINUAL, learner, facts, recorder, Place(len(subject.tasks)), Sums())
    write_file(options.out / RECORD, to_json(record).encode("utf-8"))
    write_file(options.out / REPORT, render(record).encode("utf-8"))
    answering = learner.followers[0] if learner.followers else learner.network.model
    model = learner.masking.finished(answering) if learner.masking else answering
    network = learner.network._replace(model=model)
    told = {"command": "train", "plan": facts["plan"], "metrics": asdict(record.metrics)}
    finish(network, options.out, {**told, "classes": list(network.classes)})
    return {
        "network": options.network,
        "out": str(options.out),
        "report": str(options.out / REPORT),
        "classes": list(network.classes),
        "parameters": int(model.count_params()),
        "steps": learner.steps,
        "method": record.method,
        "mode": record.mode,
        "sparsity": record.sparsity,
        "metrics": asdict(record.metrics),
        "totals": asdict(record.totals),
        "refused": list(subject.data.refused),
    }


def recorder_of(options: Options, subject: Subject) -> Recorder:
    """Return the record of a subject before anything happened."""
    plan, wide = subject.plan, subject.wide.model
    sizes = {path: int(np.prod(kernel.shape)) for path, kernel in sparse_kernels(wide).items()}
    rules = plan.sparsity
    unknown = ((None,) * len(subject.tasks),) * len(subject.tasks)
    described = Record(
        command=options.command,
        method=plan.method.name,
        mode=rules.mode if rules else None,
        protocol=options.protocol,
        sparsity=rules.sparsity if rules else None,
        buffer=plan.buffer if plan.method.draws else 0,
        seed=plan.seed,
        network=subject.wide.name,
        dataset=Path(subject.data.name).name,
        classes=subject.wide.classes,
        tasks=tuple(_told(task, subject.wide.classes) for task in subject.tasks),
        class_il=unknown,
        task_il=unknown,
        metrics=Metrics(*(None,) * 6),
        totals=Totals({}, 0, 0, 0, 0, 0, 0, 0),
        settings=_settings(plan),
    )
    return Recorder(described, forward_macs(wide), sizes, method_of(plan.method.name).draws)


def _told(task: Task, classes: Sequence[str]) -> TaskRecord:
    names = tuple(classes[number] for number in task.classes)
    return TaskRecord(task.name, names, len(task.train), len(task.test))


def _settings(plan: Plan) -> dict[str, str]:
    """Return what else the run was given, in words."""
    facts = plan_facts(plan)
    rules = facts.pop("sparsity") or {}
    return {name.replace("_", " "): str(value) for name, value in {**facts, **rules}.items()}


def _facts(options: Options, subject: Subject) -> dict[str, Any]:
    """Return what must be the same when a stopped training goes on."""
    return {
        "plan": plan_facts(subject.plan),
        "data": str(options.data),
        "protocol": options.protocol,
        "tasks": len(subject.tasks),
        "network": options.network,
        "from": str(options.origin) if options.origin else None,
        "classes": list(subject.wide.classes),
        "pictures": len(subject.data.train.labels),
        "wide": json.loads(subject.wide.model.to_json()),
    }


def _renumbered(data: DataSet, classes: tuple[str, ...]) -> DataSet:
    """Return the data with labels that count in `classes`."""
    numbers = places(data.classes, classes).astype(np.int32)
    train, test = (part._replace(labels=numbers[part.labels]) for part in (data.train, data.test))
    return data._replace(classes=classes, train=train, test=test)
