"""Exports a network to one target: makes the files, measures them, publishes all of them or none."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, EngineError, ModelError
from edge_cl.vision.backbone import open_backbone
from host_trainer.artefacts import staged_folder
from host_trainer.backbones.networks import backbone_of
from host_trainer.checkpoints import NETWORK, load_network
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.datasets.pixels import open_pixels
from host_trainer.datasets.splits import spread
from host_trainer.export import golden
from host_trainer.export.boards import DEFAULT_BOARD, choose_board
from host_trainer.export.card import Card, to_markdown
from host_trainer.export.cost import measure
from host_trainer.export.litert import Scheme, convert
from host_trainer.export.parity import Features, Gate, Labelled, Parity, judge
from host_trainer.network import Network, to_input
from host_trainer.quantisation import qat
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.tuning import Tuning, tuned
from host_trainer.training.gradients import predict

MODEL, COMPILED, MANIFEST, CARD, REPORT = (
    "backbone.tflite",
    "backbone_edgetpu.tflite",
    "backbone.json",
    "README.md",
    "parity.json",
)
EVERY_FIFTH = 5  # picture of a folder without a test part is asked about
KERAS_RANGE = (-1.0, 1.0)  # what the ONNX export takes


class Target(str, Enum):
    """Who runs the result."""

    LITERT = "litert"
    EDGETPU = "edgetpu"
    ONNX = "onnx"
    TENSORRT = "tensorrt"


class Quantise(str, Enum):
    """How its numbers are kept."""

    PTQ = "ptq"
    QAT = "qat"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    NONE = "none"


POSSIBLE = {  # the usual one first
    Target.LITERT: (Quantise.PTQ, Quantise.QAT, Quantise.FLOAT16, Quantise.DYNAMIC, Quantise.NONE),
    Target.EDGETPU: (Quantise.PTQ, Quantise.QAT),
    Target.ONNX: (Quantise.NONE, Quantise.FLOAT16),
}
ON_BOARDS = {  # symmetric int8 loses more than TFLite's, and tuning takes two minutes
    "int8": (Quantise.QAT, Quantise.PTQ),
    "fp16": (Quantise.FLOAT16,),
}
SCHEMES = {
    Quantise.PTQ: Scheme.PTQ,
    Quantise.QAT: Scheme.QAT,
    Quantise.FLOAT16: Scheme.FLOAT16,
    Quantise.DYNAMIC: Scheme.DYNAMIC,
    Quantise.NONE: Scheme.FLOAT,
}


@dataclass(frozen=True)
class Order:
    """What a person asks of an export; see `host-trainer export --help` for each."""

    model: Path
    target: Target
    data: Path
    out: Path
    quantise: Quantise | None = None
    tuning: Tuning = Tuning()
    gate: Gate | None = None
    board: str = DEFAULT_BOARD
    keep_failed: bool = False
    cache: Path | None = None
    command: str = "host-trainer export"
    representative: int = 200  # pictures that ranges come from
    learned: int = 1500  # pictures that the probes learn from, at most
    asked: int = 1000  # pictures that the probes are asked about, at most


class Shown(NamedTuple):
    """The pictures of an export, (N, H, W, 3) uint8 with class numbers: to learn from and to be asked."""

    train: Labelled
    test: Labelled
    words: str


class Made(NamedTuple):
    """The file that was made, how to get its features, and what must be known about it."""

    path: Path
    features: Callable[[NDArray[np.uint8]], NDArray[Any]]
    scale: float = 1.0
    zero_point: int = 0
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()  # reasons not to publish, besides parity


class Outcome(NamedTuple):
    """What came of an export: whether it was published, the reasons if not, the figures, and the files."""

    published: bool
    reasons: tuple[str, ...]
    parity: Parity
    files: dict[str, tuple[str, int]]
    notes: tuple[str, ...]


class _NotGoodEnough(Exception):
    """Leaves the staged folder, so that nothing is published."""


def export(order: Order, say: Callable[[str], None] = lambda line: None) -> Outcome:
    """Make, measure and publish; the folder `order.out` is there whole afterwards, or not at all.

    Raises:
        ConfigError: a combination that does not exist, too few pictures, or a folder that is in use.
        ModelError: no network there, or one that the target cannot take.
        StoreError: the disk refuses.
        EngineError: the target's tools are missing or failed.
    """
    quantise = chosen(order)
    network = open_model(order.model)
    with tempfile.TemporaryDirectory(prefix="host-trainer-") as scratch:
        shown = _shown(order, network, order.cache or Path(scratch))
        return _published(order, quantise, network, shown, say)


def _published(
    order: Order, quantise: Quantise, network: Network, shown: Shown, say: Callable[[str], None]
) -> Outcome:
    gate = order.gate or Gate.of(quantise.value)
    try:
        with staged_folder(order.out) as folder:
            made = _make(order, quantise, network, shown, folder, say)
            say(f"comparing on {len(shown.train.labels)} + {len(shown.test.labels)} pictures")
            parity = _parity(network, made, shown, gate)
            reasons = (*parity.reasons, *made.faults)
            files = _described(order, quantise, network, made, shown, parity, reasons, folder)
            if reasons and not order.keep_failed:
                raise _NotGoodEnough
    except _NotGoodEnough:
        return Outcome(False, reasons, parity, {}, made.notes)
    return Outcome(True, reasons, parity, files, made.notes)


def chosen(order: Order) -> Quantise:
    """Return how numbers are kept: what was asked, or what is usual for the target.

    Raises:
        ConfigError: the target has no such form, or the board is not known.
    """
    possible = POSSIBLE.get(order.target) or ON_BOARDS[choose_board(order.board).precision]
    quantise = order.quantise or possible[0]
    if quantise not in possible:
        whom = (
            f"{order.target.value} for {order.board}"
            if order.target is Target.TENSORRT
            else order.target.value
        )
        names = " or ".join(each.value for each in possible)
        raise ConfigError(f"{whom} takes no {quantise.value}: give --quantise {names}")
    return quantise


def open_model(path: Path) -> Network:
    """Return the bare backbone of a checkpoint folder or a TFLite file, a head cut off.

    Raises:
        ModelError, MismatchError: neither, damaged, or of a newer version.
    """
    if path.is_file():
        from host_trainer.backbones.tflite.rebuild import read_tflite

        return read_tflite(path)
    if not (path / NETWORK).is_file():
        raise ModelError(
            f"{path} is no network: give a folder that `host-trainer train` wrote, or a .tflite file"
        )
    found = load_network(path)
    return found._replace(model=backbone_of(found.model), classes=())


def _shown(order: Order, network: Network, cache: Path) -> Shown:
    """Decode the pictures of the data folder at the network's size."""
    folder = read_folder(order.data)
    train, test = folder.train, folder.test
    if not len(test.labels):
        aside = np.arange(len(train.labels)) % EVERY_FIFTH == EVERY_FIFTH - 1
        train, test = train.at(np.flatnonzero(~aside)), train.at(np.flatnonzero(aside))
    if not len(test.labels):
        raise ConfigError(
            f"{order.data} holds fewer than {EVERY_FIFTH} pictures: parity needs some to ask about"
        )
    learned = _decoded(train, order.learned, network, cache)
    asked = _decoded(test, order.asked, network, cache)
    words = f"{order.data.name}, {len(learned.labels)} to learn from and {len(asked.labels)} to be asked"
    return Shown(learned, asked, words)


