"""The nouns that travel through every folder: labels, answers, feature spaces.

Dimension letters used everywhere: B batch, V views, D features, C classes, H W image, K buffer slots.
"""

import unicodedata
from typing import NamedTuple

from edge_cl.errors import LabelError

MAX_LABEL_BYTES = 200  # UTF-8; a file name holds 255, and exports append to it


class FeatureSpace(NamedTuple):
    """Which backbone made a feature, and how its numbers are to be read.

    Attributes:
        id: hash of the backbone file and its kernel set; features of different ids never mix.
        size: D, values per feature.
        dtype: numpy name of the stored values: `int8`, `uint8` or `float32`.
        scale: real value = scale * (stored - zero_point).
        zero_point: stored value that stands for zero.
    """

    id: str
    size: int
    dtype: str
    scale: float
    zero_point: int


class Prediction(NamedTuple):
    """The answer to one picture.

    Attributes:
        label: the most probable class, or None when the answer is "none of what I was taught".
        probability: calibrated, of `best`, in [0, 1].
        best: the most probable taught class, also when `label` is None; None when nothing was taught.
        second: the runner-up class, None when there is none.
        second_probability: calibrated, in [0, 1].
        familiarity: how usual the picture is among taught ones, in [0, 1]; low means unknown.
    """

    label: str | None
    probability: float
    best: str | None
    second: str | None
    second_probability: float
    familiarity: float


def clean_label(text: str) -> str:
    """Return the class name as it is kept: NFC, no space at the ends.

    Raises:
        LabelError: empty, longer than MAX_LABEL_BYTES in UTF-8, or holding a slash, a backslash or a
            control character (labels are folder names in every export).
    """
    label = unicodedata.normalize("NFC", text).strip()
    if not label:
        raise LabelError("the label is empty: give the class a name")
    try:
        size = len(label.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise LabelError("the label is not valid Unicode: rename it") from error
    if size > MAX_LABEL_BYTES:
        raise LabelError(f"the label is {size} bytes long; at most {MAX_LABEL_BYTES}: shorten it")
    if label in {".", ".."} or any(
        c in "/\\" or unicodedata.category(c) in {"Cc", "Zl", "Zp"} for c in label
    ):
        raise LabelError(f"the label {label!r} holds a slash or a control character: labels are folder names")
    return label


def label_key(label: str) -> str:
    """Return the form under which two spellings are one class (NFKC, case folded)."""
    return unicodedata.normalize("NFKC", label).casefold()
