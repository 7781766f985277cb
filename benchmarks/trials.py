"""Runs learners through the data sets, as `edge-cl eval` does, and remembers what came of each trial.

A trial is known by its settings and by a hash of the code that it exercises: what was measured with other
code is measured anew. So the scripts share trials, and one that was stopped goes on where it was.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import photographs

import edge_cl
from edge_cl.commands.evaluate import base_scores, default_cache
from edge_cl.commands.terminal import Progress
from edge_cl.evaluation import metrics
from edge_cl.evaluation.protocols import Noise, class_incremental, wrong_labels
from edge_cl.evaluation.trial import Trial, TrialConfig, answers, run_trial
from edge_cl.learning.learner import EdgeLearner, LearnerConfig
from edge_cl.learning.peers import PEERS, PeerConfig
from edge_cl.sample import FeatureSpace

DENSITY = 0.10  # of the edge learner, in every benchmark that does not say otherwise
MEMORY_NAME = "trials.jsonl"
LONGEST_FIRST = ("joint", "edge", "replay")  # so that two workers end at about the same time

Outcome = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One trial: who learns which set, in which order of classes, and how.

    Attributes:
        set: a key of photographs.SETS.
        learner: "edge" or a peer.
        seed: of the order of classes and samples, and of the learner.
        views: of each picture that are taught.
        noise: share of training labels made wrong.
        lam: chance that a place in a batch is old; None for the learner's own.
        steps: SGD steps after each update; None for the learner's own.
        options: fields of LearnerConfig that differ, as JSON.
        network: fields of ResidualConfig that differ, as JSON.
    """

    set: str
    learner: str
    seed: int
    views: int = 4
    noise: float = 0.0
    lam: float | None = None
    steps: int | None = None
    options: str = "{}"
    network: str = "{}"

    def key(self) -> str:
        """Return what an outcome is remembered under."""
        return json.dumps([*dataclasses.astuple(self), code_hash(self.learner == "edge")])


def add_options(parser: argparse.ArgumentParser, seeds: int) -> None:
    """Add the options of every script that runs trials."""
    parser.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help="orders of classes (%(default)s)"
    )
    parser.add_argument("--sets", nargs="+", choices=photographs.SETS, default=list(photographs.SETS))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at a time (%(default)s)")
    parser.add_argument("--cache", type=Path, default=default_cache().parent, metavar="DIR",
                        help="features and trials already run (%(default)s)")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="put plots and rows into the ledger")


def run(jobs: Iterable[Job], args: argparse.Namespace) -> dict[Job, Outcome]:
    """Return the outcome of every job; those that are remembered are not run again."""
    wanted = list(dict.fromkeys(jobs))
    memory = args.cache / MEMORY_NAME
    found = dict(_remembered(wanted, memory))
    missing = sorted((job for job in wanted if job not in found), key=_rank)
    if not missing:
        return found
    data = {name: photographs.load(name, args.cache) for name in sorted({job.set for job in missing})}
    with Progress(len(wanted)) as bar, memory.open("a", encoding="utf-8") as file:
        for job, outcome in _outcomes(missing, data, args.jobs):
            found[job] = outcome
            file.write(json.dumps([job.key(), outcome]) + "\n")
            file.flush()
            bar.show(len(found), f"{job.learner} on {job.set}, seed {job.seed}: {outcome['final']['1']:.3f}")
    return found


