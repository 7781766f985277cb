"""A release as one file: a manifest, then the parts that it carries, each with size and hash.

    "ECLB" | version u8 | 3 zero bytes | manifest bytes u32 | manifest (canonical JSON) | parts, end to end

All little endian. A part that the parent bundle has already is named but not carried, so that a new head
travels without its backbone. Nothing is run, nothing is unpickled, and no name of a peer becomes a path:
parts have the names of PARTS, no others.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from numpy.typing import NDArray

from edge_cl.errors import ProtocolError, ReleaseError
from edge_cl.sample import FeatureSpace
from edge_cl.wire import canonical, packing, parts
from edge_cl.wire.fields import (
    Choice,
    Count,
    Flag,
    Name,
    PerMille,
    Real,
    Record,
    Sha256,
    SpaceId,
    Text,
    Whole,
    from_plain,
    many,
    to_plain,
)
from edge_cl.wire.messages import Labels
from edge_cl.wire.parts import Lengths, Tensors
from edge_cl.wire.release import MAX_BUNDLE, MODEL, Facts, to_custom

MAGIC = b"ECLB"
VERSION = 1
START = struct.Struct("<4sB3sI")
MAX_MANIFEST_BYTES = canonical.MAX_TEXT_BYTES
BACKBONES = ("backbone.tflite", "backbone.onnx", "backbone_edgetpu.tflite")
HEAD, GOLDEN, EXEMPLARS = "head.safetensors", "golden.safetensors", "exemplars.safetensors"
PARTS = (*BACKBONES, HEAD, GOLDEN, EXEMPLARS)
MAX_PART_BYTES = {
    **dict.fromkeys(BACKBONES, 256 << 20),
    HEAD: 96 << 20,  # 4,096 features, exact: 67 MB
    GOLDEN: 32 << 20,
    EXEMPLARS: 32 << 20,
}
MAX_SIZE = max(MAX_PART_BYTES.values())
PACKED = (HEAD, EXEMPLARS)  # what zlib makes smaller; int8 weights of a backbone it does not
TFLITE_MAGIC = b"TFL3"  # flatbuffer file identifier, bytes 4..8


@dataclass(frozen=True)
class Space(Record):
    """The feature space of head and exemplars, as `FeatureSpace`."""

    id: SpaceId
    size: Annotated[int, Whole(1, 4096)]
    dtype: Annotated[str, Choice(("int8", "uint8", "float32"))]
    scale: Annotated[float, Real(5e-324, 1e30)]
    zero_point: Annotated[int, Whole(-128, 255)]


@dataclass(frozen=True)
class Input(Record):
    """How a picture becomes what the backbone takes; see `vision.backbone.Manifest`."""

    height: Annotated[int, Whole(1, 1024)]
    width: Annotated[int, Whole(1, 1024)]
    low: Annotated[float, Real(-1e6, 1e6)]
    high: Annotated[float, Real(-1e6, 1e6)]
    resize: Annotated[str, Choice(("squash", "crop", "pad"))]
    mirror: Flag


@dataclass(frozen=True)
class Gates(Record):
    """What a device must find before it swaps, in whole numbers.

    Attributes:
        accuracy: the least that the host found on data of nobody.
        fall: by how much accuracy on the device's own held-back samples may be lower than that of what runs.
        golden: the most steps by which a golden output may differ on the board.
        cosine: the least cosine of golden outputs.
        latency: of a feature, microseconds; 0: any.
        memory: kilobytes; 0: any.
    """

    accuracy: PerMille
    fall: PerMille
    golden: Count
    cosine: PerMille
    latency: Count
    memory: Count


@dataclass(frozen=True)
class Part(Record):
    """A file of a bundle: size, hash, and how many bytes of it are carried; some, but not all: by zlib."""

    name: Annotated[str, Choice(PARTS)]
    size: Annotated[int, Whole(1, MAX_SIZE)]
    sha256: Sha256
    carried: Annotated[int, Whole(0, MAX_SIZE)]

    def check(self) -> None:
        """See `Record`."""
        if self.size > MAX_PART_BYTES[self.name] or self.carried > self.size:
            raise ValueError(f"{self.name} is too large")
        if 0 < self.carried < self.size and self.name not in PACKED:
            raise ValueError(f"{self.name} is carried as it is, or not at all")


@dataclass(frozen=True)
class Manifest(Record):
    """What a bundle is.

    Attributes:
        bundle: its number; the higher one is the newer.
        parent: number of the bundle it was trained from, whose parts it may leave out; 0: none.
        model: its name.
        hardware: classes of boards it runs on.
        runtime_from, runtime_below: edge-cl that can run it; see `release.Facts`.
        space: of head and exemplars.
        labels: of the classes, C, in the head's order.
        registry: version of the label registry that they follow.
        input: how a picture is prepared.
        gates: what a device must find.
        parts: its files, in the order in which they are carried.
        run: of the training that made it.
    """

    bundle: Annotated[int, Whole(1, MAX_BUNDLE)]
    parent: Count
    model: Annotated[str, Text(MODEL.pattern)]
    hardware: Annotated[tuple[str, ...], many(Name, 8, is_set=True)]
    runtime_from: Annotated[str, Text(r"[0-9.]{1,31}")]
    runtime_below: Annotated[str, Text(r"[0-9.]{0,31}")]
    space: Space
    labels: Labels
    registry: Count
    input: Input
    gates: Gates
    parts: Annotated[tuple[Part, ...], many(Part, len(PARTS))]
    run: Annotated[str, Text(r"[A-Za-z0-9._-]{0,64}")]

    def check(self) -> None:
        """See `Record`."""
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ValueError("a part is named twice")
        if not set(BACKBONES) & set(names) or not {HEAD, GOLDEN} <= set(names):
            raise ValueError("a bundle needs a backbone, a head and golden answers")
        if not self.parent < self.bundle:
            raise ValueError("a bundle is newer than its parent")
        if not self.parent and any(not part.carried for part in self.parts):
            raise ValueError("a bundle without a parent carries all its parts")
        try:
            to_custom(self.facts)
        except ReleaseError as error:
            raise ValueError(str(error)) from error

    @property
    def facts(self) -> Facts:
        """What the repository must say of the file that holds this."""
        return Facts(self.bundle, self.hardware, self.runtime_from, self.runtime_below)

    @property
    def feature_space(self) -> FeatureSpace:
        """The space of head and exemplars."""
        return FeatureSpace(*(getattr(self.space, name) for name in FeatureSpace._fields))

    @property
    def lengths(self) -> Lengths:
        """What the tensors of the parts must fit."""
        return Lengths(
            self.space.size, len(self.labels), self.space.dtype, (self.input.height, self.input.width)
        )

    def part(self, name: str) -> Part | None:
        """Return the part of a name, None when there is none."""
        return next((part for part in self.parts if part.name == name), None)


class Bundle(NamedTuple):
    """A bundle that was read: what it is, and the bytes of the parts that it carries, by name."""

    manifest: Manifest
    files: dict[str, bytes]

    def missing(self) -> tuple[Part, ...]:
        """Return the parts that must come from an earlier bundle."""
        return tuple(part for part in self.manifest.parts if part.name not in self.files)

    def completed(self, held: Mapping[str, bytes]) -> "Bundle":
        """Return the bundle with the parts it does not carry, taken from what is held by hash.

        Raises:
            ProtocolError: a part is not held, or is not what its hash says.
        """
        files = dict(self.files)
        for part in self.missing():
            if part.sha256 not in held:
                raise ProtocolError(f"{part.name} is neither carried nor here: fetch a bundle that has it")
            check_part(part, held[part.sha256])
            files[part.name] = held[part.sha256]
        return Bundle(self.manifest, files)


class Golden(NamedTuple):
    """Pictures (N, H, W, 3) uint8, the features (N, D) that the host saw, and with what it made them."""

    inputs: NDArray[Any]
    outputs: NDArray[Any]
    sha256: str
    kernels: str
    space: str


class Exemplars(NamedTuple):
    """Features (N, V, D) as stored, and the class (N,) of each."""

    features: NDArray[Any]
    numbers: NDArray[Any]


def described(name: str, data: bytes, is_carried: bool = True) -> Part:
    """Return what a manifest says of a file; ValueError when no bundle can hold it."""
    size = len(packing.pack(data) if name in PACKED else data)
    return Part(name, len(data), hashlib.sha256(data).hexdigest(), size if is_carried else 0)


def pack(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """Return the bundle's bytes: the same content, the same bytes (as long as zlib is the same).

    Raises:
        ValueError: a carried part is absent, or not as the manifest says.
    """
    carried = [part for part in manifest.parts if part.carried]
    if {part.name for part in carried} != files.keys():
        raise ValueError("the files are not those that the manifest carries")
    if any(described(part.name, files[part.name]) != part for part in carried):
        raise ValueError("a file is not as the manifest says")
    text = canonical.write(to_plain(manifest))
    if len(text) > MAX_MANIFEST_BYTES:
        raise ValueError(f"a manifest of {len(text)} bytes is too large: use fewer or shorter labels")
    bodies = [
        packing.pack(files[part.name]) if part.carried < part.size else files[part.name] for part in carried
    ]
    return b"".join([START.pack(MAGIC, VERSION, bytes(3), len(text)), text, *bodies])


def read_manifest(data: bytes) -> tuple[Manifest, int]:
    """Return the manifest at the start of a bundle, and where its parts begin.

    Raises:
        ProtocolError: no bundle, another version, or a manifest that `pack` would not have written.
    """
    if len(data) < START.size:
        raise ProtocolError(f"{len(data)} bytes are too few for a bundle")
    magic, version, zeros, size = START.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("these bytes are not a bundle")
    if version != VERSION:
        raise ProtocolError(f"a bundle of version {version}, where {VERSION} is read: update this program")
    if zeros != bytes(3) or size > MAX_MANIFEST_BYTES or len(data) < START.size + size:
        raise ProtocolError("the bundle's manifest is too large or cut off")
    plain = canonical.read(bytes(data[START.size : START.size + size]))
    return from_plain(Manifest, plain), START.size + size


def unpack(data: bytes, facts: Facts | None = None) -> Bundle:
    """Read a bundle, trusting nothing in it; its tensors are read by `head`, `golden` and `exemplars`.

    Args:
        data: all of it.
        facts: what the signed repository says of it.

    Raises:
        ProtocolError: anything that `pack` would not have written, or another bundle than the facts say.
    """
    manifest, at = read_manifest(data)
    if facts is not None and facts != manifest.facts:
        raise ProtocolError("the bundle is not the one that the repository lists")
    if len(data) != at + sum(part.carried for part in manifest.parts):
        raise ProtocolError("the bundle is cut off, or followed by something")
    files = {}
    for part in manifest.parts:
        if part.carried:
            body = bytes(data[at : at + part.carried])
            files[part.name] = packing.unpack(body, part.size) if part.carried < part.size else body
            check_part(part, files[part.name])
            at += part.carried
    return Bundle(manifest, files)


def check_part(part: Part, data: bytes) -> None:
    """Compare a file with what the manifest says of it.

    Raises:
        ProtocolError: another size or hash, or no file of its kind.
    """
    if len(data) != part.size or hashlib.sha256(data).hexdigest() != part.sha256:
        raise ProtocolError(f"{part.name} is not the file that the manifest names")
    if part.name.endswith(".tflite") and data[4:8] != TFLITE_MAGIC:
        raise ProtocolError(f"{part.name} is not a TFLite file")


def head(bundle: Bundle) -> Tensors:
    """Return the head's tensors, checked; ProtocolError when they cannot be used."""
    found = parts.read(bundle.files[HEAD], bundle.manifest.lengths, parts.check_head)[0]
    if int(found["base.counters"][2]) not in (0, bundle.manifest.parent):
        raise ProtocolError("the head goes on from another bundle than the manifest names")
    return found


def golden(bundle: Bundle) -> Golden:
    """Return the golden pictures and answers, checked; ProtocolError when they cannot be used."""
    found, words = parts.read(
        bundle.files[GOLDEN], bundle.manifest.lengths, parts.check_golden, parts.GOLDEN_FACTS
    )
    return Golden(found["inputs"], found["outputs"], words["sha256"], words["kernels"], words["space"])


def exemplars(bundle: Bundle) -> Exemplars | None:
    """Return the exemplars, checked, None when there are none; ProtocolError when they cannot be used."""
    if EXEMPLARS not in bundle.files:
        return None
    found = parts.read(bundle.files[EXEMPLARS], bundle.manifest.lengths, parts.check_exemplars)[0]
    return Exemplars(found["features"], found["numbers"])
