"""Lists Tiny-ImageNet as its archive lays it out (Le and Yang 2015); its `val` part is what is asked."""

from collections import Counter
from pathlib import Path

import numpy as np

from edge_cl.errors import ConfigError, LabelError
from edge_cl.sample import clean_label, label_key
from edge_cl.vision.files import shown
from host_trainer.datasets.folders import Folder, Pictures
from host_trainer.datasets.records import read_names, read_text

ARCHIVE_FOLDER = "tiny-imagenet-200"
SIZE = (64, 64)  # (H, W)
WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
FILES = (WNIDS, WORDS, ANNOTATIONS)
SUFFIX = ".JPEG"
MAX_TEXT_BYTES = 16 << 20  # words.txt names all of WordNet's nouns in 2.6 MB


def read_tiny_imagenet(folder: Path) -> Folder:
    """List the pictures of train/ and val/; classes in the order of wnids.txt, by the first of their words.

    Raises:
        ConfigError: a list that is damaged, a class without pictures, or an annotation of what is not there.
    """
    wnids = read_names(folder / WNIDS)
    classes = _classes(wnids, _words(folder / WORDS))
    return Folder(_train(folder, wnids, classes), _val(folder, wnids, classes))


def _words(path: Path) -> dict[str, str]:
    rows = (line.partition("\t") for line in read_text(path, MAX_TEXT_BYTES).splitlines())
    return {wnid: words.partition(",")[0] for wnid, _, words in rows}


def _classes(wnids: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    """Return each class's first word, or its number where two share the word or it cannot be a label."""
    names = []
    for wnid in wnids:
        try:
            names.append(clean_label(words.get(wnid, wnid)))
        except LabelError:
            names.append(wnid)
    count = Counter(map(label_key, names))
    return tuple(
        name if count[label_key(name)] == 1 else wnid for wnid, name in zip(wnids, names, strict=True)
    )


def _train(folder: Path, wnids: tuple[str, ...], classes: tuple[str, ...]) -> Pictures:
    paths: list[Path] = []
    labels: list[int] = []
    present = _names_in(folder / "train")
    for label, wnid in enumerate(wnids):
        found = sorted((folder / "train" / wnid / "images").glob(f"*{SUFFIX}")) if wnid in present else []
        if not found:
            raise ConfigError(
                f"class {shown(wnid)!r} of {WNIDS} has no train/{shown(wnid)}/images/*{SUFFIX}: "
                "unpack the archive again"
            )
        paths += found
        labels += [label] * len(found)
    return Pictures(tuple(paths), np.array(labels, np.int32), classes)


def _val(folder: Path, wnids: tuple[str, ...], classes: tuple[str, ...]) -> Pictures:
    images = folder / "val" / "images"
    present, number = _names_in(images), {wnid: label for label, wnid in enumerate(wnids)}
    paths: list[Path] = []
    labels: list[int] = []
    for row, line in enumerate(read_text(folder / ANNOTATIONS, MAX_TEXT_BYTES).splitlines(), start=1):
        name, wnid, *_ = (*line.split("\t"), "")
        if name not in present or wnid not in number:
            raise ConfigError(
                f"{ANNOTATIONS} row {row}: there is no picture {shown(name)!r} of class {shown(wnid)!r}: "
                "unpack the archive again"
            )
        paths.append(images / name)
        labels.append(number[wnid])
    if not paths:
        raise ConfigError(f"{ANNOTATIONS} names no pictures: unpack the archive again")
    return Pictures(tuple(paths), np.array(labels, np.int32), classes)


def _names_in(folder: Path) -> set[str]:
    """Return what lies in a folder, so that no name from a file is ever made a path unseen."""
    return {path.name for path in folder.glob("*")}