def _decoded(pictures: Pictures, limit: int, network: Network, cache: Path) -> Labelled:
    some = pictures.at(spread(len(pictures.labels), limit))
    pixels = open_pixels(some, network.input_size, cache)
    return Labelled(pixels.values[:, 0], pixels.pictures.labels)


def _make(
    order: Order, quantise: Quantise, network: Network, shown: Shown, folder: Path, say: Callable[[str], None]
) -> Made:
    pixels = shown.train.features
    model = fold(network.model)
    if quantise is Quantise.QAT:
        say(f"fine-tuning with the rounding in place, {order.tuning.steps} steps")
        tuning = replace(order.tuning, symmetric=order.target is Target.TENSORRT)
        model = tuned(model, pixels, network.input_range, tuning, _every_tenth(tuning.steps, say))
    representative = np.asarray(pixels[spread(len(pixels), order.representative)])
    if order.target in (Target.LITERT, Target.EDGETPU):
        say("converting")
        data = convert(model, SCHEMES[quantise], representative, network.input_range)
        return _tflite(order, network, data, shown, folder)
    if network.input_range != KERAS_RANGE:
        raise ConfigError(f"the ONNX export takes networks of -1..1, this one has {network.input_range}")
    return _onnx(order, quantise, model, representative, folder)


def _tflite(order: Order, network: Network, data: bytes, shown: Shown, folder: Path) -> Made:
    path = folder / MODEL
    path.write_bytes(data)
    backbone = open_backbone(path, input_range=network.input_range)
    (folder / MANIFEST).write_text(backbone.manifest().to_json(), encoding="utf-8")
    asked = shown.test.features
    (folder / golden.FILE).write_bytes(
        golden.record(backbone, np.asarray(asked[spread(len(asked), golden.COUNT)]))
    )
    notes, faults = _edgetpu(data, folder) if order.target is Target.EDGETPU else ((), ())
    return Made(path, backbone.embed_many, backbone.space.scale, backbone.space.zero_point, notes, faults)


