"""What it is worth to train the backbone on with what devices sent, beside a new head on the old one.

Claim: a full SparCL update of the backbone with images beats the head-only merge by at least 3 points on Sign
digits.

Method: a host has pictures of half of the digits. It trains a small network on them with SparCL (edge mode,
sparsity SPARSITY, random first weights), and makes the first release of it. Two devices are taught the other
digits between them, and send statistics, features and pictures. Then `host-trainer retrain` runs twice from
the same state: once with the head alone, once with all. Half of the test pictures are what the host judges
by; both releases are asked about the other half, through their own int8 files and bundles. Everything goes
through the real stages: the SparCL update from the network's own masks and buffer, export, parity, head,
bundle. "Old digits" are those of the first release.

Expected time: 25 minutes a seed on two cores.

    python benchmarks/update.py [--seeds N] [--set signdigits] [--epochs N] [--write]
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import ledger
import numpy as np
import photographs
from fleet import told
from ledger import Row
from PIL import Image

from edge_cl.learning.named import Named
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import Backbone
from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.messages import Features, Images, Message
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import found_repository
from host_trainer.retraining import heads, pictures
from host_trainer.retraining.assembly import opened
from host_trainer.retraining.contents import FolderContents, Silence
from host_trainer.retraining.gate import Policy
from host_trainer.retraining.job import BUNDLE, EXPORT, UPDATE, Options, World
from host_trainer.retraining.runs import runs
from host_trainer.retraining.samples import Samples, statistics_of
from host_trainer.retraining.session import retrain

NETWORK, SPARSITY, BATCH, BUFFER = "resnet18:0.5/32", 0.75, 32, 200
MODEL, DEVICES = "digits", 2
# Both are measured, whatever the gate would say of them.
LENIENT = Policy(class_fall=1.0, fall=1.0, new=0.0, churn=1.0, size_bytes=1 << 30, latency=1e9)


class Right(NamedTuple):
    """Accuracy on all classes, on those of the first release, and on those that devices brought."""

    every: float
    old: float
    new: float


class Nobody:
    """Hears how far a task is, and tells nobody."""

    def begin(self, done: float) -> None:
        """See `training.session.Meter`."""

    def show(self, done: float, words: str = "", size: int = 1) -> None:
        """See `training.session.Meter`."""


@contextlib.contextmanager
def no_meter(total: int, unit: str) -> Iterator[Nobody]:
    yield Nobody()


def say(line: str) -> None:
    print(f"    {line}", file=sys.stderr, flush=True)


def world(fleet: Path, contents: Path | None = None) -> World:
    """Return the world of a retraining that hears contents in a folder."""
    place = RepositoryFolder(fleet)
    ring = Keyring(place.key_folders(), lambda words: b"")
    heard = FolderContents(contents) if contents else Silence()
    now = datetime.now(timezone.utc)
    return World(now, place, ring, heard, no_meter, say, clock=time.monotonic)


def trained(data: Path, out: Path, epochs: int) -> None:
    """Train the host's network, as a person would."""
    from host_trainer.commands import app

    words = ["train", "--data", data, "--method", "sparcl-derpp", "--tasks", 1, "--epochs", epochs]
    words += [
        "--network",
        NETWORK,
        "--sparsity",
        SPARSITY,
        "--batch",
        BATCH,
        "--buffer",
        BUFFER,
        "--out",
        out,
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        app([str(word) for word in words], standalone_mode=False)


def share_out(source: Path, root: Path, seed: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Put pictures where host, judge and examiner find them; return the host's classes and each device's."""
    rng = np.random.default_rng((seed, 1))
    names = sorted(path.name for path in (source / "train").iterdir() if path.is_dir())
    order = [names[i] for i in rng.permutation(len(names))]
    own, others = order[: len(order) // 2], order[len(order) // 2 :]
    for name in own:
        shutil.copytree(source / "train" / name, root / "own" / name)
    for name in names:
        files = sorted((source / "test" / name).iterdir())
        for number, path in enumerate(files[i] for i in rng.permutation(len(files))):
            target = root / ("judges" if number % 2 else "exam") / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return tuple(own), [tuple(others[number::DEVICES]) for number in range(DEVICES)]


def sent(device: str, source: Path, classes: Sequence[str], backbone: Backbone, views: int) -> list[Message]:
    """Return what a device of these classes sends: statistics, features, pictures."""
    files = [(name, path) for name in classes for path in sorted((source / "train" / name).iterdir())]
    listed = Pictures(
        tuple(path for _, path in files),
        np.array([classes.index(name) for name, _ in files], np.int32),
        tuple(classes),
    )
    found = pictures.seen(backbone, listed, views, True).samples
    space: FeatureSpace = backbone.space
    own = Named(tuple(classes), statistics_of(found, classes, space.zero_point))
    numbers = np.array([classes.index(label) for label in found.labels], np.int32)
    features = Features(device, space.id, 0, tuple(classes), found.numbers, numbers, found.features)
    return [told(device, own, space, True), features, jpegs(device, files, classes)]


def jpegs(device: str, files: Sequence[tuple[str, Path]], classes: Sequence[str]) -> Images:
    """Return pictures as a device sends them."""
    data = []
    for _, path in files:
        out = io.BytesIO()
        Image.open(path).convert("RGB").save(out, "JPEG", quality=90)
        data.append(out.getvalue())
    numbers = np.array([classes.index(name) for name, _ in files], np.int32)
    sizes = np.array([len(each) for each in data], np.int32)
    samples = np.arange(1, len(files) + 1, dtype=np.int64)
    joined = np.frombuffer(b"".join(data), np.uint8)
    return Images(device, 0, tuple(classes), samples, numbers, sizes, joined)


def put(folder: Path, messages: Sequence[Message]) -> None:
    """Put contents where `FolderContents` finds them."""
    folder.mkdir(exist_ok=True)
    for message in messages:
        (folder / f"{len(list(folder.iterdir())):04d}-{content_id(message)[:8]}.content").write_bytes(
            canonical(message)
        )


def examined(fleet: Path, exam: Path, old: Sequence[str]) -> tuple[Right, dict[str, Any]]:
    """Return what the newest candidate answers right, through its own file and bundle."""
    run = runs(fleet)[-1]
    learner = opened((run.place(BUNDLE) / "whole.bundle").read_bytes(), Options(fleet, MODEL).head.learner)[1]
    listed = read_folder(exam, least_classes=1).train
    with pictures.opened(fleet / run.facts(EXPORT)["backbone"]) as backbone:
        asked: Samples = pictures.seen(backbone, listed, 1, True).samples
    answers = heads.answers(learner, asked.features)
    right = np.array([one == other for one, other in zip(answers, asked.labels, strict=True)])
    is_old = np.array([label in old for label in asked.labels])
    shares = Right(*(float(right[chosen].mean()) for chosen in (np.ones(len(right), bool), is_old, ~is_old)))
    return shares, {**run.facts(UPDATE), "bytes": run.facts(BUNDLE)["whole_bytes"]}


def compared(source: Path, seed: int, epochs: int) -> tuple[Right, Right, Right, dict[str, Any]]:
    """Return the accuracy of the first release, of the head-only merge, and of the full update."""
    with tempfile.TemporaryDirectory(prefix="edge-cl-") as scratch:
        root, fleet = Path(scratch), Path(scratch) / "fleet"
        own, devices = share_out(source, root, seed)
        start = time.monotonic()
        trained(root / "own", root / "network", epochs)
        print(f"  network trained in {time.monotonic() - start:.0f} s", flush=True)
        around = world(fleet)
        found_repository(around.place, around.ring, [MODEL], b"", around.now)
        chosen = {"policy": LENIENT, "held_out": root / "judges"}
        retrain(
            Options(fleet, MODEL, first=True, network=root / "network", data=root / "own", **chosen), around
        )
        first, _ = examined(fleet, root / "exam", own)
        with pictures.opened(fleet / runs(fleet)[-1].facts(EXPORT)["backbone"]) as backbone:
            for number, classes in enumerate(devices, 1):
                put(root / "contents", sent(f"device-{number}", source, classes, backbone, 4))
        shutil.copytree(fleet, root / "head")
        retrain(
            Options(root / "head", MODEL, head_only=True, **chosen), world(root / "head", root / "contents")
        )
        head, _ = examined(root / "head", root / "exam", own)
        print(f"  first {first}, head {head}", flush=True)
        start = time.monotonic()
        retrain(Options(fleet, MODEL, epochs=epochs, **chosen), world(fleet, root / "contents"))
        full, facts = examined(fleet, root / "exam", own)
        print(f"  full {full} in {time.monotonic() - start:.0f} s: {facts['reason']}", flush=True)
        assert facts["kind"] == "network", facts["reason"]
        return first, head, full, facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="splits of the classes (%(default)s)"
    )
    parser.add_argument("--set", choices=photographs.SETS, default="signdigits", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=15, metavar="N", help="of each training (%(default)s)")
    parser.add_argument("--write", action="store_true", help="put the rows into RESULTS.md")
    options = parser.parse_args()
    title, found = photographs.SETS[options.set].title, []
    with photographs.unpacked(options.set) as source:
        for seed in range(options.seeds):
            print(f"{title}, seed {seed}", flush=True)
            found.append(compared(source, seed, options.epochs))
    gains = [full.every - head.every for _, head, full, _ in found]
    mean = {
        name: [float(np.mean([getattr(each[at], name) for each in found])) for at in range(3)]
        for name in Right._fields
    }
    lines = [
        Row(f"{title}: head-only merge, all classes (old, new)", _shares(mean, 1)),
        Row(f"{title}: full SparCL update with images, all classes (old, new)", _shares(mean, 2)),
        ledger.at_least(
            f"{title}: full update less head-only merge",
            float(np.mean(gains)),
            0.03,
            note=f" ({', '.join(f'{gain:+.3f}' for gain in gains)})",
        ),
    ]
    ledger.show("Update", lines)
    if options.write:
        ledger.write("update", "python benchmarks/update.py", ledger.rows_table(lines))


def _shares(mean: dict[str, list[float]], at: int) -> str:
    return f"{mean['every'][at]:.3f} ({mean['old'][at]:.3f}, {mean['new'][at]:.3f})"


if __name__ == "__main__":
    main()
