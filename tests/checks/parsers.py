"""What every parser of a peer's bytes must do, whatever they are: one table, for a fuzzer and for hypothesis.

A target takes any bytes, and either raises what its parser promises or finds what is then held to its rules.
`FRAMED` targets build what is tedious to guess - lengths, hashes, the one form of JSON - around the bytes, so
that the checks behind it are reached.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from checks.learner import SPACE, VIEWS, lessons, teach

from edge_cl.errors import MismatchError, ProtocolError, ReleaseError
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.head import of_learner, to_learner, to_statistics
from edge_cl.learning.increment import Increment, advance, compress, fault
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.statistics import empty_statistics
from edge_cl.wire import bundle as bundles
from edge_cl.wire import canonical, packing, parts, signing, tensors
from edge_cl.wire.codec import FRAME, MAGIC, VERSION, decode, encode
from edge_cl.wire.codec import canonical as frame_of
from edge_cl.wire.enrolment import Code, Enrol, read_code, read_enrol, write, write_code
from edge_cl.wire.fields import to_plain
from edge_cl.wire.labels import Edit
from edge_cl.wire.messages import (
    JPEG,
    Features,
    Greet,
    Images,
    Message,
    Refusal,
    Renaming,
    Statistics,
    Welcome,
    narrowest,
)
from edge_cl.wire.release import read_facts

Target = Callable[[bytes], None]

CUT = b"\n--cut--\n"  # between the parts of a framed bundle
LINE = b"\n"  # between what a framed target takes as header and as body


class Case(NamedTuple):
    """A parser under test: what it is called with, what it may raise, and bytes to begin with."""

    target: Target
    allowed: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


def message(data: bytes) -> None:
    """Read a frame; what is read is what would have been written."""
    found = decode(data)
    plain = frame_of(found)
    assert frame_of(decode(encode(found))) == plain
    if isinstance(found, Statistics):
        _advanced(found)


def framed_message(data: bytes) -> None:
    """Read a frame of a header and a body with right lengths, the header in its one form where it is JSON."""
    header, _, body = data.partition(LINE)
    header = _in_one_form(header)
    message(FRAME.pack(MAGIC, VERSION, 0, 0, len(header), len(body)) + header + body)


def bundle(data: bytes) -> None:
    """Read a bundle and all its parts."""
    found = bundles.unpack(data)
    for read in (bundles.head, bundles.golden, bundles.exemplars):
        if not found.missing():
            read(found)
    assert bundles.pack(found.manifest, found.files)


def framed_bundle(data: bytes) -> None:
    """Read a bundle whose manifest names its parts truly, sizes and hashes included, where it names any."""
    text, _, body = data.partition(LINE)
    plain, contents = _json(text), body.split(CUT)
    if isinstance(plain, dict) and isinstance(plain.get("parts"), list):
        named = zip(plain["parts"], contents, strict=False)
        plain["parts"] = [_truly(part, content) for part, content in named]
        text = canonical.write(plain)
        contents = [_packed(part, content) for part, content in zip(plain["parts"], contents, strict=False)]
    start = bundles.START.pack(bundles.MAGIC, bundles.VERSION, bytes(3), len(text))
    bundle(start + text + b"".join(contents))


def named_tensors(data: bytes) -> None:
    """Read tensors; what is read is packed to what is read again."""
    found, words = tensors.unpack(data)
    again, twice = tensors.unpack(tensors.pack(found, words))
    assert words == twice
    assert all(np.array_equal(again[name], found[name]) for name in found)


def framed_tensors(data: bytes) -> None:
    """Read tensors under a header of the right length."""
    text, _, body = data.partition(LINE)
    named_tensors(len(text).to_bytes(8, "little") + text + body)


def head(data: bytes) -> None:
    """Read a head; one that passes makes a learner, or is refused in words."""
    found = parts.read(data, LENGTHS, parts.check_head)[0]
    to_statistics(found, None)
    to_learner(SPACE, CONFIG, LABELS, found).predict_one(np.zeros((1, SPACE.size), np.int8))


def framed_head(data: bytes) -> None:
    """Change values of a good head in place: of every four bytes the first two say where, the third what."""
    good, start = bytearray(HEAD), 8 + int.from_bytes(HEAD[:8], "little")
    for at in range(0, len(data) - 3, 4):
        place = start + int.from_bytes(data[at : at + 2], "little") % (len(good) - start)
        good[place] = data[at + 2]
    head(bytes(good))


def header(data: bytes) -> None:
    """Read the header `Authorization`."""
    text = data.decode("latin-1")
    said = signing.read_header(text)
    assert f"{signing.SCHEME} " + ",".join(f"{n}={v}" for n, v in said._asdict().items()) == text


def code(data: bytes) -> None:
    """Read an enrolment code; it is written again as one that means the same."""
    found = read_code(data.decode("utf-8", "replace"))
    assert read_code(write_code(found)) == found


def enrolment(data: bytes) -> None:
    """Read a device's question to be let in."""
    assert write(read_enrol(data)) == data


def facts(data: bytes) -> None:
    """Read what a signed repository says of a release."""
    read_facts(_json(data))


def _truly(part: Any, content: bytes) -> Any:
    size, digest = len(content), hashlib.sha256(content).hexdigest()
    carried = len(_packed(part, content))
    return {**part, "size": size, "sha256": digest, "carried": carried} if isinstance(part, dict) else part


def _packed(part: Any, content: bytes) -> bytes:
    is_packed = isinstance(part, dict) and part.get("name") in bundles.PACKED
    return packing.pack(content) if is_packed else content


