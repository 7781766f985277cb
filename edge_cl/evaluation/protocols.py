"""Decides in which order training samples arrive, and which test samples belong to which task."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError

Indices = NDArray[np.intp]

SHUFFLE, NOISE = 1, 2  # what a random number is for
DIGITS = "0123456789"


class Samples(NamedTuple):
    """Embedded pictures with what is known of them.

    Attributes:
        features: (N, V, D) in the stored dtype.
        labels: name of each one's class.
        sessions: when or where each was taken, "" if unknown.
        orders: rank of each within its session, None if unknown.
    """

    features: NDArray[Any]
    labels: tuple[str, ...]
    sessions: tuple[str, ...]
    orders: tuple[int | None, ...]


class Plan(NamedTuple):
    """What arrives when, and what is asked about it.

    Attributes:
        tasks: for each task the training samples (n,) in order of arrival.
        groups: (N,) the task to which each test sample belongs.
    """

    tasks: tuple[Indices, ...]
    groups: Indices


class Noise(NamedTuple):
    """Training labels as they are taught, and which of them are wrong (N,)."""

    labels: tuple[str, ...]
    wrong: NDArray[np.bool_]


def class_incremental(train: Samples, test: Samples, tasks: int, seed: int) -> Plan:
    """New classes with every task: the sorted names, shuffled by the seed, in groups; samples shuffled.

    Raises:
        ConfigError: fewer classes than tasks, or the parts do not fit.
    """
    _check(train, test, tasks)
    names = sorted(set(train.labels))
    if tasks > len(names):
        raise ConfigError(f"{tasks} tasks need as many classes, there are {len(names)}: lower --tasks")
    rng = np.random.default_rng((seed, SHUFFLE))
    shares = np.array_split(rng.permutation(len(names)), tasks)
    task_of = {names[number]: task for task, share in enumerate(shares) for number in share}
    arrivals = np.array([task_of[label] for label in train.labels])
    return Plan(
        tuple(rng.permutation(np.flatnonzero(arrivals == task)) for task in range(tasks)),
        np.array([task_of[label] for label in test.labels]),
    )


def domain_incremental(train: Samples, test: Samples, tasks: int, seed: int) -> Plan:
    """The same classes seen anew with every task: `tasks` runs of sessions in their order; samples shuffled.

    A test sample belongs to the last run that begins no later than its own session.

    Raises:
        ConfigError: fewer sessions than tasks, or the parts do not fit.
    """
    _check(train, test, tasks)
    arrivals, groups = session_groups(train.sessions, test.sessions, tasks)
    rng = np.random.default_rng((seed, SHUFFLE))
    return Plan(tuple(rng.permutation(np.flatnonzero(arrivals == task)) for task in range(tasks)), groups)


def session_groups(train: Sequence[str], test: Sequence[str], tasks: int) -> tuple[Indices, Indices]:
    """Cut sessions, in their order, evenly into tasks: the task of each training (N,) and test sample (M,).

    Raises:
        ConfigError: fewer sessions than tasks.
    """
    sessions = sorted(set(train), key=natural)
    if tasks > len(sessions):
        raise ConfigError(
            f"{tasks} tasks need as many sessions, the training pictures have {len(sessions)}:"
            " name them in the column `session` of manifest.csv, or take another --protocol"
        )
    shares = np.array_split(np.arange(len(sessions)), tasks)
    task_of = {sessions[number]: task for task, share in enumerate(shares) for number in share}
    starts = [natural(sessions[share[0]]) for share in shares[1:]]
    return (
        np.array([task_of[session] for session in train], np.intp),
        np.array([sum(start <= natural(session) for start in starts) for session in test], np.intp),
    )


def stream(train: Samples, test: Samples, tasks: int, seed: int) -> Plan:
    """Everything as it was taken, by session, then order, cut in `tasks` parts; old classes come back again.

    Samples that say neither come last, shuffled by the seed. A test sample belongs to the task in which its
    class came first.

    Raises:
        ConfigError: fewer samples than tasks, or the parts do not fit.
    """
    _check(train, test, tasks)
    if tasks > len(train.labels):
        raise ConfigError(
            f"{tasks} tasks need as many pictures, there are {len(train.labels)}: lower --tasks"
        )
    shuffled = np.random.default_rng((seed, SHUFFLE)).permutation(len(train.labels))
    arrival = np.array(sorted(shuffled, key=lambda i: _when(train.sessions[i], train.orders[i])))
    parts = tuple(np.array_split(arrival, tasks))
    first: dict[str, int] = {}
    for task, part in enumerate(parts):
        for i in part:
            first.setdefault(train.labels[i], task)
    return Plan(parts, np.array([first[label] for label in test.labels]))


PROTOCOLS = {
    "class-incremental": class_incremental,
    "domain-incremental": domain_incremental,
    "stream": stream,
}


def wrong_labels(labels: Sequence[str], plan: Plan, share: float, seed: int) -> Noise:
    """Replace a share of the training labels of each task by another class.

    Of a task with n samples, round(share n) drawn ones get a label drawn from the other classes that were
    taught by the end of that task: nobody can mistake a thing for one that does not exist yet. Test labels
    stay true. With a single class so far there is no other, and its labels stay.
    """
    noisy, wrong, seen = list(labels), np.zeros(len(labels), bool), set()
    for number, task in enumerate(plan.tasks):
        rng = np.random.default_rng((seed, NOISE, number))
        seen |= {labels[i] for i in task}
        names = sorted(seen)
        if len(names) < 2:
            continue
        for i in rng.choice(task, size=round(share * len(task)), replace=False):
            others = [name for name in names if name != labels[i]]
            noisy[i], wrong[i] = others[int(rng.integers(len(others)))], True
    return Noise(tuple(noisy), wrong)


def _check(train: Samples, test: Samples, tasks: int) -> None:
    if tasks < 1:
        raise ConfigError(f"{tasks} tasks cannot be: give at least 1")
    untested = sorted(set(train.labels) - set(test.labels))
    if untested:
        raise ConfigError(
            f"class {untested[0]!r} has no readable test picture: add one to test/{untested[0]}"
        )
    untaught = sorted(set(test.labels) - set(train.labels))
    if untaught:
        raise ConfigError(
            f"class {untaught[0]!r} has no readable training picture: add one to train/{untaught[0]}"
        )


def natural(session: str) -> tuple[tuple[bool, int, str], ...]:
    """Return a key that puts session 9 before session 10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", session)
    return tuple((part[0] not in DIGITS, int(part) if part[0] in DIGITS else 0, part) for part in parts)


def _when(session: str, order: int | None) -> tuple[bool, Any, bool, int]:
    """Return a key in order of taking: known sessions, then known orders, then the rest."""
    return (session == "" and order is None, natural(session), order is None, order or 0)
