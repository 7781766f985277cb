"""Runs one continual training from options to a saved network, a record and a report: the shell.

`OUT/running` is what a stopped training goes on from; at the end it becomes `OUT/continual`, from which
another training goes on with new data.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from host_trainer.artefacts import make_folder, write_file
from host_trainer.backbones.weights import RANDOM
from host_trainer.datasets.examples import DataSet
from host_trainer.datasets.named import open_dataset
from host_trainer.sparcl.course import Answers, Clock, Epoch, Place, Sums
from host_trainer.sparcl.options import Options
from host_trainer.sparcl.plan import plan_facts
from host_trainer.sparcl.record import Record, to_json
from host_trainer.sparcl.recorder import Recorder
from host_trainer.sparcl.report import render
from host_trainer.sparcl.saved import CONTINUAL, save_training, take_up
from host_trainer.sparcl.subject import Subject, course_of, new_subject, next_subject, recorder_of
from host_trainer.training.session import PIXELS, Meter, OpenMeter, Say, check_out, finish, tell_refused
from host_trainer.training.trainer import RUNNING
from host_trainer.training.workers import Workers

REPORT, RECORD = "report.html", "record.json"


class World(NamedTuple):
    """What a training needs of the world: seconds, memory at its peak, a person, and whether to stop."""

    clock: Clock
    peak_bytes: Callable[[], int]
    open_meter: OpenMeter
    say: Say
    stopped: Callable[[], bool]


def train_continually(
    options: Options, world: World, workers: Workers | None = None
) -> dict[str, Any] | None:
    """Train task after task, save everything in `options.out`, and return plain facts about it.

    Of several workers each calls this; the first one alone writes, and returns facts.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done; the loss is no number any more.
        StoreError: the disk refuses.
        KeyboardInterrupt: `world.stopped` said so; the state is saved, and the same call goes on.
    """
    check_out(options.out, (CONTINUAL, RECORD, REPORT))  # these, where it was stopped while it finished
    subject = _subject(options, world, workers)
    facts = _facts(options, subject)
    recorder = recorder_of(subject, options.command)
    course = course_of(subject, world.clock)
    stood = take_up(options.out / RUNNING, subject.learner, facts, recorder)
    if stood is None:
        recorder.before(course.answers(-1))
    else:
        place = stood[0]
        world.say(f"going on at step {subject.learner.steps}: task {place.task + 1}, epoch {place.epoch + 1}")
    with world.open_meter(subject.plan.epochs * len(course.lessons), "images") as meter:
        watch = _Watch(
            options, subject, recorder, facts, meter, world, writes=workers is None or workers.writes
        )
        place, sums = stood or (Place(), Sums())
        watch.begin(place)
        if not course.run(watch, place, sums):
            raise KeyboardInterrupt
    if workers is not None:
        workers.meet()  # nobody leaves while others still ask for its part
        if not workers.writes:
            return None
    return _finished(options, subject, recorder, facts, world)


def _subject(options: Options, world: World, workers: Workers | None) -> Subject:
    def open_data(size: tuple[int, int], least: int) -> DataSet:
        cache = options.cache or options.out / PIXELS
        with world.open_meter(0, "pictures") as meter:
            data = open_dataset(
                options.data,
                size,
                options.root,
                cache,
                watch=lambda done: meter.show(done, "reading pictures"),
                least_classes=least,
            )
        tell_refused(data.refused, world.say)
        return data

    if workers is not None and not workers.writes:
        workers.meet()  # the first one decodes the pictures
    if options.origin is None:
        subject = new_subject(options, open_data, workers)
    else:
        subject = next_subject(options, options.origin, open_data, workers)
    if workers is not None:
        workers.check(batch=subject.plan.batch, replay=subject.plan.replay)
        if workers.writes:
            workers.meet()
    return subject


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
        writes: bool,
    ) -> None:
        self._folder, self._every = make_folder(options.out) / RUNNING, options.save_every
        self._writes = writes
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
        stop = self._world.stopped()
        if stop or place.epoch == 0:
            self._save(place, Sums())
        return stop

    def ended_task(self, task: int, answers: Answers) -> None:
        self._recorder.ended_task(answers)
        known = answers.class_il[~np.isnan(answers.class_il)]
        if len(known):
            self._world.say(f"after task {task + 1}: right on {known.mean():.1%} of unseen pictures so far")

    def _save(self, place: Place, sums: Sums) -> None:
        if not self._writes:
            return
        save_training(self._folder, self._subject.learner, self._facts, self._recorder, place, sums)

    def _done(self, place: Place, length: int) -> float:
        return place.task * self._subject.plan.epochs + place.epoch + place.step / length

    def _pictures(self) -> int:
        """Return the pictures of an epoch, stream and replay together: what the bar counts its speed in."""
        plan = self._subject.plan
        return self._subject.learner.length() * (plan.batch + plan.method.draws * plan.replay)


def _finished(
    options: Options, subject: Subject, recorder: Recorder, facts: dict[str, Any], world: World
) -> dict[str, Any]:
    """Save what answers questions, the record, the report, and what a later training goes on from."""
    learner, out = subject.learner, options.out
    remembers = bool(subject.plan.method.draws)
    record = recorder.finished(world.peak_bytes(), learner.reservoir.size_bytes if remembers else 0)
    save_training(out / CONTINUAL, learner, facts, recorder, Place(len(subject.tasks)), Sums())
    write_file(out / RECORD, to_json(record).encode("utf-8"))
    write_file(out / REPORT, render(record).encode("utf-8"))
    network = learner.finished()
    told = {"command": "train", "plan": facts["plan"], "metrics": asdict(record.metrics)}
    finish(network, out, {**told, "classes": list(network.classes)})
    return {**_told(record, subject, out), "parameters": int(network.model.count_params())}


def _told(record: Record, subject: Subject, out: Path) -> dict[str, Any]:
    """Return what the command prints; every setting as it was used, not as it was asked for."""
    return {
        "network": record.network,
        "out": str(out),
        "report": str(out / REPORT),
        "classes": list(record.classes),
        "steps": subject.learner.steps,
        "method": record.method,
        "mode": record.mode,
        "sparsity": record.sparsity,
        "plan": plan_facts(subject.plan),
        "protocol": record.protocol,
        "tasks": [asdict(task) for task in record.tasks],
        "metrics": asdict(record.metrics),
        "totals": asdict(record.totals),
        "refused": list(subject.data.refused),
    }


def _facts(options: Options, subject: Subject) -> dict[str, Any]:
    """Return what must be the same when a stopped training goes on."""
    return {
        "plan": plan_facts(subject.plan),
        "data": str(options.data),
        "protocol": subject.protocol,
        "tasks": len(subject.tasks),
        "before": subject.before,
        "network": subject.whole.name,
        "weights": options.weights or RANDOM,
        "from": str(options.origin) if options.origin else None,
        "classes": list(subject.whole.classes),
        "pictures": len(subject.data.train.labels),
        "wide": subject.whole.graph,
    }
