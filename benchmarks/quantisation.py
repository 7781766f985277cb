"""Measures what eight bits cost four real networks, rounded after training (PTQ) or trained so (QAT).

The features of all unseen photographs of three data sets are compared with the float network's, and a linear
probe is fitted on each. QAT is fine-tuning by the float network's features on the training photographs,
without labels; no range and no step sees a test photograph. Some minutes a network on one core.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ledger
import numpy as np
from photographs import SETS, data_folder, unpack

from edge_cl.evaluation.agreement import cosines
from edge_cl.vision.backbone import open_backbone
from host_trainer.backbones.networks import build, parse_spec
from host_trainer.backbones.tflite.rebuild import read_tflite
from host_trainer.backbones.weights import load_weights
from host_trainer.commands.terminal import quiet_libraries
from host_trainer.datasets.folders import read_folder
from host_trainer.datasets.pixels import open_pixels
from host_trainer.datasets.splits import spread
from host_trainer.export.cost import Cost, measure
from host_trainer.export.litert import convert
from host_trainer.export.parity import Features, Labelled
from host_trainer.export.probe import paired_loss, probe_hits
from host_trainer.network import Network
from host_trainer.quantisation.folding import fold
from host_trainer.quantisation.tuning import Tuning, tuned

COMMAND = "python benchmarks/quantisation.py --write"
REPRESENTATIVE = 200  # pictures that the ranges of PTQ come from
TUNED_ON = 1500  # training photographs, over all sets
EPOCHS = 60  # of the network trained here: after 8 its features told classes hardly apart
MOST_POINTS = {"PTQ": 1.0, "QAT": 0.3}  # of accuracy that may be lost
LEAST_COSINE = 0.99


class Subject(NamedTuple):
    """A network of the benchmark: its name in words, and how it is got."""

    title: str
    open: Callable[[Path], Network]


class Variant(NamedTuple):
    """One form of a network: what the probe found of each set's pictures, cosines, size and cost."""

    name: str
    hits: dict[str, np.ndarray]
    cosines: np.ndarray
    size_bytes: int
    cost: Cost

    @property
    def all_hits(self) -> np.ndarray:
        """Of every picture of every set, in their order, whether its class was found."""
        return np.concatenate(list(self.hits.values()))


def imagenet(folder: Path) -> Network:
    spec = parse_spec("mobilenetv2:0.35/96")
    model = build(spec)
    weights = data_folder() / "models/float/mobilenet_v2_0.35_224_imagenet_notop_float32.npz"
    load_weights(model, spec, str(weights))
    return Network(model, name=str(spec))


def coral(name: str) -> Callable[[Path], Network]:
    """Return what makes a float network of one of Coral's files."""
    return lambda folder: read_tflite(data_folder() / "models/coral" / name)


def own(folder: Path) -> Network:
    """Train a small network on the sign digits by the workshop's own trainer."""
    from host_trainer.backbones.networks import backbone_of
    from host_trainer.checkpoints import NETWORK, load_network
    from host_trainer.commands.terminal import meter, say
    from host_trainer.training.session import Options, train_classifier

    out = folder / "separable"
    if not (out / NETWORK).is_file():
        train_classifier(Options(folder / "signdigits", out, "separable:0.5/64", epochs=EPOCHS), meter, say)
    found = load_network(out)
    return found._replace(model=backbone_of(found.model), classes=())


SUBJECTS = {
    "mobilenetv2": Subject("MobileNetV2 0.35/96, ImageNet", imagenet),
    "mobilenetv1": Subject(
        "MobileNetV1 0.25/128, from Coral's uint8 file", coral("mobilenet_v1_0.25_128_quant.tflite")
    ),
    "mobilenetv1-half": Subject(
        "MobileNetV1 0.5/160, from Coral's uint8 file", coral("mobilenet_v1_0.5_160_quant.tflite")
    ),
    "separable": Subject("separable 0.5/64, trained here", own),
}


def measured(subject: Subject, folder: Path) -> list[Variant]:
    """Return the network as float, PTQ and QAT."""
    network = subject.open(folder)
    parts = {name: read_folder(folder / name) for name in SETS}
    train, test = (
        {name: _pixels(getattr(found, part), network, folder) for name, found in parts.items()}
        for part in ("train", "test")
    )
    shown = np.concatenate([each.features for each in train.values()])
    representative = shown[spread(len(shown), REPRESENTATIVE)]
    plain = fold(network.model)
    variants = [_variant("float", convert(plain, "float"), network, train, test, None)]
    expected = variants[0].cosines  # the float file's own features, as a stack
    data = convert(plain, "ptq", representative, network.input_range)
    variants.append(_variant("PTQ", data, network, train, test, expected))
    wrapped = tuned(plain, shown[spread(len(shown), TUNED_ON)], network.input_range, Tuning(), _speak)
    variants.append(_variant("QAT", convert(wrapped, "qat"), network, train, test, expected))
    return [variants[0]._replace(cosines=np.ones(len(expected))), *variants[1:]]


def kept_or_measured(key: str, folder: Path, only: list[str] | None) -> list[Variant]:
    """Return what a network gave: measured now, or when not asked for, as the folder keeps it."""
    path = folder / f"quantisation-{key}.json"
    if only and key not in only:
        return [_read(fields) for fields in json.loads(path.read_text())] if path.is_file() else []
    print(SUBJECTS[key].title, file=sys.stderr, flush=True)
    variants = measured(SUBJECTS[key], folder)
    path.write_text(json.dumps([_plain(variant) for variant in variants]))
    return variants


