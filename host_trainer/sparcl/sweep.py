"""Runs trainings, each as the command that it is, in processes of this machine or as tasks of Ray.

Runs know nothing of each other: each has a folder, saves as it goes, and goes on when it is started again.
One that is finished is not run anew, so a sweep goes on as its runs do.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from edge_cl.errors import ConfigError, EngineError
from host_trainer.artefacts import make_folder, write_file
from host_trainer.checkpoints import NETWORK
from host_trainer.sparcl.comparison import compare
from host_trainer.sparcl.record import Record, from_json
from host_trainer.sparcl.session import RECORD
from host_trainer.training.crew import Meeting, joined
from host_trainer.training.ray_cluster import ray_cluster
from host_trainer.training.session import PIXELS
from host_trainer.training.workers import TF_CONFIG, shared_cores

PROCESSES, RAY = ENGINES = ("processes", "ray")
COMPARISON = "comparison.html"
POLL_S = 0.3  # between two questions whether to stop
STOPPED = 130

Hear = Callable[[str], None]


class Run(NamedTuple):
    """One training: its name, its words behind `host-trainer`, its folder, and how many processes it has."""

    name: str
    words: tuple[str, ...]
    out: Path
    workers: int = 1

    @property
    def is_finished(self) -> bool:
        """Whether its network is there."""
        return (self.out / NETWORK).is_file()


def runs_of(given: Sequence[tuple[str, Mapping[str, Any]]], seeds: Sequence[int], out: Path) -> list[Run]:
    """Return the runs of named options with each of these seeds, all below one folder.

    Args:
        given: for each its name ("" where there is one only), and options by parameter name.
        seeds: none stands for the options' own.
        out: folder of the sweep.
    """
    runs = []
    for name, options in given:
        for seed in seeds or (None,):
            parts = (name, "" if seed is None else f"seed-{seed}")
            called = "-".join(part for part in parts if part)
            own = {} if seed is None else {"seed": seed}
            place = {"out": out / called, "cache": options.get("cache", out / PIXELS)}
            words = words_of({**options, **own, **place})
            runs.append(Run(called, words, out / called, options.get("workers", 1)))
    return runs


def words_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words of `host-trainer train` with these options, by parameter name."""
    names = {"origin": "from"}
    pairs = [(f"--{names.get(name, name).replace('_', '-')}", str(value)) for name, value in options.items()]
    return ("train", *(word for pair in pairs for word in pair))


def check_sweep(out: Path, runs: Sequence[Run]) -> None:
    """Refuse a folder that holds something else than these runs.

    Raises:
        ConfigError: it does.
    """
    names = [run.name for run in runs]
    if len({*names}) < len(names):
        raise ConfigError("two runs of the same name: give each file and each seed once")
    if not out.exists():
        return
    known = {*names, PIXELS, COMPARISON}
    if not out.is_dir() or any(path.name not in known and path.name[0] != "." for path in out.iterdir()):
        raise ConfigError(f"{out} is there already and not of this sweep: choose another --out")


def run_all(
    runs: Sequence[Run], out: Path, engine: str, jobs: int, hear: Hear, stopped: Callable[[], bool]
) -> dict[str, Record]:
    """Run what is not finished, write a page that compares all, and return their records by name.

    Args:
        runs: what to run.
        out: folder of the sweep.
        engine: one of ENGINES; `ray` is the cluster that RAY_ADDRESS names, or this machine.
        jobs: processes at a time, of `processes`.
        hear: takes what the runs say, by lines.
        stopped: whether to let them save and end.

    Raises:
        ConfigError, EngineError: what a run ended with; the others ran to their ends.
        KeyboardInterrupt: it was stopped; all have saved.
    """
    check_sweep(out, runs)
    make_folder(out)
    carry_out([run for run in runs if not run.is_finished], engine, jobs, hear, stopped)
    records = {run.name: from_json((run.out / RECORD).read_text(encoding="utf-8")) for run in runs}
    write_file(out / COMPARISON, compare(records.values()).encode("utf-8"))
    return records


def check_engine(name: str) -> None:
    """Refuse an engine that there is not.

    Raises:
        ConfigError: it is none of ENGINES.
    """
    if name not in ENGINES:
        raise ConfigError(f"no engine {name!r}: give {' or '.join(ENGINES)}")


