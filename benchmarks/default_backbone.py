"""Claim: the backbone that ships was trained by us, is small and quick, and beats MobileNetV1 0.25/128.

Without options, measures `models/mobilenetv2_035_96.tflite` beside two of Google's ImageNet networks: final
accuracy by `edge-cl eval` (the edge learner, class-incremental), latency on one thread in turns, and size.

With `--make FOLDER`, trains it first, as it was trained: the training parts of TrashNet, Sign digits and
Grocery packages (eight views each) and 1,000 pictures of each class of CIFAR-10, without their labels,
taught by the 1,024 features of MobileNetV1 1.0/224. First at 64 px, for speed, then twice at 96 px from
those weights; then int8 by `host-trainer export`. No test picture is seen, no pre-trained weight is used
but the teacher's answers.

Expected: measuring 20 minutes, making 2 hours on one core.

    python benchmarks/default_backbone.py --write
    python benchmarks/default_backbone.py --make /path/to/an/empty/folder
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import ledger
import numpy as np
import photographs

from edge_cl.commands.dataset import opened_at_embedding

MODELS = photographs.CHECKOUT / "models"
SHIPPED = MODELS / "mobilenetv2_035_96.tflite"
RIVALS = {
    "MobileNetV1 0.25/128 (Google, ImageNet)": "models/coral/mobilenet_v1_0.25_128_quant.tflite",
    "MobileNetV1 0.5/160 (Google, ImageNet)": "models/coral/mobilenet_v1_0.5_160_quant.tflite",
}
OURS = "ours, MobileNetV2 0.35/96"
MOST_BYTES = 800_000
TURNS, RUNS = 9, 40  # of the latency: turns of each file, and inferences of a turn
VIEWS, CIFAR_A_CLASS = 8, 1000
CIFAR = "cifar10_jpeg_dev/cifar10_jpeg_dev.npz"
FIRST = ("--network", "mobilenetv2:0.35/64", "--epochs", "6", "--rate", "3e-3", "--save-every", "400")
FIRST_STEPS = 2800  # of 4,464: then Ctrl-C, and its last checkpoint is the start of the second
SECOND = ("--network", "mobilenetv2:0.35/96", "--epochs", "5", "--rate", "2e-3", "--save-every", "300")
THIRD = ("--network", "mobilenetv2:0.35/96", "--epochs", "3.6", "--rate", "1.5e-3", "--save-every", "300")


class Measured(NamedTuple):
    """One backbone: final accuracy by (set, learner), milliseconds an inference, and bytes."""

    accuracy: dict[tuple[str, str], float]
    latency_ms: float
    size_bytes: int

    def mean(self, learner: str) -> float:
        """Return the mean accuracy over the sets."""
        return statistics.mean(value for (_, who), value in self.accuracy.items() if who == learner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the rows into RESULTS.md")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="train it anew in this folder")
    parser.add_argument("--backbone", type=Path, default=SHIPPED, metavar="FILE", help="measure this file")
    parser.add_argument("--learners", default="edge", help="of `edge-cl eval`, such as edge,joint")
    args = parser.parse_args()
    if args.make:
        print(f"made {make(args.make)}")
        return
    files = {OURS: args.backbone, **{k: photographs.data_folder() / v for k, v in RIVALS.items()}}
    learners = tuple(args.learners.split(","))
    found = measure(files, learners)
    lines = [*accuracy_table(found, learners), "", *ledger.rows_table(rows(found, learners))]
    print("\n".join(lines))
    if args.write:
        ledger.write("default_backbone", "python benchmarks/default_backbone.py --write", lines)


def measure(files: dict[str, Path], learners: tuple[str, ...]) -> dict[str, Measured]:
    """Evaluate every file on every set, and time them in turns."""
    accuracies: dict[str, dict[tuple[str, str], float]] = {name: {} for name in files}
    for key, each in photographs.SETS.items():
        with photographs.unpacked(key) as folder:
            for name, file in files.items():
                for learner in learners:
                    accuracies[name][key, learner] = evaluated(file, folder, each.tasks, learner)
                    print(
                        f"{each.title}, {learner}, {name}: {accuracies[name][key, learner]:.3f}", flush=True
                    )
    latencies = latencies_ms(files)
    return {
        name: Measured(accuracies[name], latencies[name], file.stat().st_size) for name, file in files.items()
    }


def evaluated(file: Path, folder: Path, tasks: int, learner: str) -> float:
    """Return the final accuracy that `edge-cl eval` prints."""
    words = [
        "--backbone",
        file,
        "--data",
        folder,
        "--tasks",
        tasks,
        "--learner",
        learner,
        "--seed",
        0,
        "--json",
    ]
    command = [sys.executable, "-m", "edge_cl.cli", "eval", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"edge-cl eval: {done.stderr.strip()}")
    return float(json.loads(done.stdout)["final_accuracy"])


def latencies_ms(files: dict[str, Path], turns: int = TURNS, runs: int = RUNS) -> dict[str, float]:
    """Return the median milliseconds of a feature, on one thread, the files taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(turns):
        for name, file in files.items():
            with opened_at_embedding(file, 1) as backbone:
                pixels = np.zeros((*backbone.input_size, 3), np.uint8)
                backbone.embed(pixels)
                for _ in range(runs):
                    start = time.perf_counter()
                    backbone.embed(pixels)
                    spent[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in spent.items()}


