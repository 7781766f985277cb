"""The messages of a sync round, and the contents that a device sends up: nouns, with the rules of each.

A round, `>` from device to host: > Greet, Welcome, > Chunk and Receipt until nothing is missing, > Commit,
Offer, (the bundle comes as a file), > Status, Acknowledgement. A content - statistics, features, images - is
named by the hash of its canonical bytes, holds its device and running numbers, and so is taken in once
however often it comes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_cl.wire.fields import (
    Array,
    Choice,
    Count,
    Flag,
    Label,
    Maybe,
    Name,
    PerMille,
    Raw,
    Record,
    Sha256,
    SpaceId,
    Version,
    Whole,
    Words,
    many,
)
from edge_cl.wire.labels import MAX_EDITS, Edit

STATISTICS, FEATURES, IMAGES = "statistics", "features", "images"
LEVELS = (STATISTICS, FEATURES, IMAGES)  # each tells all that those before it tell
REFUSALS = (
    "busy",
    "quota",
    "revoked",
    "unknown-device",
    "version",
    "malformed",
    "stale",
    "too-large",
    "code",
)
INSTALLS = ("idle", "download", "verify", "staged", "shadow", "swap", "probation", "commit", "rollback")

MAX_CLASSES = 1024  # of one device
MAX_CONTENTS = 256  # announced in one round; the rest waits for the next
MAX_CHUNK_BYTES = 256 << 10  # what a lost connection costs at most
MAX_CONTENT_BYTES = 32 << 20
MAX_SAMPLES = 4096  # of one content
MAX_PICTURE_BYTES = 8 << 20
MAX_RANK = 512  # of a scatter increment
MAX_WEIGHT = 1 << 40  # of a factor, or in units of 1/12 sample: beyond all samples there will be
FACTOR = 127  # largest value in a factor, either sign
JPEG = b"\xff\xd8\xff"

Level = Annotated[str, Choice(LEVELS)]
Labels = Annotated[tuple[str, ...], many(Label, MAX_CLASSES, is_set=True)]


@dataclass(frozen=True)
class Content(Record):
    """What a device has to send: its hash, its level, and its length in bytes."""

    id: Sha256
    level: Level
    size: Annotated[int, Whole(1, MAX_CONTENT_BYTES)]


@dataclass(frozen=True)
class Progress(Record):
    """How much of a content the host holds."""

    id: Sha256
    received: Annotated[int, Whole(0, MAX_CONTENT_BYTES)]


@dataclass(frozen=True, eq=False)
class Message(Record):
    """What is sent in one piece; two are equal when their canonical bytes are (`codec.canonical`)."""

    MAX_BODY_BYTES: ClassVar[int] = 0


@dataclass(frozen=True)
class Greet(Message):
    """The device says who it is, what it runs, and what it has to send.

    Attributes:
        device: its name, given at enrolment.
        round: counts the device's rounds; never falls.
        runtime: version of the program.
        hardware: classes of bundles that it can run, the preferred first.
        bundle: number of the bundle that runs; 0 before the first.
        space: features it learns from.
        registry: version of the label registry it follows.
        level: the most that it tells.
        last: the newest statistics that the host acknowledged; None before the first, or after a restore.
        contents: what it has to send.
    """

    device: Name
    round: Count
    runtime: Version
    hardware: Annotated[tuple[str, ...], many(Name, 8, is_set=True)]
    bundle: Count
    space: SpaceId
    registry: Count
    level: Level
    last: Sha256 | None
    contents: Annotated[tuple[Content, ...], many(Content, MAX_CONTENTS)]

    def check(self) -> None:
        """See `Record`."""
        if len({content.id for content in self.contents}) != len(self.contents):
            raise ValueError("a content is announced twice")


@dataclass(frozen=True)
class Welcome(Message):
    """The host says what it lacks of the contents announced.

    Attributes:
        round: of the greeting that this answers.
        registry: newest version of the label registry; its edits are fetched when the device's is older.
        level: the most that the host wants of this device.
        last: the newest statistics it has of this device; another one than the device's: start anew.
        missing: contents not held whole, with what is held of them.
        quota: bytes that it takes today.
    """

    round: Count
    registry: Count
    level: Level
    last: Sha256 | None
    missing: Annotated[tuple[Progress, ...], many(Progress, MAX_CONTENTS)]
    quota: Count


@dataclass(frozen=True)
class Chunk(Message):
    """A piece of a content's canonical bytes."""

    MAX_BODY_BYTES: ClassVar[int] = MAX_CHUNK_BYTES

    content: Sha256
    offset: Annotated[int, Whole(0, MAX_CONTENT_BYTES)]
    size: Annotated[int, Whole(1, MAX_CONTENT_BYTES)]
    data: Annotated[bytes, Raw(MAX_CHUNK_BYTES)]

    def check(self) -> None:
        """See `Record`."""
        if not self.data or self.offset + len(self.data) > self.size:
            raise ValueError("a chunk is empty, or goes beyond its content")


