"""Installing a release: how long it takes, the memory it needs, and what a probation costs an answer.

A device with the shipped backbone is taught TrashNet photographs, PICTURES of each of three classes; a host
knows the other three. A release of all six, which holds what the device has told, is installed.

- Time from file to probation, by state, and the peak memory of the process that installs and of its child.
- The peak memory of teaching as many photographs again, for comparison.
- What an answer takes on probation, where each is marked, beside one without; the median of ANSWERS.
- Accuracy on unseen photographs of what runs and of the release, on the classes taught here and on all.

Each part runs in a process of its own. Expected time: 2 minutes on one core.

    python benchmarks/installation.py [--write]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ledger
import numpy as np
import photographs
from ledger import Row

from edge_cl.device import shipped
from edge_cl.device.folders import from_files
from edge_cl.device.installation.installation import Installation
from edge_cl.device.installation.states import PROBATION
from edge_cl.device.opening import open_agent
from edge_cl.learning import increment, named
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named
from edge_cl.learning.snapshot import names, of_names
from edge_cl.learning.statistics import Statistics
from edge_cl.resident import peak_resident_bytes
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.frames import read_image
from edge_cl.vision.preprocess import prepare, views
from edge_cl.wire.bundle import Gates
from edge_cl.wire.release import Board, Facts
from edge_cl.wire.tensors import pack, unpack
from host_trainer.export import golden
from host_trainer.retraining.assembly import Budgets, Ingredients, Label, input_of, manifest_id, whole
from host_trainer.retraining.samples import Samples

PICTURES, ASKED = 60, 30  # of a class
VIEWS = 4
ANSWERS = 40
TOLD = "a" * 64  # id of what the device has told
NOW = datetime(2026, 11, 30, tzinfo=timezone.utc)
BOARD = Board(("cpu",), "0.1.0")
CLI = (sys.executable, "-m", "edge_cl.cli")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the rows into RESULTS.md")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part[0]](*map(Path, options.part[1:]))))
        return
    most = {"train": PICTURES, "test": ASKED}
    with photographs.unpacked("trashnet", most) as folder, tempfile.TemporaryDirectory() as place:
        lines = rows(folder, Path(place))
    ledger.show("Installation", lines)
    if options.write:
        ledger.write("installation", "python benchmarks/installation.py", ledger.rows_table(lines))


def rows(folder: Path, place: Path) -> list[Row]:
    """Measure everything."""
    state, release = place / "state", place / "release"
    labels = sorted(path.name for path in (folder / "train").iterdir())
    run("init", "--state", state)
    for label in labels[:3]:
        run("learn", "--label", label, *sorted((folder / "train" / label).iterdir()), "--state", state)
    learning = part("teach", state, folder)
    made = part("publish", state, folder, release)
    before = part("ask", state, folder)
    found = part("install", state, release)
    after = part("ask", state, folder)
    own = f" ({len(labels[:3])} of {len(labels)} classes)"
    return [
        Row("release", f"{made['bytes'] / 1e6:.2f} MB"),
        Row(f"from file to probation, {3 * PICTURES} photographs in memory", f"{found['total_s']:.1f} s"),
        *(Row(f"of it {name}", f"{seconds:.1f} s") for name, seconds in found["states"].items()),
        Row("peak memory of the installation", f"{found['peak_mb']:.0f} MB"),
        Row("peak memory of its child", f"{found['child_mb']:.0f} MB"),
        Row("peak memory of teaching", f"{learning['peak_mb']:.0f} MB"),
        Row("an answer, inference included", f"{before['answer_ms']:.1f} ms"),
        Row("the same on probation", f"{after['answer_ms']:.1f} ms"),
        Row(f"accuracy before, on what was taught here{own}", f"{before['own']:.3f}"),
        Row("the same under the release", f"{after['own']:.3f}"),
        Row("accuracy before, on all classes", f"{before['all']:.3f}"),
        Row("the same under the release", f"{after['all']:.3f}"),
    ]


def run(*words: object) -> None:
    """Run `edge-cl`."""
    subprocess.run([*CLI, *map(str, words)], check=True, capture_output=True)


def part(*words: object) -> dict[str, Any]:
    """Run one part of this script in a process of its own."""
    command = [sys.executable, __file__, "--part", *map(str, words)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def teach(state: Path, folder: Path) -> dict[str, Any]:
    """Teach one photograph more, and return the peak memory."""
    label, path = "another", sorted((folder / "test").glob("*/*"))[0]
    with open_agent(state, with_backbone=True) as agent:
        agent.teach(from_files(label, [path]).pictures)
        agent.forget(label=label)
    return {"peak_mb": peak_mb()}


def publish(state: Path, folder: Path, release: Path) -> dict[str, Any]:
    """Make a release of what the device knows, as it would tell it, and of three classes more."""
    with open_agent(state, read_only=True) as agent:
        own = Named(agent.learner.labels, agent.learner.own_statistics())
    nothing = named.nothing(own.statistics.sums.shape[1])
    rank = increment.affordable_rank(increment.ROUND_BYTES, own.statistics.sums.shape[1])
    more = increment.compress(own.statistics, named.on(nothing, own.labels), rank)
    told = named.grown(nothing, own.labels, more)
    release.with_suffix(".told").write_bytes(
        pack({"labels": of_names(told.labels), **_arrays(told.statistics)})
    )
    file = shipped.named_or_shipped(None)
    with open_backbone(file) as backbone:
        theirs = [path.name for path in sorted((folder / "train").iterdir()) if path.name not in own.labels]
        paths = [path for label in theirs for path in sorted((folder / "train" / label).iterdir())]
        shown = [views(read_image(path), VIEWS, backbone.input_size, backbone.policy) for path in paths]
        features = np.stack([backbone.embed_many(each) for each in shown])
        pictures = np.stack([prepare(read_image(p), backbone.input_size, backbone.policy) for p in paths[:8]])
        kept, taken, space = golden.record(backbone, pictures), input_of(backbone.manifest()), backbone.space
    learner, spoken = EdgeLearner(space), tuple(path.parent.name for path in paths)
    learner.learn_many(features, spoken)
    learner.consolidate()
    for label in told.labels:
        learner.add_class(label)
    learner.base.absorb(named.on(told, learner.labels))
    learner.base.refresh(learner.base.shrinkage)
    samples = Samples(features, spoken, ("",) * len(spoken), np.arange(1, len(spoken) + 1))
    label = Label("waste", Facts(1, ("any",), "0.1.0", ""), 0, Gates(0, 20, 4, 990, 0, 0), "benchmark")
    data = whole(Ingredients(learner, file.read_bytes(), kept, samples, taken), label, Budgets())
    release.write_bytes(data)
    return {"bytes": len(data)}


def install(state: Path, release: Path) -> dict[str, Any]:
    """Install the release, and return what each state took."""
    installation, times = Installation(state, BOARD, lambda _: _told(release.with_suffix(".told"))), {}
    start = time.perf_counter()
    installation.consider(release, manifest_id(release.read_bytes()), TOLD, NOW)
    times["verify"] = time.perf_counter() - start
    record = installation.standing()
    while record.state != PROBATION:
        begun, at = time.perf_counter(), record.state
        record = installation._step(record, NOW)
        times[at] = time.perf_counter() - begun
        if record.reason:
            raise SystemExit(record.reason)
    total, child = time.perf_counter() - start, record.facts["memory_kb"] / 1000
    return {"states": times, "total_s": total, "peak_mb": peak_mb(), "child_mb": child}


def _arrays(statistics: Statistics) -> dict[str, Any]:
    residue = np.array([statistics.residue], np.int64)
    return {**statistics._asdict(), "residue": residue}


def _told(file: Path) -> Named:
    """Return what the device has told; read when it is asked for, as from an outbox."""
    tensors = unpack(file.read_bytes())[0]
    residue = int(tensors["residue"][0])
    return Named(names(tensors), Statistics(tensors["counts"], tensors["sums"], tensors["moment"], residue))


def ask(state: Path, folder: Path) -> dict[str, Any]:
    """Ask about the test photographs."""
    pictures, right, times = sorted((folder / "test").glob("*/*")), [], []
    taught = {path.name for path in sorted((folder / "train").iterdir())[:3]}
    with open_agent(state, with_backbone=True, read_only=True) as agent:
        for path in pictures:
            start = time.perf_counter()
            right.append(agent.answer(path).best == path.parent.name)
            times.append(time.perf_counter() - start)
    own = [hit for hit, path in zip(right, pictures, strict=True) if path.parent.name in taught]
    answer_ms = 1000 * statistics.median(times[:ANSWERS])
    return {"answer_ms": answer_ms, "own": float(np.mean(own)), "all": float(np.mean(right))}


def peak_mb() -> float:
    """Return the most memory that this process had resident."""
    return peak_resident_bytes() / 1e6


PARTS = {"teach": teach, "publish": publish, "install": install, "ask": ask}

if __name__ == "__main__":
    main()
