"""Shares one training among processes: each takes its part of every batch, and all take the same step.

Which processes they are is told as TensorFlow has it, in the variable TF_CONFIG; its
MultiWorkerMirroredStrategy adds up what they find. Weights, masks and buffer are the same in each: gradients
are averaged, statistics of a normalisation are those of the whole batch, and every number that decides
anything is gathered from all of them. The first one alone writes.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from edge_cl.errors import ConfigError, EngineError
from host_trainer.training.normalisation import synchronised

TF_CONFIG = "TF_CONFIG"
LOOPBACK = "127.0.0.1"

Judge = Callable[[Any], tuple[Any, dict[str, Any], list[Any]]]  # batch -> loss, more, gradients


class Workers:
    """The processes that share a training, as one of them knows them.

    Attributes:
        count: of processes.
        index: of this one; 0 is the first.
    """

    def __init__(self, strategy: Any, count: int, index: int) -> None:
        self._strategy, self.count, self.index = strategy, count, index

    @property
    def writes(self) -> bool:
        """Whether this one writes to the disk and speaks."""
        return self.index == 0

    def meet(self) -> None:
        """Wait until all have come here.

        Raises:
            EngineError: one has gone.
        """
        import tensorflow as tf

        with heard():
            self._strategy.run(tf.function(lambda: _mean(tf.constant(1.0))))

    def check(self, **rows: int) -> None:
        """Refuse numbers of rows that cannot be shared evenly.

        Raises:
            ConfigError: such a number; the message has its name.
        """
        for name, count in rows.items():
            if count % self.count:
                raise ConfigError(
                    f"{name} of {count} cannot be shared evenly by {self.count} workers: give another --batch"
                )

    def part(self, batch: Mapping[str, np.ndarray], whole: Collection[str]) -> dict[str, np.ndarray]:
        """Return this process's rows of a batch; numbers, and what is named in `whole`, go to each."""
        return {
            name: values if np.ndim(values) == 0 or name in whole else self._rows(name, values)
            for name, values in batch.items()
        }

    def judged(self, judge: Judge, batch: Any, model: Any) -> tuple[Any, dict[str, Any], list[Any]]:
        """Judge the own part of a batch by a model, and return loss, more and gradients of all of it.

        Of `more`, numbers are averaged, and rows stand in the batch's order.
        """

        def one(rows: Any) -> Any:
            with synchronised(model):
                value, more, gradients = judge(rows)
            return _mean(value), {name: _joined(each) for name, each in more.items()}, _mean(gradients)

        return self._strategy.run(one, (batch,))

    def _rows(self, name: str, values: np.ndarray) -> np.ndarray:
        self.check(**{name: len(values)})
        size = len(values) // self.count
        return values[self.index * size : (self.index + 1) * size]


def open_workers() -> Workers | None:
    """Join the processes that TF_CONFIG names; None where it names none besides this one.

    Comes before anything else that TensorFlow does.

    Raises:
        ConfigError: TF_CONFIG is not as TensorFlow has it, or Keras runs on another backend.
    """
    told = os.environ.get(TF_CONFIG)
    if not told:
        return None
    count, index = _read(told)
    if count == 1:
        return None
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ConfigError("workers share a training on TensorFlow: leave KERAS_BACKEND out, or train in one")
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if strategy.num_replicas_in_sync != count:
        raise ConfigError(
            f"{count} workers see {strategy.num_replicas_in_sync} devices: give each process one"
            " (CUDA_VISIBLE_DEVICES)"
        )
    return Workers(strategy, count, index)


@contextmanager
def company(count: int) -> Iterator[None]:
    """Make this process the first of `count` on this machine, and start the others with the same words."""
    places = [f"{LOOPBACK}:{port}" for port in free_ports(count)]
    environment = {**os.environ, **shared_cores(count)}
    os.environ.update(environment | {TF_CONFIG: config(places, 0)})
    others = [
        subprocess.Popen(
            [sys.executable, "-m", "host_trainer.cli", *sys.argv[1:]],
            stdout=subprocess.DEVNULL,
            env=environment | {TF_CONFIG: config(places, index)},
            start_new_session=True,  # Ctrl-C reaches the first one alone, which saves
        )
        for index in range(1, count)
    ]
    try:
        yield
    finally:
        del os.environ[TF_CONFIG]
        for each in others:
            each.kill()
            each.wait()


def free_ports(count: int) -> list[int]:
    """Return ports here that nobody listens at; TensorFlow wants them named before it opens them."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def shared_cores(count: int) -> dict[str, str]:
    """Return an environment that shares the cores among processes; TensorFlow would give each all of them."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    return dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), threads)


@contextmanager
def heard() -> Iterator[None]:
    """Turn TensorFlow's errors about a process that is gone into one line."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.InternalError, tf.errors.AbortedError) as error:
        raise EngineError(
            "another worker has gone: start all of them again, they go on from the last checkpoint"
        ) from error


def _mean(values: Any) -> Any:
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)


def _joined(values: Any) -> Any:
    import tensorflow as tf

    if values.shape.rank == 0:
        return _mean(values)
    return tf.distribute.get_replica_context().all_gather(values, axis=0)


def _read(told: str) -> tuple[int, int]:
    """Return how many processes TF_CONFIG names, and which one this is."""
    try:
        config = json.loads(told)
        places, task = config["cluster"]["worker"], config["task"]
        if task["type"] != "worker" or not 0 <= int(task["index"]) < len(places):
            raise ValueError("it names no worker")
        return len(places), int(task["index"])
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            'TF_CONFIG is not as TensorFlow has it: {"cluster": {"worker": ["HOST:PORT", ...]}, "task": '
            '{"type": "worker", "index": 0}}'
        ) from error


def config(places: Sequence[str], index: int) -> str:
    """Return the TF_CONFIG of one of the processes at these places, HOST:PORT each."""
    return json.dumps({"cluster": {"worker": list(places)}, "task": {"type": "worker", "index": index}})
