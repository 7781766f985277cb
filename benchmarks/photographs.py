"""Touches the real photographs of EDGE_CL_DATA: unpacks a data set's tar, and turns it into features,
cached.

Shared by the benchmarks and the demo. A data set is a folder with an uncompressed tar of JPEGs and a
manifest.csv (path, class, split, session, order). It is unpacked into the layout that `edge-cl eval --data`
takes, DIR/train/CLASS/FILE and DIR/test/CLASS/FILE; validation pictures join the training ones.
"""

import contextlib
import csv
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edge_cl.commands import dataset
from edge_cl.commands.evaluate import default_cache
from edge_cl.commands.terminal import Progress
from edge_cl.evaluation.protocols import Samples
from edge_cl.memory.cache import FeatureCache
from edge_cl.sample import FeatureSpace

CHECKOUT = Path(__file__).resolve().parent.parent
EXTRACTOR = "models/coral/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
VIEWS = 4  # embedded of every picture; fewer are the first of these
MISSING = """\
This runs on real photographs with a real backbone, and they are not part of the project. Set EDGE_CL_DATA to
a folder that holds a TFLite image backbone (google-coral/test_data on GitHub has it) as
  {extractor}
and photographs of classes (here garythung/trashnet, also on GitHub) as an uncompressed tar of JPEGs,
  {set}/{set}.tar
with {set}/manifest.csv (columns path,class,split,session,order; split is train, val or test).
Then: EDGE_CL_DATA=/path/to/that/folder make bench      (looked in {folder})"""


class Set(NamedTuple):
    """A data set of the benchmarks: its name in words, its folder, and its tasks."""

    title: str
    folder: str
    tasks: int


STRANGERS = ("parrot.jpg", "sunflower.bmp", "cat.bmp")  # of models/coral; nothing of the kind is in a set

SETS = {
    "trashnet": Set("TrashNet", "trashnet_224", 3),
    "signdigits": Set("Sign digits", "signdigits_100", 5),
    "packages": Set("Grocery packages", "grocery_packages_224", 9),
}


class Photographs(NamedTuple):
    """A data set as features: which space, what is taught, what is asked."""

    space: FeatureSpace
    train: Samples
    test: Samples


def data_folder(needed: str = "trashnet") -> Path:
    """Return EDGE_CL_DATA, else ../shared/data beside the checkout; ends with advice when it is not there."""
    if not are_here(needed):
        name = SETS[needed].folder
        print(MISSING.format(extractor=EXTRACTOR, set=name, folder=_folder()), file=sys.stderr)
        raise SystemExit(2)
    return _folder()


def are_here(needed: str) -> bool:
    """Tell whether a data set and the extractor lie where they are looked for."""
    return (_folder() / EXTRACTOR).is_file() and any((_folder() / SETS[needed].folder).glob("*.tar"))


def _folder() -> Path:
    named = os.environ.get("EDGE_CL_DATA")
    return Path(named) if named else CHECKOUT.parent / "shared" / "data"


def extractor() -> Path:
    """Return the file of MobileNetV1 1.0/224 int8, cut at its embedding by Coral."""
    return data_folder() / EXTRACTOR


def strangers() -> list[Path]:
    """Return photographs of nothing that the sets hold; those of STRANGERS that are there."""
    coral = extractor().parent
    return [coral / name for name in STRANGERS if (coral / name).is_file()]


def unpack(name: str, target: Path, most: dict[str, int] | None = None) -> int:
    """Write a data set below `target` and return how many pictures that is.

    Args:
        name: a key of SETS.
        target: gets train/CLASS/FILE, test/CLASS/FILE and manifest.csv.
        most: pictures of a class and part at most, such as {"train": 40}; the first of the manifest.
    """
    source = data_folder(name) / SETS[name].folder
    with (source / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    count: dict[tuple[str, str], int] = {}
    written = []
    with tarfile.open(next(source.glob("*.tar"))) as tar:
        members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
        for row in rows:
            part = "test" if row["split"] == "test" else "train"
            key = (part, row["class"])
            count[key] = count.get(key, 0) + 1
            if most and count[key] > most.get(part, count[key]):
                continue
            place = PurePosixPath(part, row["class"], _file_name(row))
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            data = tar.extractfile(members[row["path"]])
            assert data is not None
            (target / place).write_bytes(data.read())
            written.append((place.as_posix(), row["session"], row["order"]))
    assert len(set(written)) == len(written), "two pictures of one name"
    with (target / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "session", "order"), *written])
    return len(written)


def _file_name(row: dict[str, str]) -> str:
    """Return the name a picture gets: some sets use a name in train and in val, for two pictures."""
    name = PurePosixPath(row["path"]).name
    return f"val-{name}" if row["split"] == "val" else name


@contextlib.contextmanager
def unpacked(name: str, most: dict[str, int] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that holds a data set."""
    with tempfile.TemporaryDirectory(prefix="edge-cl-") as folder:
        unpack(name, Path(folder), most)
        yield Path(folder)


def load(name: str, cache_folder: Path | None = None) -> Photographs:
    """Return a data set as features (N, 4, D), exactly as `edge-cl eval` makes and caches them.

    The first time takes some 12 ms a picture and view; after that seconds.
    """
    path = cache_folder / default_cache().name if cache_folder else default_cache()
    with unpacked(name) as folder:
        return embed(folder, path, extractor())


def embed(folder: Path, cache_file: Path, network: Path, mirror: bool = True) -> Photographs:
    """Return the pictures below DIR/train and DIR/test as features (N, 4, D) of a backbone file."""
    with dataset.opened_at_embedding(network, 1) as backbone, FeatureCache(cache_file) as cache:
        found = dataset.read_data_set(folder)
        embedder = dataset.Embedder(backbone, cache, VIEWS, mirror)
        with Progress(len(found.train) + len(found.test)) as bar:
            train = embedder.embed(found.train, found.taken, bar.show)
            test = embedder.embed(
                found.test, found.taken, lambda n, words: bar.show(len(found.train) + n, words)
            )
        for refused in (*found.refused, *train.refused, *test.refused):
            print(f"{refused.name}: {refused.reason}", file=sys.stderr)
        return Photographs(backbone.space, train.samples, test.samples)
