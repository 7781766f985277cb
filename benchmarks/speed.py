"""Speed: what learning costs beside looking; ratios within one run, one thread, medians.

Claims:
- the base takes in one sample (D = 1024) in under 1 ms and 0.2 of one MobileNetV1 1.0/224 int8 inference;
- a step of the residual takes at most 0.30 of the dense step at density 0.10, 0.25 at 0.05;
- the prediction head answers in under 0.1 ms;
- `edge-cl learn DIR` spends under 20 % of its wall time outside image decoding, inference and storing.

Method: things compared take turns in one loop, so that a busy machine slows both; what is counted is the
processor time of this thread, not the time others had it (a busy machine still takes the caches away). The
dense step is the same network with the same loss, momentum, L2 and moving average, written by hand for
numpy, every array changed in place. The base's median leaves out its folds (a matrix product every 32 rows);
its mean has them. The head is that of a taught learner with its residual in use. The share outside is taken
from the start to the end of the process; resizing to the backbone's input and interpreter start-up count as
outside.

Expected time: 2 minutes.

    python benchmarks/speed.py [--write]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ledger
import numpy as np
import photographs
from ledger import Row, at_most
from numpy.typing import NDArray

from edge_cl.learning import residual as mlp
from edge_cl.learning.base import Base
from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.learner import EdgeLearner, LearnerConfig
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import open_backbone

SIZE, CLASSES, BATCH = 1024, 10, 32
ROUNDS = 200  # turns of what is compared
TAUGHT = 40  # samples a class, before anything is timed
LEARNED = "packages"  # for `edge-cl learn`: 964 photographs, as many as the rehearsal memory holds

Floats = NDArray[np.float32]


def take_turns(rounds: int, **calls: Callable[[], Any]) -> dict[str, NDArray[np.float64]]:
    """Call each in turn and return its processor milliseconds (rounds,); two rounds before do not count."""
    times = np.zeros((rounds + 2, len(calls)))
    for turn in times:
        for column, call in enumerate(calls.values()):
            start = time.thread_time()
            call()
            turn[column] = 1000 * (time.thread_time() - start)
    return dict(zip(calls, times[2:].T, strict=True))


def clusters(rng: np.random.Generator, count: int, views: int) -> tuple[NDArray[np.uint8], NDArray]:
    """Return stored features (n, V, D) about as sparse as MobileNet's, and their classes (n,)."""
    centres = rng.gamma(0.5, 40.0, (CLASSES, SIZE))
    classes = np.arange(count) % CLASSES
    features = centres[classes][:, None] * rng.gamma(2.0, 0.5, (count, views, SIZE))
    return features.clip(0, 255).astype(np.uint8), classes