def _edgetpu(data: bytes, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check what an Edge TPU runs of the file; compile it where the compiler is at hand."""
    from host_trainer.export.edgetpu import compiler
    from host_trainer.export.edgetpu.graph import read_graph
    from host_trainer.export.edgetpu.mapping import place

    verdict = place(read_graph(data))
    notes = [
        f"{verdict.mapped} of {len(verdict.placements)} operations map to the Edge TPU, by our static check"
    ]
    faults = [] if verdict.maps_fully else ["not every operation maps to the Edge TPU: see check-edgetpu"]
    try:
        compiler.find_compiler()
    except EngineError as error:
        notes.append(f"not compiled yet: {error}")
    else:
        (folder / COMPILED).write_bytes(compiler.compile_model(data).model)
    return tuple(notes), tuple(faults)


def _onnx(
    order: Order, quantise: Quantise, model: Any, representative: NDArray[np.uint8], folder: Path
) -> Made:
    from host_trainer.export import onnx

    if order.target is Target.ONNX:
        precision = "fp16" if quantise is Quantise.FLOAT16 else "fp32"
        artefact = onnx.export_onnx(model, folder, precision, representative)
    else:
        ranges = qat.activation_ranges(model) if quantise is Quantise.QAT else None
        plain = qat.unwrap(model) if quantise is Quantise.QAT else model
        artefact = onnx.export_tensorrt(plain, representative, folder, ranges, order.board)
    data = artefact.path.read_bytes()
    breaches = tuple(str(breach) for breach in artefact.breaches)
    notes = (f"ONNX opset {artefact.opset}, {artefact.precision}; features here by onnxruntime on the CPU",)
    return Made(
        artefact.path,
        lambda pixels: onnx.run_onnx(data, to_input(pixels, KERAS_RANGE)),
        notes=notes,
        faults=breaches,
    )


def _parity(network: Network, made: Made, shown: Shown, gate: Gate) -> Parity:
    def expected(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        parts = [pixels[at : at + 64] for at in range(0, len(pixels), 64)]  # as floats, a part at a time
        return np.concatenate([predict(network.model, to_input(part, network.input_range)) for part in parts])

    def seen(features: Callable[[NDArray[np.uint8]], NDArray[Any]], scale: float, zero: int) -> Features:
        learned, asked = (Labelled(features(np.asarray(p.features)), p.labels) for p in shown[:2])
        return Features(learned, asked, scale, zero)

    found = seen(made.features, made.scale, made.zero_point)
    return judge(seen(expected, 1.0, 0), found, measure(made.path), made.path.stat().st_size, gate)


def _described(
    order: Order,
    quantise: Quantise,
    network: Network,
    made: Made,
    shown: Shown,
    parity: Parity,
    reasons: tuple[str, ...],
    folder: Path,
) -> dict[str, tuple[str, int]]:
    """Write the report and the card; return {file: (sha256, bytes)} of everything in the folder."""
    report = {**parity.to_dict(), "reasons": list(reasons), "passed": not reasons, "notes": list(made.notes)}
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    notes = [*made.notes, *(f"FAILED the parity gate: {reason}" for reason in reasons)]
    card = Card(
        name=network.name,
        target=order.target.value,
        quantise=quantise.value,
        origin=network.origin,
        data=shown.words,
        command=order.command,
        files=_hashes(folder),
        figures=in_words(parity),
        notes=notes,
    )
    (folder / CARD).write_text(to_markdown(card), encoding="utf-8")
    return _hashes(folder)


def in_words(parity: Parity) -> dict[str, str]:
    """Return a parity report as a person reads it."""
    return {
        "feature cosine, worst picture": f"{parity.cosine_min:.4f} (gate {parity.gate.cosine_min:g})",
        "feature cosine, mean": f"{parity.cosine_mean:.4f}",
        "linear probe, float network": f"{parity.accuracy_float:.4f} of {parity.test} pictures",
        "linear probe, this file": f"{parity.accuracy_export:.4f} +- {parity.accuracy_error:.4f} "
        f"(may lose {parity.gate.accuracy_drop:g})",
        "size": f"{parity.size_bytes / 1000:.0f} kB",
        "latency here, one thread": f"{parity.latency_ms:.2f} ms",
        "peak memory of a fresh process": f"{parity.peak_bytes / 1e6:.0f} MB",
    }


def _hashes(folder: Path) -> dict[str, tuple[str, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    data = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: (hashlib.sha256(found).hexdigest(), len(found)) for name, found in data.items()}


def _every_tenth(steps: int, say: Callable[[str], None]) -> Callable[[int, float], None]:
    """Return a watcher that speaks ten times."""
    pace = max(1, steps // 10)

    def watch(done: int, loss: float) -> None:
        if done % pace == 0 or done == steps:
            say(f"step {done} of {steps}, distance {loss:.4f}")

    return watch
