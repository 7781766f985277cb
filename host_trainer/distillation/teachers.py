"""Asks a teacher what it says of pictures: a Keras network, a TFLite file run by LiteRT, or several of them.

Letters: B batch, H W pixels, C classes, D features. Nothing is trained or written here.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_cl.errors import ConfigError, MismatchError, ModelError
from edge_cl.vision.backbone import Backbone, open_backbone, read_model_file
from edge_cl.vision.extractor import Cut, cut_at_embedding, cut_at_logits
from edge_cl.vision.files import open_plain
from edge_cl.vision.ports import InputRange
from host_trainer.backbones.networks import backbone_of
from host_trainer.checkpoints import load_network, weights_of
from host_trainer.network import Network, to_input

BATCH = 64  # pictures a call of a Keras teacher; its maps of 224 px fit into 1 GB
ID_DIGITS = 16  # hexadecimal, as the device names its feature spaces
TFLITE = ".tflite"


class Kind(str, Enum):
    """What a teacher says: logits of classes, or a feature that means something to itself only."""

    LOGITS = "logits"
    FEATURES = "features"


class Teacher(Protocol):
    """What can be learned from.

    Attributes:
        name: what a person calls it.
        id: hash of all that its answers depend on; equal ids, equal answers.
        kind: of its answers.
        size: values of an answer, C or D.
        classes: names of its logits where it knows them; else empty.
        input_size: (H, W) at which it looks at pictures; other sizes are stretched to it.
    """

    name: str
    id: str
    kind: Kind
    size: int
    classes: tuple[str, ...]
    input_size: tuple[int, int]

    def targets(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return its answers: (B, H, W, 3) uint8 of any H and W to (B, C or D) float32.

        Logits are right up to a constant a row.
        """

    def close(self) -> None:
        """Let go of its memory; it may not be asked again."""