@dataclass(frozen=True)
class Receipt(Message):
    """The host acknowledges a chunk: how much of the content it holds from its start, on its disk."""

    content: Sha256
    received: Count
    is_whole: Flag


@dataclass(frozen=True)
class Commit(Message):
    """The device says that all contents of the round are there; the host may use them from now on."""

    device: Name
    round: Count
    contents: Annotated[tuple[str, ...], many(Sha256, MAX_CONTENTS, is_set=True)]


@dataclass(frozen=True)
class Offer(Message):
    """The host names the bundle that the device should run; nothing to do when it runs already.

    Attributes:
        round: of the commit that this answers.
        bundle: its number; 0: none for this device.
        manifest: hash of its manifest, which the signed targets must name, too.
        size: of its file in bytes, for the device to decide whether it can.
        taken: the newest statistics of this device that the bundle's head knows already; what the device
            learned after them it adds to that head. None: nothing of this device.
    """

    round: Count
    bundle: Count
    manifest: Sha256 | None
    size: Count
    taken: Sha256 | None

    def check(self) -> None:
        """See `Record`."""
        if (self.bundle == 0) != (self.manifest is None):
            raise ValueError("an offer names a bundle and its manifest, or neither")
        if self.manifest is None and self.taken is not None:
            raise ValueError("an offer of nothing knows nothing")


@dataclass(frozen=True)
class Refusal(Message):
    """The host does not go on with this round; `wait` seconds until another try makes sense."""

    reason: Annotated[str, Choice(REFUSALS)]
    words: Words
    wait: Count


@dataclass(frozen=True)
class Status(Message):
    """How the device fares.

    Attributes:
        device: its name.
        round: its running round.
        bundle: number of the bundle that runs.
        install: where an installation stands.
        tried: number of the bundle that is being installed; 0: none.
        reason: why it rolled back; empty otherwise.
        accuracy: running, before-you-learn; None before there is one.
        samples: taught so far.
        suspects: set aside by the label audit.
        latency: of a prediction, the median, microseconds.
    """

    device: Name
    round: Count
    bundle: Count
    install: Annotated[str, Choice(INSTALLS)]
    tried: Count
    reason: Words
    accuracy: Annotated[int | None, Maybe(Whole(0, 1000))]
    samples: Count
    suspects: Count
    latency: Count


@dataclass(frozen=True)
class Acknowledgement(Message):
    """The host has the status: the round is over, and `wait` seconds later the next one is welcome."""

    round: Count
    wait: Count


@dataclass(frozen=True, eq=False)
class Statistics(Message):
    """What the base has learned since the last statistics, as `learning.increment` makes it.

    Attributes:
        device: whose.
        number: counts the device's statistics.
        since: those that these continue; None: these replace all that the device said before.
        space: of the features.
        registry: version of the label registry that the labels follow: later edits apply to them.
        labels: of the classes, C.
        counts: (C,) weight added; below zero where samples were taken out.
        sums: (C, D) added, whole, in the narrowest dtype that holds them.
        residue: weight added whose class was forgotten.
        factors: (R, D) directions of the scatter, -FACTOR to FACTOR.
        weights: (R,) of the directions.
        spread: (D,) added to the scatter's diagonal, in units of `unit`.
        unit: of `spread`.
        error: share of the scatter that is not told yet.
        withdrawn: (G,) numbers of samples, rising, whose features and pictures the host is to destroy: they
            were forgotten, or their class is private now.
    """

    MAX_BODY_BYTES: ClassVar[int] = 16 << 20

    device: Name
    number: Count
    since: Sha256 | None
    space: SpaceId
    registry: Count
    labels: Labels
    counts: Annotated[NDArray[np.int64], Array(("int64",), ("C",))]
    sums: Annotated[NDArray, Array(("int8", "int16", "int32", "int64"), ("C", "D"))]
    residue: Annotated[int, Whole(-MAX_WEIGHT, MAX_WEIGHT)]
    factors: Annotated[NDArray[np.int8], Array(("int8",), ("R", "D"))]
    weights: Annotated[NDArray[np.int64], Array(("int64",), ("R",))]
    spread: Annotated[NDArray[np.int8], Array(("int8",), ("D",))]
    unit: Annotated[int, Whole(0, MAX_WEIGHT)]
    error: PerMille
    withdrawn: Annotated[NDArray[np.int64], Array(("int64",), ("G",))]

    def check(self) -> None:
        """See `Record`."""
        _check_labels(self.labels, len(self.counts))
        _check_rising(self.withdrawn)
        if len(self.weights) > MAX_RANK or largest(self.factors) > FACTOR:
            raise ValueError("the factors are too many or too large")
        if max(largest(self.counts), largest(self.weights)) > MAX_WEIGHT:
            raise ValueError("a weight is beyond that of all samples")
        if self.sums.dtype != narrowest(self.sums):
            raise ValueError("sums are wider than they need be")


