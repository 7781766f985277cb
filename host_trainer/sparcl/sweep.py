"""Runs many trainings, each as the command that it is, in processes of this machine or as tasks of Ray.

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
from host_trainer.training.ray_cluster import ray_cluster
from host_trainer.training.session import PIXELS
from host_trainer.training.workers import shared_cores

ENGINES = ("processes", "ray")
COMPARISON = "comparison.html"
POLL_S = 0.3  # between two questions whether to stop
STOPPED = 130

Hear = Callable[[str], None]


class Run(NamedTuple):
    """One training: its name, its words behind `host-trainer`, and its folder."""

    name: str
    words: tuple[str, ...]
    out: Path

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
            runs.append(Run(called, words_of({**options, **own, **place}), out / called))
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
    waiting = [run for run in runs if not run.is_finished]
    if engine == "ray":
        ends = _on_ray(waiting, hear, stopped)
    else:
        ends = _in_processes(waiting, jobs, hear, stopped)
    if STOPPED in (status for status, _ in ends.values()):
        raise KeyboardInterrupt
    for name, (status, line) in ends.items():
        if status:
            kind = ConfigError if status == ConfigError.exit_status else EngineError
            raise kind(f"{name}: {line.removeprefix('host-trainer: ') or f'it ended with status {status}'}")
    records = {run.name: from_json((run.out / RECORD).read_text(encoding="utf-8")) for run in runs}
    write_file(out / COMPARISON, compare(records.values()).encode("utf-8"))
    return records


Ends = dict[str, tuple[int, str]]  # by name: exit status, last line on standard error


def _in_processes(runs: Sequence[Run], jobs: int, hear: Hear, stopped: Callable[[], bool]) -> Ends:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **shared_cores(jobs)}
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
    with ray_cluster(len(os.sched_getaffinity(0)), shared_cores(1)) as ray:
        # A process for each, whose memory and threads are its own.
        task = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(_command)
        unfinished = {task.remote(run.words): run.name for run in runs}
        asked = False
        while unfinished:
            done, _ = ray.wait(list(unfinished), timeout=POLL_S)
            for each in done:
                name = unfinished.pop(each)
                status, lines = ray.get(each)
                for line in lines:
                    hear(f"{name}: {line}")
                ends[name] = status, lines[-1] if lines else ""
            if stopped() and not asked:
                asked = True
                for each in unfinished:
                    ray.cancel(each)
    return ends


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
