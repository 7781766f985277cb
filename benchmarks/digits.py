"""Touches the handwritten digits that come with scikit-learn: writes them as pictures, so that nothing needs
a download.

1,797 digits that people wrote on paper, as 8x8 counts of dark pixels (0 to 16): Alpaydin and Kaynak, Optical
Recognition of Handwritten Digits, UCI Machine Learning Repository 1998 (CC BY 4.0), its test part. Written
here as dark ink on white paper, enlarged smoothly, in the layout that `edge-cl eval --data` takes,
DIR/train/CLASS/FILE and DIR/test/CLASS/FILE.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

CLASSES = tuple("0123456789")
DARKEST = 16  # of the counts
SIDE = 64  # pixels of a picture
PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # of scikit-learn too; neither shows a digit


def unpack(target: Path, most: dict[str, int]) -> int:
    """Write digits below `target` and return how many pictures that is.

    Args:
        target: gets train/DIGIT/FILE and test/DIGIT/FILE.
        most: pictures of a class for each part, {"train": 72, "test": 24}; the first of a class are taught,
            the last are asked about.
    """
    found = load_digits()
    for label in CLASSES:
        numbers = np.flatnonzero(found.target == int(label))
        parts = {"train": numbers[: most["train"]], "test": numbers[most["train"] :][-most["test"] :]}
        for part, chosen in parts.items():
            _write(target / part / label, found.images, chosen)
    return len(CLASSES) * (most["train"] + most["test"])


def strangers(target: Path) -> list[Path]:
    """Write two photographs into `target`, which show nothing of the kind, and return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        Image.fromarray(load_sample_image(name)).save(target / name)
    return [target / name for name in PHOTOGRAPHS]


def _write(folder: Path, images: np.ndarray, chosen: Sequence[int]) -> None:
    folder.mkdir(parents=True)
    for number in chosen:
        paper = np.uint8(np.rint(255 * (1 - images[number] / DARKEST)))
        large = Image.fromarray(paper).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        large.save(folder / f"digit-{number:04}.png")