def _advanced(found: Statistics) -> None:
    """Do what a host does with statistics: judge them, and add them where they can be."""
    told = Increment(*(getattr(found, name) for name in Increment._fields))
    told = advance(empty_statistics(found.sums.shape[1], len(found.counts)), told)
    assert isinstance(fault(told), str)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _in_one_form(text: bytes) -> bytes:
    plain = _json(text)
    try:
        return canonical.write(plain) if plain is not None else text
    except (ValueError, RecursionError):
        return text


def _learner() -> EdgeLearner:
    found = EdgeLearner(SPACE, CONFIG)
    teach(found, lessons(24))
    found.settle()
    return found


def _statistics(learner: EdgeLearner) -> Statistics:
    statistics = learner.base.statistics
    told = compress(statistics, empty_statistics(SPACE.size, len(learner.labels)), 4)
    sums = told.sums.astype(narrowest(told.sums))
    facts = ("pi-1", 1, None, SPACE_ID, 0, learner.labels)
    return Statistics(*facts, *told._replace(sums=sums), 12, np.zeros(0, np.int64))


def _messages(learner: EdgeLearner) -> tuple[Message, ...]:
    one, jpeg = np.ones(1, np.int64), np.frombuffer(JPEG + b"rest", np.uint8)
    number, size = np.zeros(1, np.int32), np.array([len(jpeg)], np.int32)
    return (
        Greet("pi-1", 3, "0.1.0", ("cpu",), 4, SPACE_ID, 0, "statistics", None, ()),
        Welcome(3, 0, "features", None, (), 9),
        Refusal("busy", "come back later", 60),
        Renaming((Edit(1, ("mug",), "cup", ()),)),
        _statistics(learner),
        Features("pi-1", SPACE_ID, 0, ("mug",), one, number, np.zeros((1, VIEWS, SPACE.size), np.int8)),
        Images("pi-1", 0, ("mug",), one, number, size, jpeg),
    )


def _bundle(learner: EdgeLearner) -> tuple[bundles.Manifest, dict[str, bytes]]:
    golden = {"inputs": np.zeros((1, 8, 8, 3), np.uint8), "outputs": np.ones((1, SPACE.size), np.int8)}
    words = {"sha256": "0" * 64, "kernels": "xnnpack", "space": SPACE_ID}
    rows = {"features": np.zeros((3, 1, SPACE.size), np.int8), "numbers": np.arange(3, dtype=np.int32)}
    files = {
        "backbone.tflite": b"\x1c\0\0\0TFL3",
        bundles.HEAD: HEAD,
        bundles.GOLDEN: parts.write(golden, LENGTHS, parts.check_golden, words),
        bundles.EXEMPLARS: parts.write(rows, LENGTHS, parts.check_exemplars),
    }
    manifest = bundles.Manifest(
        *(7, 0, "waste", ("any",), "0.1.0", ""),
        bundles.Space(SPACE_ID, *SPACE[1:]),
        learner.labels,
        3,
        bundles.Input(8, 8, -1.0, 1.0, "squash", True),
        bundles.Gates(800, 10, 4, 990, 20_000, 0),
        tuple(bundles.described(name, content) for name, content in files.items()),
        "run.3",
    )
    return manifest, files


def _cases() -> dict[str, Case]:
    learner = _learner()
    frames = [frame_of(each) for each in _messages(learner)]
    split = [
        (f[FRAME.size :][: FRAME.unpack_from(f)[4]], f[FRAME.size + FRAME.unpack_from(f)[4] :])
        for f in frames
    ]
    manifest, files = _bundle(learner)
    sizes = int.from_bytes(HEAD[:8], "little")
    described = canonical.write(to_plain(manifest)) + LINE + CUT.join(files.values())
    key = signing.header(bytes(32), signing.Request("pi-1", 7, 9, "POST", "/v1/round", "0" * 64))
    codes = [write_code(Code(bytes(range(10)), mark)) for mark in (b"", bytes(32))]
    custom = canonical.write({"bundle": 7, "hardware": ["any"], "runtime": {"from": "0.1.0"}})
    question = Enrol(bytes(10), bytes(16), "pi-1", ("cpu",), "0.1.0")
    protocol = (ProtocolError,)
    return {
        "message": Case(message, protocol, tuple(map(encode, _messages(learner)))),
        "framed message": Case(framed_message, protocol, tuple(map(LINE.join, split))),
        "bundle": Case(bundle, protocol, (bundles.pack(manifest, files),)),
        "framed bundle": Case(framed_bundle, protocol, (described,)),
        "tensors": Case(named_tensors, protocol, (HEAD, files[bundles.GOLDEN])),
        "framed tensors": Case(framed_tensors, protocol, (HEAD[8 : 8 + sizes] + LINE + HEAD[8 + sizes :],)),
        "head": Case(head, (ProtocolError, ReleaseError, MismatchError), (HEAD,)),
        "framed head": Case(framed_head, (ProtocolError, ReleaseError, MismatchError), (b"",)),
        "signature": Case(header, protocol, (key.encode(),)),
        "code": Case(code, protocol, tuple(each.encode() for each in codes)),
        "enrolment": Case(enrolment, protocol, (write(question),)),
        "release": Case(facts, (ReleaseError,), (custom,)),
    }


def run(case: Case, data: bytes) -> bool:
    """Call a target; tell whether it refused the bytes. Anything but a refusal in one line goes on up."""
    try:
        case.target(data)
    except case.allowed as error:
        assert str(error) and "\n" not in str(error), repr(error)
        return True
    return False


CONFIG = LearnerConfig(views=VIEWS)
SPACE_ID = "0123456789abcdef"
LABELS = ("fork", "lamp", "mug")
LENGTHS = parts.Lengths(SPACE.size, len(LABELS), SPACE.dtype, (8, 8))
HEAD = parts.write(of_learner(_learner(), 4), LENGTHS, parts.check_head)
CASES = _cases()