@dataclass(frozen=True, eq=False)
class Features(Message):
    """Features of N samples with V views, and what they were taught as.

    Attributes:
        device: whose.
        space: which features.
        registry: version of the label registry that the labels follow.
        labels: of the classes, C.
        samples: (N,) numbers of the device's samples, rising.
        numbers: (N,) class of each.
        features: (N, V, D) as the backbone stored them.
    """

    MAX_BODY_BYTES: ClassVar[int] = 32 << 20

    device: Name
    space: SpaceId
    registry: Count
    labels: Labels
    samples: Annotated[NDArray[np.int64], Array(("int64",), ("N",))]
    numbers: Annotated[NDArray[np.int32], Array(("int32",), ("N",))]
    features: Annotated[NDArray, Array(("int8", "uint8", "float32"), ("N", "V", "D"))]

    def check(self) -> None:
        """See `Record`."""
        _check_samples(self.samples, self.numbers, len(self.labels))


@dataclass(frozen=True, eq=False)
class Images(Message):
    """Pictures of N samples, JPEG files end to end, and what they were taught as.

    Attributes:
        device: whose.
        registry: version of the label registry that the labels follow.
        labels: of the classes, C.
        samples: (N,) numbers of the device's samples, rising.
        numbers: (N,) class of each.
        sizes: (N,) bytes of each picture.
        pictures: (P,) all bytes.
    """

    MAX_BODY_BYTES: ClassVar[int] = 32 << 20

    device: Name
    registry: Count
    labels: Labels
    samples: Annotated[NDArray[np.int64], Array(("int64",), ("N",))]
    numbers: Annotated[NDArray[np.int32], Array(("int32",), ("N",))]
    sizes: Annotated[NDArray[np.int32], Array(("int32",), ("N",))]
    pictures: Annotated[NDArray[np.uint8], Array(("uint8",), ("P",))]

    def check(self) -> None:
        """See `Record`."""
        _check_samples(self.samples, self.numbers, len(self.labels))
        if ((self.sizes < len(JPEG)) | (self.sizes > MAX_PICTURE_BYTES)).any():
            raise ValueError("a picture is empty or too large")
        if int(self.sizes.sum(dtype=np.int64)) != len(self.pictures):
            raise ValueError("the pictures have not the sizes that are told")
        if any(not picture.startswith(JPEG) for picture in self.files()):
            raise ValueError("a picture is not a JPEG file")

    def files(self) -> list[bytes]:
        """Return each picture's bytes."""
        ends = np.cumsum(self.sizes, dtype=np.int64)
        data = self.pictures.tobytes()
        return [data[end - size : end] for end, size in zip(ends.tolist(), self.sizes.tolist(), strict=True)]


@dataclass(frozen=True)
class Renaming(Message):
    """Edits of the label registry that the device lacks, in order; it asks again while there are more."""

    edits: Annotated[tuple[Edit, ...], many(Edit, MAX_EDITS)]


CONTENTS: dict[str, type[Message]] = {STATISTICS: Statistics, FEATURES: Features, IMAGES: Images}
MESSAGES: dict[str, type[Message]] = {
    each.__name__.lower(): each
    for each in (
        *(Greet, Welcome, Chunk, Receipt, Commit, Offer, Status, Acknowledgement, Refusal, Renaming),
        *CONTENTS.values(),
    )
}


def narrowest(values: NDArray) -> np.dtype:
    """Return the smallest signed integer dtype that holds all values."""
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kinds = (np.dtype(name) for name in ("int8", "int16", "int32", "int64"))
    return next(kind for kind in kinds if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max)


def largest(values: NDArray) -> int:
    """Return the largest magnitude; in plain numbers, since the least int8 has no positive twin."""
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _check_labels(labels: tuple[str, ...], classes: int) -> None:
    if len(labels) != classes:
        raise ValueError(f"{len(labels)} labels for {classes} classes")


def _check_samples(samples: NDArray[np.int64], numbers: NDArray[np.int32], classes: int) -> None:
    _check_rising(samples)
    if ((numbers < 0) | (numbers >= classes)).any():
        raise ValueError("a sample has a class that is not listed")


def _check_rising(samples: NDArray[np.int64]) -> None:
    if len(samples) > MAX_SAMPLES or (np.diff(samples) <= 0).any() or samples.min(initial=1) < 1:
        raise ValueError("the samples are too many, or their numbers do not rise from 1")
