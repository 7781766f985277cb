"""A TFLite file, made a float network again, answers as the file does.

Claim: on real photographs the feature of the float network and the feature that LiteRT computes from the file
have a mean cosine of at least 0.99 for quantised files, and agree to rounding for float files.

Method: every image network of EDGE_CL_DATA is read by `host_trainer.backbones.tflite`, cut at its embedding
and with its head. Both answer the same photographs of TrashNet (spread over its classes), squashed to the
network's size. "Top-1" is the share of photographs whose best class is (one of) the file's best; these
networks never saw waste, so their probabilities are low and close together, and 8 bits decide.

Expected: cosines of 0.99 and more, float files at 1; top-1 near 0.9. Takes 3 minutes.

    python benchmarks/tflite_import.py [--images 64] [--write]
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import ledger
import numpy as np
import photographs
from PIL import Image

from edge_cl.errors import ModelError
from edge_cl.vision.preprocess import prepare
from host_trainer.backbones.tflite.parity import Parity, parity
from host_trainer.backbones.tflite.rebuild import read_tflite

FLOAT_RANGES = {"pretrainedResnet.tflite": (0.0, 255.0), "vww_96_float.tflite": (0.0, 1.0)}
QUANTISED_TARGET, FLOAT_TARGET = 0.99, 0.999999


class Answer(NamedTuple):
    """One file's figures: cut at its embedding, and with its head where it has one."""

    name: str
    is_float: bool
    size: int
    feature: Parity
    head: Parity | None


def pictures(count: int) -> list[Image.Image]:
    """Return photographs spread over the classes, decoded."""
    with photographs.unpacked("trashnet", {"train": 0}) as folder:
        paths = sorted((folder / "test").rglob("*.jpg"))
        chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]
        return [Image.open(path).convert("RGB") for path in chosen]


def measure(path: Path, images: list[Image.Image]) -> Answer:
    """Compare one file with its networks."""
    network = read_tflite(path, input_range=FLOAT_RANGES.get(path.name))
    pixels = np.stack([prepare(image, network.input_size) for image in images])
    feature = parity(path, network, pixels)
    try:
        whole = read_tflite(path, keep_head=True, input_range=FLOAT_RANGES.get(path.name))
    except ModelError:
        head = None
    else:
        head = parity(path, whole, pixels)
    size = int(network.model.output.shape[1])
    return Answer(path.stem, path.name in FLOAT_RANGES, size, feature, head)


def rows(answers: list[Answer]) -> list[ledger.Row]:
    quantised = min((a for a in answers if not a.is_float), key=lambda a: a.feature.cosine_mean)
    exact = min((a for a in answers if a.is_float), key=lambda a: a.feature.cosine_min)
    return [
        ledger.at_least(
            f"mean cosine of the least alike quantised file ({quantised.name})",
            quantised.feature.cosine_mean, QUANTISED_TARGET, 4,
        ),
        ledger.at_least(
            f"least cosine of the least alike float file ({exact.name})",
            exact.feature.cosine_min, FLOAT_TARGET, 7,
        ),
    ]  # fmt: skip


def lines(answers: list[Answer], count: int) -> list[str]:
    columns = ("file", "values", "feature cosine, mean", "least", "top-1 with its head")
    body = [
        (
            a.name,
            str(a.size),
            f"{a.feature.cosine_mean:.5f}",
            f"{a.feature.cosine_min:.5f}",
            "" if a.head is None else f"{a.head.top1_agreement:.3f}",
        )
        for a in answers
    ]
    return [f"{count} photographs of TrashNet.", "", *ledger.table(columns, body)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="put the figures into the ledger")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    images, answers = pictures(args.images), []
    for path in sorted((photographs.data_folder() / "models").rglob("*.tflite")):
        try:
            answers.append(measure(path, images))
        except ModelError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        print(answers[-1], file=sys.stderr)
    ledger.show("TFLite files as float networks", rows(answers))
    if args.write:
        command = f"python benchmarks/tflite_import.py --images {args.images} --write"
        text = [*lines(answers, args.images), "", *ledger.rows_table(rows(answers))]
        ledger.write("tflite import", command, text)


if __name__ == "__main__":
    main()