class KerasTeacher:
    """A network of ours: its logits, or the feature below them."""

    def __init__(self, network: Network, kind: Kind) -> None:
        if kind is Kind.LOGITS and not network.classes:
            raise ModelError(f"{network.name} is a backbone without classes: match its features instead")
        self._model = network.model if kind is Kind.LOGITS else backbone_of(network.model)
        self._input_range, self.input_size = network.input_range, network.input_size
        self.name, self.kind, self.size = network.name, kind, int(self._model.output.shape[-1])
        self.classes = network.classes if kind is Kind.LOGITS else ()
        self.id = _hash_of(kind, network.input_range, self.input_size, _weights_hash(self._model))

    def targets(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits or features: (B, H, W, 3) uint8 to (B, C or D)."""
        from host_trainer.training.gradients import predict

        images = to_input(resized(pixels, self.input_size), self._input_range)
        return predict(self._model, images, BATCH).astype(np.float32, copy=False)

    def close(self) -> None:
        """Let go of the network."""
        self._model = None


class TFLiteTeacher:
    """A TFLite file in LiteRT, through the code that runs it on a device; answers in real numbers."""

    def __init__(self, backbone: Backbone, name: str, kind: Kind) -> None:
        self._backbone = backbone
        self.name, self.kind, self.size = name, kind, backbone.space.size
        self.classes: tuple[str, ...] = ()
        self.input_size = backbone.input_size
        self.id = _hash_of(kind, backbone.space.id)

    def targets(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits or features: (B, H, W, 3) uint8 to (B, C or D); one picture at a time."""
        stored = self._backbone.embed_many(resized(pixels, self._backbone.input_size))
        space = self._backbone.space
        return (stored.astype(np.float32) - np.float32(space.zero_point)) * np.float32(space.scale)

    def close(self) -> None:
        """Let go of the interpreter."""
        self._backbone.close()


class Ensemble:
    """Several teachers as one (Bucila et al. 2006).

    Of logits it gives the logarithm of the mean of their softmaxes, of features all of them side by side,
    each with the length 1, so that none drowns another.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        _check_alike(members)
        self._members = tuple(members)
        self.kind, self.name = members[0].kind, " + ".join(member.name for member in members)
        self.size = members[0].size if self.kind is Kind.LOGITS else sum(member.size for member in members)
        self.input_size = max(member.input_size for member in members)
        self.classes = next((member.classes for member in members if member.classes), ())
        self.id = _hash_of(self.kind, *(member.id for member in members))

    def targets(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what the members say together: (B, H, W, 3) uint8 to (B, C or D)."""
        said = [member.targets(pixels) for member in self._members]
        if self.kind is Kind.LOGITS:
            return mean_of_softmaxes(said)
        return np.concatenate([_unit(features) for features in said], axis=1)

    def close(self) -> None:
        """Let go of every member."""
        for member in self._members:
            member.close()


def open_teacher(
    paths: Sequence[Path], kind: Kind, *, input_range: InputRange | None = None, num_threads: int = 1
) -> Teacher:
    """Open one teacher, or several as an ensemble: each a TFLite file or a folder that `host-trainer` wrote.

    Args:
        paths: at least one.
        kind: what they are asked for; a classifier file is cut at its embedding or before its softmax.
        input_range: what pixel values 0 and 255 become; for float TFLite files, which do not say it.
        num_threads: of a TFLite file's interpreter.

    Raises:
        ConfigError: no path.
        ModelError: a file or folder that cannot teach this.
        MismatchError: an ensemble whose members give different numbers or names of classes.
        EngineError: no interpreter works here.
    """
    if not paths:
        raise ConfigError("nobody teaches: give --teacher, a .tflite file or a folder of ours")
    members: list[Teacher] = []
    try:
        for path in paths:
            members.append(_open_one(path, kind, input_range, num_threads))
        return members[0] if len(members) == 1 else Ensemble(members)
    except Exception:
        for member in members:
            member.close()
        raise


def check_classes(teacher: Teacher, classes: Sequence[str]) -> None:
    """Refuse a teacher of logits that are not of these classes in this order; features fit always.

    Raises:
        MismatchError: another number of classes, or other names.
    """
    if teacher.kind is Kind.FEATURES:
        return
    if teacher.size != len(classes):
        raise MismatchError(
            f"{teacher.name} tells {teacher.size} classes apart, the pictures have {len(classes)}: "
            "give a teacher of these classes, or match features instead of logits"
        )
    other = next((pair for pair in zip(teacher.classes, classes, strict=False) if pair[0] != pair[1]), None)
    if other:
        raise MismatchError(
            f"{teacher.name} knows {other[0]!r} where the pictures have {other[1]!r}: "
            "give a teacher of these classes, or match features instead of logits"
        )


def mean_of_softmaxes(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return log(mean of softmax(z_i)), (B, C) each: logits of the ensemble, without under- or overflow."""
    logs = np.stack([each - _log_sum_exp(each, axis=1) for each in np.asarray(logits, np.float64)])
    return (_log_sum_exp(logs, axis=0)[0] - np.log(len(logs))).astype(np.float32)


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return pictures at `size` = (H, W), stretched as the device does it: (B, h, w, 3) uint8 in and out.

    Small pictures made large hold no more than they did: decode at the teacher's size where it matters.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"resized takes (B, H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    if pixels.shape[1:3] == size:
        return pixels
    made = np.empty((len(pixels), *size, 3), np.uint8)
    for number, picture in enumerate(pixels):
        image = Image.fromarray(np.ascontiguousarray(picture))
        made[number] = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return made


def _open_one(path: Path, kind: Kind, input_range: InputRange | None, num_threads: int) -> Teacher:
    if path.is_dir():
        return KerasTeacher(load_network(path), kind)
    cut = cut_at_embedding if kind is Kind.FEATURES else cut_at_logits
    read_model_file(path)  # its refusals are clearer than the parser's
    try:
        with _in_memory(cut(_bytes_of(path))) as shorter:
            backbone = open_backbone(shorter, num_threads=num_threads, input_range=input_range)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from error
    return TFLiteTeacher(backbone, path.name, kind)


@contextmanager
def _in_memory(cut: Cut) -> Iterator[str]:
    """Yield a path to a file in memory: interpreters map their file, and the mapping outlives the path."""
    descriptor = os.memfd_create("teacher")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(cut.data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _bytes_of(path: Path) -> bytes:
    file, _ = open_plain(path, ModelError)
    with file:
        return file.read()


def _check_alike(members: Sequence[Teacher]) -> None:
    if not members:
        raise ValueError("an ensemble has at least one member")
    first = members[0]
    for member in members[1:]:
        if member.kind is not first.kind:
            raise MismatchError(f"{member.name} gives {member.kind.value}, {first.name} {first.kind.value}")
        if first.kind is Kind.LOGITS and member.size != first.size:
            raise MismatchError(
                f"{member.name} tells {member.size} classes apart, {first.name} {first.size}: "
                "teachers of one ensemble know the same classes"
            )
        if first.classes and member.classes and member.classes != first.classes:
            raise MismatchError(f"{member.name} and {first.name} name their classes differently")


def _weights_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for path, values in weights_of(model).items():
        digest.update(f"{path} {values.shape} {values.dtype}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _hash_of(*facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode("utf-8")).hexdigest()[:ID_DIGITS]


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, np.float32(1))


def _log_sum_exp(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    highest = values.max(axis=axis, keepdims=True)
    summed: NDArray[np.float64] = np.log(np.exp(values - highest).sum(axis=axis, keepdims=True))
    return highest + summed