def base_update() -> list[Row]:
    """Time the base beside an inference."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (224, 224, 3)).astype(np.uint8)
    rows = []
    with open_backbone(photographs.extractor(), num_threads=1) as backbone:
        for views in (1, photographs.VIEWS):
            features, classes = clusters(rng, CLASSES * TAUGHT + ROUNDS + 2, views)
            embedded = embed(features, 0)
            base = Base(SIZE)
            for _ in range(CLASSES):
                base.add_class()
            for sample, number in zip(embedded[: CLASSES * TAUGHT], classes, strict=False):
                base.update(sample, int(number))
            base.refresh(0.2)
            coming = zip(embedded[CLASSES * TAUGHT :], classes[CLASSES * TAUGHT :], strict=True)
            found = take_turns(
                ROUNDS,
                update=partial(_take_in_next, base, coming),
                inference=lambda: backbone.embed(pixels),
            )
            update, inference = float(np.median(found["update"])), float(np.median(found["inference"]))
            words = f"base takes in a sample, {views} view{'s' if views > 1 else ''}"
            rows.append(at_most(f"{words}, median", update, 1.0, "ms"))
            rows.append(at_most(f"{words}, part of one inference", update / inference, 0.2))
            rows.append(Row(f"{words}, mean (folds included)", f"{found['update'].mean():.3f} ms"))
    return [*rows, Row("one MobileNetV1 1.0/224 int8 inference, median", f"{inference:.2f} ms")]


def _take_in_next(base: Base, coming: Iterator[tuple[NDArray, int]]) -> None:
    base.update(*next(coming))


class Dense:
    """The residual's network without its mask, as fast as numpy does it: no array is allocated twice."""

    def __init__(self, config: mlp.ResidualConfig, rng: np.random.Generator) -> None:
        self.config, self.steps = config, 0
        shapes = ((SIZE, config.hidden), (config.hidden,), (config.hidden, CLASSES))
        self.weights = [rng.standard_normal(shape).astype(np.float32) * np.float32(0.05) for shape in shapes]
        self.speeds = [np.zeros_like(array) for array in self.weights]
        self.averages = [array.copy() for array in self.weights]
        self.slopes = [np.empty_like(array) for array in self.weights]
        self.scratch = [np.empty_like(array) for array in self.weights]

    def step(self, inputs: Floats, offsets: Floats, classes: NDArray) -> None:
        """Make one step: momentum, L2 on the matrices, moving average."""
        first, bias, second = self.weights
        hidden = inputs @ first
        hidden += bias
        np.maximum(hidden, 0.0, out=hidden)
        errors = hidden @ second
        errors += offsets
        errors -= errors.max(axis=1, keepdims=True)
        np.exp(errors, out=errors)
        errors /= errors.sum(axis=1, keepdims=True)
        errors[np.arange(len(classes)), classes] -= 1.0
        errors /= np.float32(len(classes))
        back = errors @ second.T
        back *= hidden > 0
        np.matmul(inputs.T, back, out=self.slopes[0])
        np.sum(back, axis=0, out=self.slopes[1])
        np.matmul(hidden.T, errors, out=self.slopes[2])
        self._descend()

    def _descend(self) -> None:
        rate, momentum = np.float32(self.config.rate), np.float32(self.config.momentum)
        follow = np.float32(1.0 - min(self.config.average, (1 + self.steps) / (10 + self.steps)))
        self.steps += 1
        parts = zip(self.weights, self.speeds, self.averages, self.slopes, self.scratch, strict=True)
        for weights, speed, average, slope, scratch in parts:
            if weights.ndim == 2:
                np.multiply(weights, np.float32(self.config.decay), out=scratch)
                slope += scratch
            slope *= rate
            speed *= momentum
            speed -= slope
            weights += speed
            np.subtract(weights, average, out=scratch)
            scratch *= follow
            average += scratch


class Sparse:
    """The residual at one density, after a first adjustment of its mask: 80 % of the blocks move."""

    def __init__(self, density: float, rng: np.random.Generator) -> None:
        self.config = mlp.ResidualConfig(density=density)
        state = mlp.create(SIZE, self.config, 0)
        for _ in range(CLASSES):
            state = mlp.add_class(state)
        slopes = rng.standard_normal(state.weights.first.shape).astype(np.float32)
        self.state = mlp.adjust(state, slopes, slopes, self.config, rng)

    def step(self, inputs: Floats, offsets: Floats, classes: NDArray) -> None:
        """Make one step."""
        self.state, _ = mlp.step(self.state, inputs, offsets, classes, self.config)


