"""Runs the peers of a plan: as processes of this machine, as Ray actors, or in turn in this process.

None of them carries weights: peers meet in the store only. An engine starts them, starts them again when they
die, and passes on how far they are.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple

from edge_cl.errors import ConfigError, EngineError
from host_trainer.checkpoints import NETWORK
from host_trainer.distillation.codistillation import peer as peers
from host_trainer.distillation.codistillation.exchange import FolderStore
from host_trainer.distillation.codistillation.learner import Peer
from host_trainer.distillation.codistillation.plan import Plan, to_json
from host_trainer.training.ray_cluster import ray_cluster
from host_trainer.training.trainer import RUNNING
from host_trainer.training.workers import shared_cores

MODULE = "host_trainer.distillation.codistillation.peer"
POLL_S = 0.5  # between two looks at Ray's actors

Progress = Callable[[int, int, Mapping[str, float]], None]  # (peer, step, scalars)


class Word(NamedTuple):
    """What a peer's process said: one object, or None with the exit status at its end."""

    number: int
    said: dict[str, Any] | None
    status: int


def run_inline(plan: Plan, progress: Progress) -> int:
    """Train all peers in this process, in turn, exchanges at the same step for all; return restarts: 0.

    Nothing is saved on Ctrl-C: it goes on from the last save.
    """
    parts = peers.Parts(plan)
    waiting = [n for n in range(plan.peers) if not (peers.result_of(plan, n) / NETWORK).is_file()]
    crew = [Peer(peers.open_seat(plan, number, parts)._replace(lockstep=False)) for number in waiting]
    while unfinished := [each for each in crew if not each.is_done]:
        at = min(each.step for each in unfinished)  # after a stop, those behind catch up first
        turn = [each for each in unfinished if each.step == at]
        in_turn(turn, progress)
        for each in turn:
            each.save_if_due()
    for each in crew:
        peers.judge_and_keep(plan, each.seat.number, each.finish(), parts)
    return 0


def in_turn(turn: list[Peer], progress: Progress = lambda peer, step, told: None) -> None:
    """Let peers of the same step publish, then read, then learn, so that none is ahead of another."""
    for act in (Peer.publish_if_due, Peer.read_if_due):
        for each in turn:
            act(each)
    for each in turn:
        progress(each.seat.number, each.step + 1, each.learn())


def run_processes(plan: Plan, path: Path, progress: Progress) -> int:
    """Train each peer in a process of its own; start one that is killed again. Return how often that was.

    Args:
        plan: what to do.
        path: the plan as a file, which the processes read.
        progress: hears how far each is.

    Raises:
        ConfigError, EngineError: what a peer ended with; the others are stopped, their state saved.
        KeyboardInterrupt: on Ctrl-C, after all have saved.
    """
    words: Queue[Word] = Queue()
    running = {number: _start(plan, path, number, words) for number in range(plan.peers)}
    left = dict.fromkeys(running, plan.restarts)
    restarts = 0
    try:
        while running:
            number, said, status = words.get()
            if said is not None:
                _pass_on(number, said, progress)
                continue
            del running[number]
            if status == 0:
                continue
            if status > 0 or not left[number]:
                raise EngineError(f"peer {number} ended with status {status}: run it again to go on")
            left[number], restarts = left[number] - 1, restarts + 1
            running[number] = _start(plan, path, number, words)
    finally:
        _stop(running.values())
    return restarts


def run_ray(plan: Plan, progress: Progress) -> int:
    """Train each peer as a Ray actor, on the cluster that RAY_ADDRESS names or on this machine.

    All of them must see the plan's folders. Ray starts an actor that died again. Returns 0: Ray does not tell
    how often.

    Raises:
        ConfigError: a peer refused the plan.
        EngineError: Ray is not installed, or an actor failed for good.
    """
    with ray_cluster(plan.peers, _environment(plan)) as ray:
        _await_actors(ray, _actors(ray, plan), FolderStore(_store_of(plan)), progress)
    return 0


def _start(plan: Plan, path: Path, number: int, words: "Queue[Word]") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, str(path), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **_environment(plan)},
        start_new_session=True,  # Ctrl-C reaches this process, which then asks each peer once
    )
    Thread(target=_listen, args=(process, number, words), daemon=True).start()
    return process


def _listen(process: subprocess.Popen[str], number: int, words: "Queue[Word]") -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            words.put(Word(number, _heard(line), 0))
    words.put(Word(number, None, process.wait()))


def _heard(line: str) -> dict[str, Any]:
    """Read a peer's line; what a library prints there goes to standard error and says nothing."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if isinstance(said, dict):
        return said
    sys.stderr.write(line)
    return {}


def _pass_on(number: int, said: dict[str, Any], progress: Progress) -> None:
    if "error" in said:
        kind = ConfigError if said["status"] == ConfigError.exit_status else EngineError
        raise kind(f"peer {number}: {said['error']}")
    if "step" in said:
        progress(number, said.pop("step"), said)


def _stop(processes: Any) -> None:
    """Ask processes to save and end, and wait until they have."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()


def _environment(plan: Plan) -> dict[str, str]:
    """Share the cores among the peers."""
    shared = shared_cores(plan.peers)
    return dict.fromkeys(shared, str(plan.threads)) if plan.threads else shared


def _actors(ray: Any, plan: Plan) -> list[Any]:
    class Actor:
        """A peer on some machine, on the one thread of its actor."""

        def __init__(self, text: str, number: int) -> None:
            self._text, self._number = text, number

        def run(self) -> None:
            from host_trainer.distillation.codistillation.peer import run_peer
            from host_trainer.distillation.codistillation.plan import from_json

            run_peer(from_json(self._text), self._number, lambda step, told: None)

    remote = ray.remote(num_cpus=1, max_restarts=plan.restarts, max_task_retries=plan.restarts)(Actor)
    return [remote.remote(to_json(plan), number) for number in range(plan.peers)]


def _store_of(plan: Plan) -> Path:
    return plan.options.out / RUNNING / peers.STORE


def _await_actors(ray: Any, actors: list[Any], store: FolderStore, progress: Progress) -> None:
    """Wait for every actor; how far each is, is told by what it has published."""
    waiting = {actor.run.remote(): number for number, actor in enumerate(actors)}
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=POLL_S)
        for each in done:
            ray.get(each)
            del waiting[each]
        for number in waiting.values():
            for step in store.steps(number)[-1:]:
                progress(number, step, {})
