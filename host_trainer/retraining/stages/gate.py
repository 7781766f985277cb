"""Holds the bundle that was made against the one in use, on data of nobody and of each device."""

from pathlib import Path

import numpy as np

from edge_cl.learning.learner import EdgeLearner
from edge_cl.sample import label_key
from host_trainer.retraining import heads, samples
from host_trainer.retraining.assembly import opened
from host_trainer.retraining.gate import HELD_OUT, Cost, Evidence, judge
from host_trainer.retraining.job import BUNDLE, EXPORT, HEAD, INTAKE, Job
from host_trainer.retraining.runs import Facts, read_tensors
from host_trainer.retraining.samples import Samples
from host_trainer.retraining.stages.material import WHOLE, edits_of, incumbent, judged_by


def pass_judgement(job: Job, part: Path) -> Facts:
    """Leave the verdict."""
    made, exported, release = job.run.facts(BUNDLE), job.run.facts(EXPORT), job.incumbent
    edits = edits_of(job)
    candidate = opened((job.run.place(BUNDLE) / WHOLE).read_bytes(), job.options.head.learner)[1]
    before = incumbent(job, edits)
    evidence = []
    now, then = judged_by(job, edits), judged_by(job, edits, before=True)
    if now is not None and then is not None:
        evidence.append(_answers(now, then, before, candidate))
    evidence += _held_back(job, before)
    cost = Cost(made["whole_bytes"], exported["latency_ms"] if exported["is_new"] else 0.0)
    size_before = (job.fleet / release.whole).stat().st_size if release else 0
    cost_before = None if release is None else Cost(size_before, release.latency_ms)
    old = before.labels if before else ()
    return judge(evidence, old, candidate.labels, cost_before, cost, job.options.policy).to_dict()


def _answers(now: Samples, then: Samples, before: EdgeLearner | None, candidate: EdgeLearner) -> Evidence:
    """Return what both answer to the same pictures, each as its backbone sees them, of classes they know."""
    known = {label_key(each) for each in (*candidate.labels, *(before.labels if before else ()))}
    some = np.array([label_key(label) in known for label in now.labels], bool)
    first = None if before is None else heads.answers(before, then.at(some).features)
    return Evidence(HELD_OUT, now.at(some).labels, first, heads.answers(candidate, now.at(some).features))


def _held_back(job: Job, before: EdgeLearner | None) -> list[Evidence]:
    """Return what both answer to each device's samples that no residual trained on.

    The candidate's answers are those of a base without the sample; the incumbent never saw new ones.
    """
    found = job.run.facts(HEAD)["held_back"]
    if before is None or not found["devices"]:
        return []
    kept = samples.from_tensors(read_tensors(job.fleet / job.run.facts(INTAKE)["samples"]))
    keys = zip(kept.devices, kept.numbers.tolist(), strict=True)
    features = dict(zip(keys, kept.features, strict=True))
    rows = list(zip(*(found[name] for name in ("devices", "numbers", "truth", "answers")), strict=True))
    evidence = []
    for device in sorted(set(found["devices"])):
        own = [row for row in rows if row[0] == device and (device, row[1]) in features]
        if own:
            first = heads.answers(before, np.stack([features[device, number] for _, number, _, _ in own]))
            truth, now = tuple(row[2] for row in own), tuple(row[3] for row in own)
            evidence.append(Evidence(device, truth, first, now))
    return evidence