def accuracy_table(found: dict[str, Measured], learners: tuple[str, ...]) -> list[str]:
    """Return one line a backbone: accuracy by set and learner, latency, size."""
    sets = photographs.SETS
    columns = [
        "backbone",
        *(f"{each.title}, {who}" for who in learners for each in sets.values()),
        "ms",
        "KB",
    ]
    lines = [
        [
            name,
            *(f"{one.accuracy[key, who]:.3f}" for who in learners for key in sets),
            f"{one.latency_ms:.2f}",
            f"{one.size_bytes / 1e3:.0f}",
        ]
        for name, one in found.items()
    ]
    return ledger.table(columns, lines)


def rows(found: dict[str, Measured], learners: tuple[str, ...]) -> list[ledger.Row]:
    """Hold ours against its rivals."""
    ours, (quick, better) = found[OURS], [found[name] for name in RIVALS]
    held = []
    for who in learners:
        held.append(
            ledger.at_least(
                f"mean accuracy above MobileNetV1 0.25/128, {who}", ours.mean(who) - quick.mean(who), 0
            )
        )
        held.append(
            ledger.Row(
                f"... above MobileNetV1 0.5/160, {who} (aim)", f"{ours.mean(who) - better.mean(who):+.3f}"
            )
        )
    ratio = ours.latency_ms / quick.latency_ms
    held.append(ledger.at_most("latency, part of MobileNetV1 0.25/128", ratio, 1.0))
    held.append(ledger.at_most("size", ours.size_bytes / 1e3, MOST_BYTES / 1e3, "KB", 0))
    return held


def make(home: Path) -> Path:
    """Train the backbone as it was trained, and export it; return the folder of the export."""
    home.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, each in photographs.SETS.items():
        photographs.unpack(name, home / each.folder)
        parts += ["--data", f"{home / each.folder}:{VIEWS}"]
    unpack_cifar(home / "cifar10", CIFAR_A_CLASS)
    quiet = ["--augment", "none", "--cache", str(home / "cache")]
    shared = [*parts, "--data", f"{home / 'cifar10'}:1", "--teacher", str(photographs.extractor()), *quiet]
    start = stopped_after(FIRST_STEPS, ["distill", *shared, *FIRST, "--out", str(home / "first")])
    host_trainer("distill", *shared, *SECOND, "--weights", str(start), "--out", str(home / "second"))
    # Last without CIFAR's 32 pixels, and the packages twice: their small print is the hardest to learn.
    packages = f"{home / photographs.SETS['packages'].folder}:{VIEWS}"
    teacher = ["--teacher", str(photographs.extractor()), *quiet]
    start, out = home / "second", home / "third"
    host_trainer(
        "distill", *parts, "--data", packages, *teacher, *THIRD, "--weights", str(start), "--out", str(out)
    )
    gather([home / each.folder for each in photographs.SETS.values()], home / "all")
    made = home / "export"
    words = ("--target", "edgetpu", "--quantise", "ptq", "--data", str(home / "all"), "--out", str(made))
    host_trainer("export", str(out), *words)
    return made


def gather(folders: list[Path], target: Path) -> None:
    """Link the pictures of several image folders into one, their classes side by side."""
    for folder in folders:
        for path in folder.glob("*/*/*"):
            part, name, file = path.relative_to(folder).parts
            place = target / part / f"{folder.name}-{name}" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(path)


def unpack_cifar(target: Path, most: int) -> None:
    """Write that many pictures of each class of CIFAR-10, the first to learn from, into class folders."""
    with np.load(photographs.data_folder() / CIFAR, allow_pickle=False) as file:
        jpeg, offset, classes = file["jpeg"], file["offset"], file["classes"]
        taught = file["split"] == "train"
        for number, name in enumerate(classes):
            folder = target / "train" / str(name)
            folder.mkdir(parents=True, exist_ok=True)
            for i in np.flatnonzero(taught & (file["label"] == number))[:most]:
                (folder / f"{i:05d}.jpg").write_bytes(jpeg[offset[i] : offset[i + 1]].tobytes())


def host_trainer(*words: str) -> None:
    """Run a command of the workshop to its end."""
    subprocess.run([sys.executable, "-m", "host_trainer.cli", *words], check=True)


def stopped_after(steps: int, words: list[str]) -> Path:
    """Start a training, stop it once the checkpoint of that step is there, and return the checkpoint."""
    running = Path(words[-1]) / "running"
    process = subprocess.Popen([sys.executable, "-m", "host_trainer.cli", *words])
    while process.poll() is None:
        time.sleep(1)
        facts = running / "training.json"
        if facts.is_file() and json.loads(facts.read_text(encoding="utf-8"))["step"] >= steps:
            process.kill()
            process.wait()
    return running


if __name__ == "__main__":
    main()