def residual_step() -> list[Row]:
    """Time a sparse step beside the dense one."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((BATCH, SIZE)).astype(np.float32)
    offsets = rng.standard_normal((BATCH, CLASSES)).astype(np.float32)
    batch = (inputs, offsets, rng.integers(CLASSES, size=BATCH))
    dense, tenth, twentieth = Dense(mlp.ResidualConfig(), rng), Sparse(0.10, rng), Sparse(0.05, rng)
    found = take_turns(
        3 * ROUNDS,
        dense=lambda: dense.step(*batch),
        tenth=lambda: tenth.step(*batch),
        twentieth=lambda: twentieth.step(*batch),
    )
    whole, ten, twenty = (float(np.median(found[name])) for name in ("dense", "tenth", "twentieth"))
    return [
        at_most("residual step, density 0.10, part of the dense step", ten / whole, 0.30),
        at_most("residual step, density 0.05, part of the dense step", twenty / whole, 0.25),
        Row("dense, 0.10, 0.05", f"{whole:.3f}, {ten:.3f}, {twenty:.3f} ms"),
    ]


def prediction_head() -> list[Row]:
    """Time the answer to one picture's features, and its parts."""
    rng = np.random.default_rng(2)
    learner = EdgeLearner(FeatureSpace("speed", SIZE, "uint8", 0.02, 0), LearnerConfig())
    features, classes = clusters(rng, CLASSES * TAUGHT, photographs.VIEWS)
    learner.learn_many(features, [f"class {number}" for number in classes])
    learner.consolidate()
    learner.gate = max(learner.gate, 0.5)  # the residual answers too, whatever the gate thinks of these data
    asked = features[0, :1]
    row = embed(asked, 0)
    inputs = (row * (np.sqrt(SIZE) / UNIT)).astype(np.float32)
    best = np.zeros(1, np.intp)
    found = take_turns(
        5 * ROUNDS,
        whole=lambda: learner.predict_one(asked),
        embedding=lambda: embed(asked, 0),
        base=lambda: learner.base.scores(row),
        residual=lambda: mlp.forward(learner.residual, inputs),
        familiarity=lambda: learner.base.sketched_distance(row[None], best),
    )
    parts = {name: float(np.median(times)) for name, times in found.items()}
    whole = parts.pop("whole")
    shown = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
    return [at_most("prediction head, one view", whole, 0.1, "ms"), Row("its parts", f"{shown} ms")]


class Learned(NamedTuple):
    """What `edge-cl learn` said of itself, and how long its process took."""

    said: dict[str, Any]
    wall_ms: float


def learn(folder: Path, state: Path) -> Learned:
    """Run `edge-cl init` and `edge-cl learn` as processes of their own."""
    command = [sys.executable, "-m", "edge_cl.cli"]
    made = [*command, "init", "--backbone", str(photographs.extractor()), "--state", str(state), "--json"]
    subprocess.run(made, check=True, capture_output=True)
    start = time.perf_counter()
    said = subprocess.run(
        [*command, "learn", str(folder), "--state", str(state), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return Learned(json.loads(said.stdout), 1000 * (time.perf_counter() - start))


def learn_share() -> list[Row]:
    """Return which share of `edge-cl learn DIR` is neither decoding, nor inference, nor storing."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="edge-cl-") as state:  # a real file system
        with photographs.unpacked(LEARNED) as folder:
            found = learn(folder, Path(state) / "state")
    timings = found.said["timings"]
    inside = timings["decode_ms"] + timings["embed_ms"] + timings["store_ms"]
    parts = {name.removesuffix("_ms"): value for name, value in timings.items() if name != "total_ms"}
    parts["start-up"] = found.wall_ms - timings["total_ms"]
    parts["other"] = parts.pop("other")
    shown = ", ".join(f"{name} {100 * value / found.wall_ms:.0f}" for name, value in parts.items())
    count = found.said["learned"]
    return [
        at_most(f"`edge-cl learn DIR`, {count} photographs: share outside", 1 - inside / found.wall_ms, 0.20),
        Row("where its time goes, per cent", shown),
        Row("a photograph, all in all", f"{found.wall_ms / count:.1f} ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the rows into the ledger")
    args = parser.parse_args()
    photographs.extractor()
    rows = [*base_update(), *residual_step(), *prediction_head(), *learn_share()]
    ledger.show("speed, one thread", rows)
    if args.write:
        ledger.write("speed", "python benchmarks/speed.py --write", ledger.rows_table(rows))


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