def _plain(variant: Variant) -> dict[str, Any]:
    hits = {name: found.tolist() for name, found in variant.hits.items()}
    return {**variant._asdict(), "hits": hits, "cosines": variant.cosines.tolist()}


def _read(fields: dict[str, Any]) -> Variant:
    hits = {name: np.array(found) for name, found in fields["hits"].items()}
    arrays = {"hits": hits, "cosines": np.array(fields["cosines"])}
    return Variant(**{**fields, **arrays, "cost": Cost(*fields["cost"])})


def _pixels(pictures: Any, network: Network, folder: Path) -> Labelled:
    found = open_pixels(pictures, network.input_size, folder / "pixels")
    return Labelled(np.asarray(found.values[:, 0]), found.pictures.labels)


def _variant(
    name: str,
    data: bytes,
    network: Network,
    train: dict[str, Labelled],
    test: dict[str, Labelled],
    expected: np.ndarray | None,
) -> Variant:
    """Run a file on everything; `expected` are the float features of the test pictures, if known."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "backbone.tflite"
        path.write_bytes(data)
        with open_backbone(path, input_range=network.input_range) as backbone:
            scale, zero = backbone.space.scale, backbone.space.zero_point
            found = {
                each: Features(
                    *(Labelled(backbone.embed_many(p.features), p.labels) for p in (train[each], test[each])),
                    scale=scale,
                    zero_point=zero,
                )
                for each in train
            }
        cost = measure(path)
    hits = {each: probe_hits(*f.train, *f.test, f.zero_point) for each, f in found.items()}
    real = np.concatenate([f.test.features.astype(np.float64) for f in found.values()])
    real = (real - zero) * scale
    alike = real if expected is None else cosines(expected, real)
    variant = Variant(name, hits, alike, len(data), cost)
    print(f"  {name}: probe {variant.all_hits.mean():.4f}, {len(data)} bytes", file=sys.stderr, flush=True)
    if expected is not None:
        print(f"    cosine min {alike.min():.4f} mean {alike.mean():.4f}", file=sys.stderr, flush=True)
    return variant


def _speak(done: int, loss: float) -> None:
    if done % 20 == 0:
        print(f"    step {done}, distance {loss:.4f}", file=sys.stderr, flush=True)


def rows(subject: Subject, variants: list[Variant]) -> list[ledger.Row]:
    """Hold each int8 form against its float self."""
    found = []
    for each in variants[1:]:
        lost, error = lost_points(variants[0].all_hits, each.all_hits)
        title, most = f"{subject.title}: {each.name}", MOST_POINTS[each.name]
        note = f" (± {error:.2f})"
        found.append(ledger.at_most(f"{title}, points lost by the probe", lost, most, digits=2, note=note))
        under = int((each.cosines < LEAST_COSINE).sum())
        note = f" (mean {each.cosines.mean():.4f}, {under} pictures under)"
        found.append(
            ledger.at_least(
                f"{title}, cosine of the worst picture", float(each.cosines.min()), LEAST_COSINE, 4, note
            )
        )
    return found


def lost_points(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Return the points lost, and their standard error: of the difference picture by picture, (N,) each."""
    loss, error = paired_loss(before, after)
    return 100 * loss, 100 * error


def lines(subject: Subject, variants: list[Variant]) -> list[list[str]]:
    """Return the table's lines of one network."""
    return [
        [
            subject.title,
            each.name,
            *(f"{each.hits[name].mean():.3f}" for name in SETS),
            f"{each.all_hits.mean():.4f}",
            f"{np.quantile(each.cosines, 0.01):.4f}",
            f"{each.size_bytes / 1000:.0f} kB",
            f"{each.cost.latency_ms:.2f} ms",
            f"{each.cost.peak_bytes / 1e6:.0f} MB",
        ]
        for each in variants
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", choices=SUBJECTS, action="append", help="measure this one; the rest as kept in --folder"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep unpacked pictures here (default: a temporary folder)"
    )
    parser.add_argument("--kept", action="store_true", help="measure nothing: take what --folder keeps")
    parser.add_argument("--write", action="store_true", help="write the rows into RESULTS.md")
    options = parser.parse_args()
    quiet_libraries()
    data_folder()
    with tempfile.TemporaryDirectory(prefix="edge-cl-") as scratch:
        folder = options.folder or Path(scratch)
        for name in SETS:
            if not (folder / name).is_dir():
                unpack(name, folder / name)
        found = {
            key: kept_or_measured(key, folder, [""] if options.kept else options.only) for key in SUBJECTS
        }
        held = [row for key, variants in found.items() for row in rows(SUBJECTS[key], variants)]
        table = [line for key, variants in found.items() for line in lines(SUBJECTS[key], variants)]
    ledger.show("Eight bits against float", held)
    if options.write:
        head = ["network", "numbers", *(each.title for each in SETS.values()), "all, of 1,628"]
        head += ["cosine, worst 1 %", "size", "latency", "peak memory"]
        ledger.write("quantisation", COMMAND, [*ledger.rows_table(held), "", *ledger.table(head, table)])


if __name__ == "__main__":
    main()
