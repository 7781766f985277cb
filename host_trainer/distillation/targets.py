"""Remembers on the disk what a teacher said of each view of each picture, so that it is asked once.

Two files, mapped: the answers, and which of them are there. Answers reach the disk before their mark does, so
a process that dies, or a plug that is pulled, loses work and never invents any.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import StoreError
from host_trainer.artefacts import make_folder
from host_trainer.distillation.teachers import Teacher

KEPT = np.float16  # as the answers are kept: 1 part in 2,000, finer than an int8 teacher's own steps
HIGHEST = float(np.finfo(KEPT).max)
BLOCK = 64  # views asked about between two marks
LAYOUT = 1  # of the files; another number makes them anew

Watch = Callable[[int], None]


class Seen(Protocol):
    """Views of pictures: an array (N, V, H, W, 3) uint8, or what decodes them when asked.

    `seen[pictures, views]`, (B,) indices each, gives (B, H, W, 3) uint8, best at the teacher's own size.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, V, H, W, 3)."""

    def __getitem__(self, places: Any) -> NDArray[np.uint8]:
        """Return the views at these places."""


class Targets:
    """A teacher's answers to the views of a set of pictures, each asked for when first wanted.

    Attributes:
        teacher: who is asked.
        pixels: what is shown to it.
    """

    def __init__(self, teacher: Teacher, pixels: Seen, answers: Path, marks: Path) -> None:
        count, views = pixels.shape[:2]
        self.teacher, self.pixels = teacher, pixels
        self._answers = _mapped(answers, KEPT, (count * views, teacher.size))
        self._marks = _mapped(marks, np.uint8, (count * views,))

    @property
    def known(self) -> int:
        """How many of the N * V answers are there."""
        return int(np.count_nonzero(self._marks))

    @property
    def total(self) -> int:
        """How many answers there will be, N * V."""
        return len(self._marks)

    def all(self) -> NDArray[np.float16]:
        """Return every answer, (N, V, C or D), mapped from the file; `fill` first."""
        return self._answers.reshape(*self.pixels.shape[:2], self.teacher.size)

    def of(self, images: NDArray[np.intp], views: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the answers to some views, (B,) and (B,) indices to (B, C or D) float32."""
        places = np.asarray(images) * self.pixels.shape[1] + np.asarray(views)
        unknown = np.unique(places[self._marks[places] == 0])
        for at in range(0, len(unknown), BLOCK):
            self._ask(unknown[at : at + BLOCK])
        return self._answers[places].astype(np.float32)

    def fill(self, watch: Watch = lambda known: None) -> None:
        """Ask about everything that is not known yet; `watch` hears how many answers there are."""
        unknown = np.flatnonzero(self._marks == 0)
        known = len(self._marks) - len(unknown)
        for at in range(0, len(unknown), BLOCK):
            self._ask(unknown[at : at + BLOCK])
            watch(known + min(at + BLOCK, len(unknown)))

    def _ask(self, places: NDArray[np.intp]) -> None:
        images, views = np.divmod(places, self.pixels.shape[1])
        said = self.teacher.targets(self.pixels[images, views])
        self._answers[places] = np.clip(said, -HIGHEST, HIGHEST).astype(KEPT)
        self._answers.flush()
        self._marks[places] = 1


def open_targets(teacher: Teacher, pixels: Seen, key: str, cache: Path) -> Targets:
    """Return the remembered answers of `teacher` to `pixels`.

    Args:
        teacher: who is asked; its id is part of the files' name.
        pixels: V views of N pictures.
        key: of the pixels; the same key, the same pixels.
        cache: folder of the files, N * V * C (or D) * 2 bytes.

    Raises:
        StoreError: no space, no permission.
    """
    if len(pixels.shape) != 5:
        raise ValueError(f"targets are of (N, V, H, W, 3) uint8, not {pixels.shape}")
    facts = repr((LAYOUT, teacher.id, teacher.size, pixels.shape, key)).encode("utf-8")
    name = hashlib.sha256(facts).hexdigest()[:24]
    folder = make_folder(cache)
    try:
        return Targets(teacher, pixels, folder / f"{name}.answers", folder / f"{name}.known")
    except OSError as error:
        raise StoreError(
            f"the teacher's answers cannot be kept in {cache} ({error.strerror}): name another with --cache"
        ) from error


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """Map a file of that many values for reading and writing; a new one is all zeros."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("ab") as file:  # neither empties an old file nor minds another process that made it
        # The space is taken now: a full disk is an error here, and would be the end of the process later.
        os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=shape)