def _outcomes(
    jobs: Sequence[Job], data: dict[str, photographs.Photographs], count: int
) -> Iterator[tuple[Job, Outcome]]:
    if count == 1:
        yield from ((job, try_out(job, data[job.set])) for job in jobs)
        return
    context = multiprocessing.get_context("fork")  # the features are shared, not copied
    with ProcessPoolExecutor(count, mp_context=context, initializer=_take_data, initargs=(data,)) as pool:
        futures = {pool.submit(_try_shared, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()


_DATA: dict[str, photographs.Photographs] = {}  # of a worker


def _take_data(data: dict[str, photographs.Photographs]) -> None:
    _DATA.update(data)


def _try_shared(job: Job) -> Outcome:
    return try_out(job, _DATA[job.set])


def try_out(job: Job, data: photographs.Photographs) -> Outcome:
    """Run one trial and return its figures, all of them plain numbers."""
    plan = class_incremental(data.train, data.test, photographs.SETS[job.set].tasks, job.seed)
    noise = wrong_labels(data.train.labels, plan, job.noise, job.seed)
    learner = make_learner(job, data.space)
    steps = learner.config.steps_per_update if job.steps is None else job.steps
    config = TrialConfig(views=job.views, steps_per_update=steps)
    start = time.perf_counter()
    taught = data.train._replace(labels=noise.labels)
    trial = run_trial(learner, plan, taught, data.test, config, time.perf_counter)
    found = {
        "per_task": list(trial.accuracy_per_task),
        "final": {str(views): value for views, value in trial.final_by_views.items()},
        "forgetting": metrics.forgetting(trial.matrix),
        "seconds": time.perf_counter() - start,
        "chosen": getattr(learner, "chosen", ""),
    }
    if isinstance(learner, EdgeLearner):
        found |= {"base": _base_alone(learner, data), "gate": learner.gate, "density": learner.density()}
        found |= _audit(learner, trial, noise)
        found["ungated"] = _ungated(learner, data)
    return found


def make_learner(job: Job, space: FeatureSpace) -> Any:
    """Return the learner of a job."""
    if job.learner != "edge":
        return PEERS[job.learner](space, PeerConfig(views=job.views, lam=job.lam, seed=job.seed))
    values: dict[str, Any] = {"seed": job.seed, "views": job.views, **json.loads(job.options)}
    if job.lam is not None:
        values["lam"] = job.lam
    return EdgeLearner(
        space, LearnerConfig.from_dict({**values, "network": {"density": DENSITY, **json.loads(job.network)}})
    )


def _base_alone(learner: EdgeLearner, data: photographs.Photographs) -> dict[str, float]:
    """Return what its base alone answers right, by the number of views averaged."""
    score = base_scores(learner)
    found = {}
    for views in range(1, photographs.VIEWS + 1):
        answered = answers(learner.labels, score(data.test.features[:, :views]))
        found[str(views)] = metrics.accuracy(answered, data.test.labels)
    return found


def _ungated(learner: EdgeLearner, data: photographs.Photographs) -> float:
    """Return the final accuracy with the whole residual added, whatever the gate says."""
    gate, learner.gate = learner.gate, 1.0
    found = answers(learner.labels, learner.scores_many(data.test.features[:, :1]))
    learner.gate = gate
    return metrics.accuracy(found, data.test.labels)


def _audit(learner: EdgeLearner, trial: Trial, noise: Noise) -> Outcome:
    arrival = np.concatenate(trial.updates)  # sample id 1 is its first entry
    suspects = [int(arrival[suspect.sample - 1]) for suspect in learner.suspects()]
    live = [int(arrival[sample - 1]) for sample in learner.live_samples()]
    both = sorted({*suspects} & {*live})  # a suspect stays listed after it has left the memory
    return {
        "suspects": len(suspects),
        "suspects_wrong": int(noise.wrong[suspects].sum()),
        "wrong": int(noise.wrong.sum()),
        "wrong_live": int(noise.wrong[live].sum()),
        "suspects_wrong_live": int(noise.wrong[both].sum()),
    }


@functools.cache
def code_hash(is_edge: bool) -> str:
    """Return a hash of the code a trial depends on: all of learning for the edge learner, its peers' else."""
    root = Path(edge_cl.__file__).parent
    places = ["evaluation/*.py", "learning/peers/*.py", "learning/embedding.py", "vision/preprocess.py"]
    places += ["learning/*.py", "memory/buffer.py"] if is_edge else []
    digest = hashlib.sha256()
    for path in sorted({path for place in places for path in root.glob(place)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _remembered(jobs: Sequence[Job], memory: Path) -> Iterator[tuple[Job, Outcome]]:
    if not memory.exists():
        return
    keys = {job.key(): job for job in jobs}
    for line in memory.read_text(encoding="utf-8").splitlines():
        key, outcome = json.loads(line)
        if key in keys:
            yield keys[key], outcome


def _rank(job: Job) -> tuple[int, str]:
    place = LONGEST_FIRST.index(job.learner) if job.learner in LONGEST_FIRST else len(LONGEST_FIRST)
    return place, job.set


def mean(values: Iterable[float]) -> float:
    """Return the mean of numbers."""
    return float(np.mean(list(values)))


def spread(values: Iterable[float]) -> float:
    """Return the standard deviation of a sample, 0 of a single number."""
    found = list(values)
    return float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
