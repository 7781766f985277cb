"""Claim: what each way of making the backbone smaller buys and costs: accuracy against latency and size.

The backbone that ships is read back from its TFLite file as a float network, and made smaller in every way
the workshop knows: number formats, fewer channels, fewer weights, shared weights, split convolutions,
block-sparse convolutions, each alone and then as int8. Where weights went, the network is tuned for some
hundred steps to give the features it gave before, without labels. Accuracy is that of a linear probe on
unseen photographs of three sets; latency is on one thread, the files taking turns; size is of the file, and
of the file as gzip packs it, which is what travels.

Expected: unstructured sparsity and shared weights are smaller to send and no faster; fewer channels are
faster and lose most; where a CPU has no int8 dot products (AVX2 without VNNI), float is faster than int8.
15 minutes on one core.

    python benchmarks/pareto.py --write
"""

import argparse
import gzip
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ledger
import numpy as np
from default_backbone import SHIPPED, latencies_ms
from photographs import SETS, unpack

from edge_cl.vision.backbone import open_backbone
from host_trainer.backbones.tflite.rebuild import read_tflite
from host_trainer.commands.terminal import quiet_libraries
from host_trainer.compression import blocksparse, channels, clustering, lowrank, pruning
from host_trainer.datasets.batches import batch_indices
from host_trainer.datasets.folders import read_folder
from host_trainer.datasets.pixels import open_pixels
from host_trainer.datasets.splits import spread
from host_trainer.distillation.losses import IMAGES, TARGETS, feature_objective
from host_trainer.export.litert import convert
from host_trainer.export.probe import probe_accuracy
from host_trainer.network import Network, to_input
from host_trainer.quantisation.tuning import Tuning, tuned
from host_trainer.training.gradients import predict
from host_trainer.training.trainer import Job, Recipe, fit

STEPS, BATCH, RATE = 200, 32, 5e-4  # of tuning after weights went
TUNED_ON, REPRESENTATIVE = 1500, 200  # training photographs, over all sets
TURNS, RUNS = 7, 30  # of the latency: turns of each file, and inferences of a turn
PLOT = "pareto.png"


class Photographs(NamedTuple):
    """One set at the network's size: pixels (N, H, W, 3) and labels (N,), taught and asked."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


class Point(NamedTuple):
    """One variant: how it was made, probe accuracy over all unseen photographs, latency and sizes."""

    name: str
    accuracy: float
    latency_ms: float
    size_bytes: int
    packed_bytes: int


class Tuner:
    """Tunes a network to give the features that the backbone gave; pictures and answers are made once."""

    def __init__(self, network: Network, pixels: np.ndarray) -> None:
        self._range, self._pixels = network.input_range, pixels
        self._wanted = predict(network.model, to_input(pixels, network.input_range))
        self._wanted /= float(np.sqrt(np.square(self._wanted).mean()))  # the squared loss starts near 1
        self._scale = 1 / float(
            np.sqrt(np.square(predict(network.model, to_input(pixels[:64], self._range))).mean())
        )

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Return the pictures of one step and the features to give."""
        chosen = batch_indices(len(self._pixels), BATCH, step, 0)
        return {IMAGES: to_input(self._pixels[chosen], self._range), TARGETS: self._wanted[chosen]}

    def loss(self, call: Callable[..., Any], batch: Any) -> tuple[Any, dict[str, Any]]:
        """Return the squared distance of scaled features."""
        return feature_objective("squared")(lambda *a, **k: call(*a, **k) * self._scale, batch)

    def tune(self, network: Network) -> Network:
        """Train all weights that are left."""
        with tempfile.TemporaryDirectory() as home:
            return fit(Job(network, self.loss, self.batch, recipe(), {}), Path(home) / "running", _speak)

    def prune(self, network: Network, density: float) -> Network:
        """Prune single weights while training."""
        plan = pruning.Plan(density)
        return pruning.compress(network, self.loss, self.batch, recipe(), plan, _speak)


def recipe() -> Recipe:
    return Recipe(steps=STEPS, batch=BATCH, rate=RATE, decay=0.0, average=0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write rows and plot into the ledger")
    args = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="edge-cl-") as home:
        sets = load(Path(home), read_tflite(SHIPPED).input_size)
        files = variants(sets, Path(home))
        latencies = latencies_ms(files, TURNS, RUNS)
        points = [
            Point(
                name,
                accuracy(file, sets),
                latencies[name],
                file.stat().st_size,
                len(gzip.compress(file.read_bytes(), 9, mtime=0)),
            )
            for name, file in files.items()
        ]
    lines = table(points)
    print("\n".join(lines))
    if args.write:
        draw(points)
        picture = f"![Accuracy against latency and size](plots/{PLOT})"
        ledger.write("pareto", "python benchmarks/pareto.py --write", [picture, "", *lines])