def carry_out(runs: Sequence[Run], engine: str, jobs: int, hear: Hear, stopped: Callable[[], bool]) -> None:
    """Run all to their ends; see `run_all` for the arguments and for what is raised."""
    ends = _on_ray(runs, hear, stopped) if engine == RAY else _in_processes(runs, jobs, hear, stopped)
    if STOPPED in (status for status, _ in ends.values()):
        raise KeyboardInterrupt
    for name, (status, line) in ends.items():
        if status:
            kind = ConfigError if status == ConfigError.exit_status else EngineError
            raise kind(f"{name}: {line.removeprefix('host-trainer: ') or f'it ended with status {status}'}")


Ends = dict[str, tuple[int, str]]  # by name: exit status, last line on standard error


def _in_processes(runs: Sequence[Run], jobs: int, hear: Hear, stopped: Callable[[], bool]) -> Ends:
    environment = {**os.environ, **shared_cores(jobs)}
    stop = Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_one_process, run, environment, hear, stop): run.name for run in runs}
        unfinished: set[Future[tuple[int, str]]] = set(futures)
        while unfinished:
            _, unfinished = wait(unfinished, POLL_S, FIRST_COMPLETED)
            if stopped():
                stop.set()
    return {name: future.result() for future, name in futures.items()}


def _one_process(run: Run, environment: Mapping[str, str], hear: Hear, stop: Event) -> tuple[int, str]:
    """Run one command to its end; on `stop` it is asked to save, and none begins."""
    if stop.is_set():
        return STOPPED, ""
    process = subprocess.Popen(
        [sys.executable, "-m", "host_trainer.cli", *run.words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process, which then asks each run once
    )
    with ThreadPoolExecutor(1) as reader:
        said = reader.submit(_heard, process, run.name, hear)
        while process.poll() is None:
            if stop.wait(POLL_S):
                process.send_signal(signal.SIGINT)
                break
        return process.wait(), said.result()


def _heard(process: subprocess.Popen[str], name: str, hear: Hear) -> str:
    line = ""
    assert process.stderr is not None
    with process.stderr as lines:
        for text in lines:
            line = text.strip()
            hear(f"{name}: {line}")
    return line


def _on_ray(runs: Sequence[Run], hear: Hear, stopped: Callable[[], bool]) -> Ends:
    ends: Ends = {}
    most = max((run.workers for run in runs), default=1)
    with ray_cluster(len(os.sched_getaffinity(0)), shared_cores(most)) as ray:
        _check_room(most, int(ray.cluster_resources().get("CPU", 0)))
        crews = {run.name: _crew(ray, run) for run in runs}
        unfinished = {crew.first: name for name, crew in crews.items()}
        asked = False
        while unfinished:
            done, _ = ray.wait(list(unfinished), timeout=POLL_S)
            for each in done:
                name = unfinished.pop(each)
                status, lines = ray.get(each)
                if crews[name].room is not None:
                    ray.util.remove_placement_group(crews[name].room)  # and with it who is still in it
                for line in lines:
                    hear(f"{name}: {line}")
                ends[name] = status, lines[-1] if lines else ""
            if stopped() and not asked:
                asked = True
                for each in unfinished:
                    ray.cancel(each)
    return ends


class _Crew(NamedTuple):
    """The task of a training that writes and speaks, and the cores that are held for all of its tasks."""

    first: Any
    room: Any = None


def _crew(ray: Any, run: Run) -> _Crew:
    """Start the tasks of one training, each a process whose memory and threads are its own.

    They get their cores all at once: of two crews with half of theirs each, neither would ever begin.
    """
    task = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(_member)
    if run.workers == 1:
        return _Crew(task.remote(run.words))
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    room = ray.util.placement_group([{"CPU": 1}] * run.workers)
    member = task.options(scheduling_strategy=PlacementGroupSchedulingStrategy(room))
    meeting = ray.remote(num_cpus=0)(Meeting).remote(run.workers)
    return _Crew([member.remote(run.words, meeting, index) for index in range(run.workers)][0], room)


def _check_room(workers: int, cores: int) -> None:
    if workers > cores:
        raise ConfigError(f"{workers} workers need a core each, and Ray has {cores}: give fewer --workers")


def _member(words: Sequence[str], meeting: Any = None, index: int = 0) -> tuple[int, list[str]]:
    """Run a command as one of those that share a training; see `_command`."""
    if meeting is not None:
        os.environ[TF_CONFIG] = joined(meeting, index)
    return _command(words)


def _command(words: Sequence[str]) -> tuple[int, list[str]]:
    """Run `host-trainer` in this process; return its exit status and what it said."""
    from host_trainer.cli import main

    said, before = io.StringIO(), sys.argv
    sys.argv = ["host-trainer", *words]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except KeyboardInterrupt:
        status = STOPPED
    finally:
        sys.argv = before
    return status, said.getvalue().splitlines()
