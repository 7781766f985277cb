"""Takes retrainings from the server's queue, one after the other, each in a process of its own.

A worker holds no TensorFlow and no state: while its child trains it says now and then that it still has the
job. It may be killed at any moment; its lease runs out, another worker takes the job up, and the run goes on
at the last stage that was whole.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from edge_cl.errors import StoreError
from host_trainer.server.jobs import LEASE_S, RETRAIN, Job, Jobs, LeaseLostError

PERIOD_S = LEASE_S / 5  # between two signs of life
IDLE_S = 10.0  # between two looks at an empty queue
REJECTED = 1  # exit status of a retraining that the gate did not let pass: the job is done all the same
WORDS_LENGTH = 1000  # of what went wrong, as the queue keeps it

Clock = Callable[[], float]


class Around(NamedTuple):
    """What a worker needs of the world: Unix seconds, a pause, a person, and whether to stop."""

    clock: Clock
    pause: Callable[[float], None]
    say: Callable[[str], None]
    stopped: Callable[[], bool]


def work(jobs: Jobs, name: str, command: Callable[[Job], Sequence[str]], around: Around, once: bool) -> int:
    """Take jobs until told to stop, or until the queue is empty where `once`; return how many were done.

    Args:
        jobs: the queue.
        name: of this worker, unlike all others'.
        command: that carries out a job; it prints one JSON object.
        around: the world.
        once: end when there is nothing to do.
    """
    done = 0
    while not around.stopped():
        job = jobs.take([RETRAIN], name, int(around.clock()))
        if job is None:
            if once:
                break
            around.pause(IDLE_S)
            continue
        around.say(f"job {job.id}: retraining {job.subject}, attempt {job.attempt}")
        done += _carried_out(jobs, job, command(job), around)
    return done


def _carried_out(jobs: Jobs, job: Job, command: Sequence[str], around: Around) -> bool:
    """Run a job's process to its end, and tell the queue; whether it went well."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            out, errors = _awaited(jobs, job, child, around)
        except LeaseLostError as error:
            child.kill()
            around.say(f"{error}: let go of it")
            return False
        except BaseException:
            child.terminate()  # it saves what it has, and the next attempt goes on there
            raise
    result = _result(out) if child.returncode in (0, REJECTED) else None
    now = int(around.clock())
    try:
        if result is not None:
            jobs.finish(job, result, now)
            around.say(_in_words(job, result))
            return True
        words = errors.strip()[-WORDS_LENGTH:] or f"its process ended with status {child.returncode}"
        again = jobs.fail(job, words, now)
        around.say(f"job {job.id} failed{', it is tried again' if again else ''}: {words.splitlines()[-1]}")
    except LeaseLostError as error:
        around.say(str(error))
    return False


def _awaited(jobs: Jobs, job: Job, child: "subprocess.Popen[str]", around: Around) -> tuple[str, str]:
    while True:
        try:
            return child.communicate(timeout=PERIOD_S)
        except subprocess.TimeoutExpired:
            try:
                jobs.beat(job, int(around.clock()))
            except StoreError as error:  # the database is busy or away: the lease is longer than a few beats
                around.say(f"job {job.id}: {error}")
            if around.stopped():
                raise KeyboardInterrupt from None


def _result(out: str) -> Mapping[str, Any] | None:
    """Return the object that a retraining printed; None when it printed none."""
    try:
        found = json.loads(out)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "accepted" in found else None


def _in_words(job: Job, result: Mapping[str, Any]) -> str:
    if result["accepted"]:
        return f"job {job.id}: bundle {result['bundle']} of {job.subject} is listed in canary"
    return f"job {job.id}: no release, {'; '.join(result['reasons'])}"


def command_of(fleet: str, where: Mapping[str, str], options: Sequence[str]) -> Callable[[Job], list[str]]:
    """Return how a job becomes a process: the command line of a single retraining.

    Args:
        fleet: folder.
        where: options that say where database and objects are, {"--database": ...}; "" is left out.
        options: that every retraining gets.
    """
    return lambda job: command(fleet, where, ["--model", job.subject, *options, "--json"])


def command(fleet: str, where: Mapping[str, str], options: Sequence[str]) -> list[str]:
    """Return the words of `host-trainer retrain`, as a process of its own; arguments as for `command_of`."""
    places = [word for option, value in where.items() if value for word in (option, value)]
    return [sys.executable, "-m", "host_trainer.cli", "retrain", fleet, *places, *options]