def load(home: Path, size: tuple[int, int]) -> list[Photographs]:
    """Return the three sets at the network's size."""
    sets = []
    for name in SETS:
        unpack(name, home / name)
        folder = read_folder(home / name)
        train, test = (open_pixels(part, size, home / "cache") for part in folder)
        whole = [np.asarray(part.values[:, 0]) for part in (train, test)]
        sets.append(Photographs(whole[0], train.pictures.labels, whole[1], test.pictures.labels))
    return sets


def variants(sets: list[Photographs], home: Path) -> dict[str, Path]:
    """Make every variant's file; each starts from the backbone read anew."""
    shown = np.concatenate([each.train for each in sets])
    tuning = shown[spread(len(shown), TUNED_ON)]
    pictures = shown[spread(len(shown), REPRESENTATIVE)]
    tuner = Tuner(read_tflite(SHIPPED), tuning)
    files = {"int8 (ships)": SHIPPED}

    def keep(name: str, data: bytes) -> None:
        files[name] = home / f"{len(files)}.tflite"
        files[name].write_bytes(data)
        print(f"{name}: {len(data)} bytes", file=sys.stderr, flush=True)

    def int8(network: Network) -> bytes:
        return convert(network.model, "ptq", pictures, network.input_range)

    plain = read_tflite(SHIPPED)
    for scheme in ("float", "float16", "dynamic"):
        keep(scheme, convert(plain.model, scheme))
    keep(
        "int8, quantisation-aware", convert(tuned(plain.model, tuning, plain.input_range, Tuning(200)), "qat")
    )
    for share in (0.75, 0.5):
        cut = tuner.tune(channels.compress(read_tflite(SHIPPED), channels.Cut(share)))
        keep(f"{share:.0%} of the channels, int8", int8(cut))
    for density in (0.5, 0.25):
        keep(f"{density:.0%} of the weights, int8", int8(tuner.prune(read_tflite(SHIPPED), density)))
    for count in (32, 16):
        keep(f"{count} shared values a layer, int8", int8(clustering.compress(read_tflite(SHIPPED), count)))
    keep("low rank, 90 % of the energy, int8", int8(tuner.tune(lowrank.compress(read_tflite(SHIPPED), 0.9))))
    blocks = blocksparse.compress(read_tflite(SHIPPED), 0.3)
    keep("30 % of blocks, float", convert(blocks.model, "float"))
    keep("30 % of blocks, float, stored sparse", blocksparse.encode(convert(blocks.model, "float")))
    return files


def accuracy(file: Path, sets: list[Photographs]) -> float:
    """Return the share of all unseen photographs that a linear probe, fitted a set, names rightly."""
    right = asked = 0
    with open_backbone(file, input_range=(-1.0, 1.0)) as backbone:
        for each in sets:
            train, test = backbone.embed_many(each.train), backbone.embed_many(each.test)
            found = probe_accuracy(
                train, each.train_labels, test, each.test_labels, backbone.space.zero_point
            )
            right += round(found * len(test))
            asked += len(test)
    return right / asked


def frontier(points: list[Point]) -> set[str]:
    """Return the variants that no other beats in accuracy, latency and packed size at once."""

    def beaten(one: Point) -> bool:
        return any(
            other.accuracy >= one.accuracy
            and other.latency_ms <= one.latency_ms
            and other.packed_bytes <= one.packed_bytes
            and other != one
            for other in points
        )

    return {point.name for point in points if not beaten(point)}


def table(points: list[Point]) -> list[str]:
    best = frontier(points)
    lines = [
        [
            point.name,
            f"{point.accuracy:.3f}",
            f"{point.latency_ms:.2f}",
            f"{point.size_bytes / 1e3:.0f}",
            f"{point.packed_bytes / 1e3:.0f}",
            "yes" if point.name in best else "",
        ]
        for point in points
    ]
    return ledger.table(["variant", "probe accuracy", "ms", "KB", "KB packed", "on the frontier"], lines)


def draw(points: list[Point]) -> None:
    """Draw accuracy against latency, and against the size that travels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best = frontier(points)
    figure, panels = pyplot.subplots(1, 2, figsize=(13, 5.5), sharey=True)
    axes = [("latency_ms", 1.0, "milliseconds a picture, one thread"), ("packed_bytes", 1e3, "KB, packed")]
    for panel, (field, unit, label) in zip(panels, axes, strict=True):
        for number, point in enumerate(points):
            x = getattr(point, field) / unit
            on = point.name in best
            panel.plot(x, point.accuracy, "o" if on else "x", color="#1b6ca8" if on else "#999999")
            panel.annotate(
                str(number + 1), (x, point.accuracy), (4, 4), textcoords="offset points", fontsize=9
            )
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy of a linear probe, unseen photographs")
    names = "\n".join(f"{number + 1}  {point.name}" for number, point in enumerate(points))
    figure.text(0.78, 0.5, names, va="center", fontsize=9)
    figure.suptitle("The default backbone, made smaller: dots are on the frontier")
    figure.subplots_adjust(left=0.06, right=0.77, wspace=0.08)
    figure.savefig(ledger.PLOTS / PLOT, dpi=110)


def _speak(step: int, told: Any) -> None:
    if step % 50 == 0:
        print(f"  step {step}, loss {told['loss']:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
