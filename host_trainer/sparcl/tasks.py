"""Decides which pictures and classes make up which task, by protocol; refuses what cannot be learned so."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from edge_cl.evaluation.protocols import natural, session_groups
from edge_cl.sample import label_key
from host_trainer.datasets.domains import Transform, permuted, rotated, turn_of, unchanged
from host_trainer.datasets.examples import DataSet
from host_trainer.datasets.named import MNIST, PERMUTED_MNIST, ROTATED_MNIST
from host_trainer.datasets.splits import class_tasks

CLASS, TASK, DOMAIN = "class-incremental", "task-incremental", "domain-incremental"
PROTOCOLS = (CLASS, TASK, DOMAIN)
GIVEN, SHUFFLED = "given", "shuffled"  # order of classes; the published splits take them as they are numbered
LEAST_CLASSES = 2  # of a task that teaches some: one class leaves nothing to tell apart
NAMES_SHOWN = 3  # of a task with more, the first and the last


class Task(NamedTuple):
    """What is learned between two evaluations.

    Attributes:
        name: for people.
        classes: (T,) labels that it teaches; all of them where domains come one by one.
        train: (n,) indices into the data set's train part.
        test: (m,) indices into its test part; may be empty.
    """

    name: str
    classes: NDArray[np.intp]
    train: NDArray[np.intp]
    test: NDArray[np.intp]


def plan_tasks(
    data: DataSet,
    protocol: str,
    tasks: int,
    seed: int = 0,
    order: str = GIVEN,
    *,
    least: int = LEAST_CLASSES,
    before: int = 0,
) -> tuple[Task, ...]:
    """Share out a data set.

    Only classes with pictures to learn from are taught: a data set may name others, known from earlier.
    Class- and task-incremental teach them in groups, evenly, and differ only in what is asked later.
    Domain-incremental teaches all classes in every task: the sessions of a manifest in their order, evenly
    grouped; or, of MNIST, every picture in every task, changed by `transform_of`.

    Args:
        data: what there is.
        protocol: one of PROTOCOLS.
        tasks: how many.
        seed: of shuffled classes.
        order: GIVEN, or SHUFFLED by the seed.
        least: classes of a task.
        before: tasks of these domains that were taught earlier.

    Raises:
        ConfigError: an unknown protocol or order, fewer than one task or more than the data allows, or data
            without domains.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"{protocol!r} is no protocol: give one of {', '.join(PROTOCOLS)}")
    if tasks < 1:
        raise ConfigError(f"{tasks} tasks cannot be: give --tasks 1 or more")
    if protocol == DOMAIN:
        changed = data.name in CHANGES
        return _changed_pictures(data, tasks, seed, before) if changed else _sessions(data, tasks)
    if data.name in CHANGES and data.name != MNIST:
        raise ConfigError(f"{data.name} is made of domains: give --protocol {DOMAIN}, or --data {MNIST}")
    return _classes(data, tasks, seed, order, least)


def transform_of(data: str, protocol: str, task: int, seed: int) -> Transform:
    """Return how the pictures of a task's domain are made from the data set's, by its name."""
    return CHANGES[data].make(task, seed) if protocol == DOMAIN and data in CHANGES else unchanged


def check_batch(tasks: Sequence[Task], batch: int) -> None:
    """Refuse tasks that do not fill one batch.

    Raises:
        ConfigError: a task with fewer training pictures than `batch`.
    """
    for task in tasks:
        if len(task.train) < batch:
            raise ConfigError(
                f"task {task.name} has {len(task.train)} pictures to learn from, a batch {batch}: "
                "add some, or give a smaller --batch"
            )


def classes_match(before: Sequence[str], now: Sequence[str]) -> None:
    """Refuse data whose classes are not those of the run that it continues; new ones may follow them.

    Raises:
        ConfigError: a class that is missing, has another name or another place.
    """
    for place, name in enumerate(before):
        if place >= len(now):
            raise ConfigError(f"class {name!r} of the earlier run is missing: add it, or start anew")
        if label_key(name) != label_key(now[place]):
            raise ConfigError(
                f"class {place + 1} was {name!r} and is {now[place]!r} now: rename it, or start anew"
            )


class Change(NamedTuple):
    """How a data set becomes many domains: makes a (task, seed)'s transform, and its name for people."""

    make: Callable[[int, int], Transform]
    named: Callable[[int, int], str]


def _turn(task: int, seed: int) -> Transform:
    return partial(rotated, degrees=turn_of(task, seed))


def _order(task: int, seed: int) -> Transform:
    return partial(permuted, task=task, seed=seed)


TURNS = Change(_turn, lambda task, seed: f"turned by {turn_of(task, seed):.1f} degrees")
CHANGES = {
    MNIST: TURNS,
    ROTATED_MNIST: TURNS,
    PERMUTED_MNIST: Change(_order, lambda task, seed: f"order {task + 1} of pixels"),
}


def _taught(data: DataSet) -> NDArray[np.intp]:
    """Return the classes that have pictures to learn from."""
    return np.unique(data.train.labels).astype(np.intp)


def _changed_pictures(data: DataSet, tasks: int, seed: int, before: int) -> tuple[Task, ...]:
    every = [_taught(data), np.arange(len(data.train.labels)), np.arange(len(data.test.labels))]
    return tuple(Task(CHANGES[data.name].named(before + task, seed), *every) for task in range(tasks))


def _sessions(data: DataSet, tasks: int) -> tuple[Task, ...]:
    if not data.domain_names:
        raise ConfigError(
            f"{data.name} has no domains: name sessions in the column `session` of its manifest.csv, or give "
            f"--protocol {CLASS}"
        )
    train, test = ([data.domain_names[domain] for domain in part.domains] for part in (data.train, data.test))
    arrivals, groups = session_groups(train, test, tasks)
    classes, found = _taught(data), []
    for task in range(tasks):
        members = np.flatnonzero(arrivals == task)
        names = sorted({train[i] for i in members}, key=natural)
        found.append(Task(_listed(names), classes, members, np.flatnonzero(groups == task)))
    return tuple(found)


def _classes(data: DataSet, tasks: int, seed: int, order: str, least: int) -> tuple[Task, ...]:
    taught = _taught(data)
    if len(taught) < least * tasks:
        raise ConfigError(
            f"{len(taught)} classes cannot make {tasks} tasks of {least} or more: give at most "
            f"--tasks {max(1, len(taught) // least)}"
        )
    return tuple(
        Task(
            _listed([data.classes[label] for label in labels]),
            labels,
            np.flatnonzero(np.isin(data.train.labels, labels)),
            np.flatnonzero(np.isin(data.test.labels, labels)),
        )
        for labels in _shares(data.classes, taught, tasks, seed, order)
    )


def _shares(
    classes: Sequence[str], taught: NDArray[np.intp], tasks: int, seed: int, order: str
) -> list[NDArray[np.intp]]:
    if order == GIVEN:
        return np.array_split(taught, tasks)
    if order == SHUFFLED:
        number = {classes[label]: label for label in taught}
        return [
            np.array([number[name] for name in share]) for share in class_tasks(list(number), tasks, seed)
        ]
    raise ConfigError(f"{order!r} is no order of classes: give {GIVEN} or {SHUFFLED}")


def _listed(names: Sequence[str]) -> str:
    shown = [name or "of no session" for name in names]
    return ", ".join(shown) if len(shown) <= NAMES_SHOWN else f"{shown[0]} ... {shown[-1]} ({len(shown)})"
