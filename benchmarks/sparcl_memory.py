"""Memory of sparse training: what a training takes above an idle TensorFlow, and what its tensors take.

Each trial is a process of its own: two tasks of drawn pictures, two epochs of a few steps each, an evaluation
after each. On one thread DER++ holds one of its three forward passes at a time; on two, as `host-trainer`
trains on two cores, the passes overlap and it holds more, while edge mode has but one.

Above idle is the highest resident memory (VmHWM) less what the process held once TensorFlow, Keras and their
kernels were loaded and had run one small step; TensorFlow alone takes some 700 MB of this machine, which no
method can save. Tensors are the peak of TensorFlow's own allocator in a second process: weights, activations,
gradients, and nothing of the compiled graphs.

Resident memory moves by a third from run to run, for the system's allocator gives back what it likes.

Expected time on a slow core: 50 minutes.

    python benchmarks/sparcl_memory.py [--width 0.5 1] [--threads 1 2] [--write]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cifar
import ledger
import numpy as np

TRIALS = ("derpp", "cls-er", "edge-0.75", "edge-0.9", "edge-0.95")
MEMORY_SHARE = 0.6  # of edge 0.9 against dense DER++
STEPS, EPOCHS, PICTURES = 8, 2, 1000
ALLOCATOR = "TF_CPU_ALLOCATOR_USE_BFC"  # keeps count of what it gives out


def resident(name: str) -> int:
    """Return a figure of this process in bytes: VmRSS, VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    words = next(line.split() for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(words[1])


def run_trial(name: str, width: str) -> dict[str, int]:
    """Train a little, and return bytes: `idle`, `peak`, and of TensorFlow's allocator `tensors`."""
    import tensorflow as tf

    _warm_up()
    idle = resident("VmRSS")
    learner = learner_of(name, width, EPOCHS)
    for task in range(2):
        lesson = _lesson(2 * task)
        learner.begin_task(lesson)
        for epoch in range(EPOCHS):
            learner.begin_epoch(lesson, task, epoch)
            for at in range(STEPS):
                learner.step(lesson, learner.batch_of(lesson, task, epoch, at), task, at, at + 1 == STEPS)
        learner.answer(lesson.images[:500])
    tensors = tf.config.experimental.get_memory_info("CPU:0")["peak"] if ALLOCATOR in os.environ else 0
    return {"idle": idle, "peak": resident("VmHWM"), "tensors": int(tensors)}


def _warm_up() -> None:
    """Let the libraries load their kernels: a step of a network of one convolution."""
    import keras

    from host_trainer.training.gradients import open_stepper

    image = keras.Input((8, 8, 3))
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image)))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps))

    def loss(call: Any, batch: Any) -> Any:
        return keras.ops.mean(call(batch["images"], training=True)), {}

    stepper = open_stepper(model, keras.optimizers.SGD(0.1), loss)
    stepper.step({"images": np.zeros((2, 8, 8, 3), np.float32)})


def learner_of(name: str, width: str, epochs: int) -> Any:
    """Return the learner of ResNet-18 and ten classes by a method, or by edge mode at a sparsity."""
    from host_trainer.backbones.networks import build, parse_spec, with_head
    from host_trainer.network import Network
    from host_trainer.sparcl.learner import open_learner
    from host_trainer.sparcl.plan import make_plan
    from host_trainer.sparcl.schedule import Sparsity

    mode, _, sparsity = name.rpartition("-")
    rules = Sparsity(mode, float(sparsity)) if mode == "edge" else None
    plan = make_plan("sparcl-derpp" if rules else name, rules, epochs=epochs)
    model = with_head(build(parse_spec(f"resnet18:{width}/32")), 10)
    return open_learner(Network(model, tuple("abcdefghij")), plan)


def _lesson(first: int) -> Any:
    from host_trainer.sparcl.learner import Lesson

    rng, labels = np.random.default_rng(first), np.repeat(np.arange(first, first + 2), PICTURES)
    images = rng.integers(0, 255, (2 * PICTURES, *cifar.SIZE, 3), np.uint8)
    return Lesson(images, labels.astype(np.int32), np.arange(first, first + 2))


def measured(name: str, width: str, threads: int, runs: int) -> dict[str, float]:
    """Return MB above idle and of tensors: the median of some processes each."""
    kept = cifar.threads(threads)
    counted = {**kept, ALLOCATOR: "true"}
    above = [told["peak"] - told["idle"] for told in (_told(name, width, kept) for _ in range(runs))]
    tensors = [_told(name, width, counted)["tensors"] for _ in range(runs if threads > 1 else 1)]
    found = {"above": np.median(above) / 1e6, "tensors": np.median(tensors) / 1e6}
    each = [[round(one / 1e6) for one in sorted(some)] for some in (above, tensors)]
    print(f"{name}, width {width}, {threads} threads: above idle, tensors {each} MB", file=sys.stderr)
    return found


def _told(name: str, width: str, environment: dict[str, str]) -> dict[str, int]:
    words = [sys.executable, __file__, "--trial", name, width]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rows(width: str, threads: int, runs: int) -> list[ledger.Row]:
    """Hold every trial against dense DER++."""
    found = {name: measured(name, width, threads, runs) for name in TRIALS}
    told = []
    for kind, words in (("above", "resident above idle TensorFlow"), ("tensors", "tensors")):
        dense = found["derpp"][kind]
        for name, each in found.items():
            claim, note = f"width {width}, {name}: {words}, share of dense DER++'s", f" ({each[kind]:.0f} MB)"
            if name == "edge-0.9":
                told.append(ledger.at_most(claim, each[kind] / dense, MEMORY_SHARE, digits=2, note=note))
            else:
                told.append(ledger.Row(claim, f"{each[kind] / dense:.2f}{note}"))
    return told


def main() -> None:
    """Measure, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--width", nargs="+", default=["0.5", "1"], metavar="FACTOR")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="processes a figure (%(default)s)")
    parser.add_argument("--write", action="store_true", help="put the rows into the ledger")
    parser.add_argument("--trial", nargs=2, metavar=("NAME", "WIDTH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        print(json.dumps(run_trial(*args.trial)))
        return
    for threads in args.threads:
        told = [row for width in args.width for row in rows(width, threads, args.runs)]
        ledger.show(f"Memory of sparse training, ResNet-18, {threads} thread{'s' * (threads > 1)}", told)
        if args.write:
            command = f"python benchmarks/sparcl_memory.py --threads {threads} --width {' '.join(args.width)}"
            ledger.write(f"sparcl-memory-{threads}", command, ledger.rows_table(told))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
