"""A bundle is the same bytes for the same content; a spoiled one is refused before anything of it is used."""

import hashlib
import zlib

import numpy as np
import pytest
from checks.learner import SPACE, VIEWS, lessons, teach
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ProtocolError
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.coreset import coreset
from edge_cl.learning.embedding import embed
from edge_cl.learning.head import of_learner, to_learner, to_statistics
from edge_cl.learning.learner import EdgeLearner
from edge_cl.wire import bundle as bundles
from edge_cl.wire import canonical, parts, tensors
from edge_cl.wire.bundle import (
    EXEMPLARS,
    GOLDEN,
    HEAD,
    START,
    Bundle,
    Gates,
    Input,
    Manifest,
    Part,
    Space,
    described,
    pack,
    read_manifest,
    unpack,
)
from edge_cl.wire.fields import from_plain, to_plain
from edge_cl.wire.parts import check_exemplars, check_golden, check_head
from edge_cl.wire.release import Facts

SPACE_ID = "0123456789abcdef"
BACKBONE = b"\x1c\0\0\0TFL3" + bytes(range(256)) * 4  # nobody runs it here
SHARE = {"hardware": ("any",), "runtime_from": "0.1.0", "runtime_below": "0.3.0"}


@pytest.fixture(scope="module")
def learner() -> EdgeLearner:
    found = EdgeLearner(SPACE, LearnerConfig(views=VIEWS))
    teach(found, lessons(48))
    found.settle()
    return found


def manifest_of(labels: tuple[str, ...], described_parts: tuple[Part, ...], **changes) -> Manifest:
    values = {
        "bundle": 7,
        "parent": 6,
        "model": "waste",
        **SHARE,
        "space": Space(SPACE_ID, SPACE.size, SPACE.dtype, SPACE.scale, SPACE.zero_point),
        "labels": labels,
        "registry": 3,
        "input": Input(8, 8, -1.0, 1.0, "squash", True),
        "gates": Gates(800, 10, 4, 990, 20_000, 0),
        "parts": described_parts,
        "run": "2026-11-25.3",
    }
    return Manifest(**{**values, **changes})


@pytest.fixture(scope="module")
def files(learner) -> dict[str, bytes]:
    lengths = parts.Lengths(SPACE.size, len(learner.labels), SPACE.dtype, (8, 8))
    slots = learner.buffer.filled
    numbers = learner.buffer.slots.number[slots]
    chosen = coreset(embed(learner.buffer.features[slots][:, 0], SPACE.zero_point), numbers, 4)
    exemplars = {"features": learner.buffer.features[slots[chosen]], "numbers": numbers[chosen]}
    golden = {"inputs": np.zeros((2, 8, 8, 3), np.uint8), "outputs": np.ones((2, SPACE.size), np.int8)}
    facts = {"sha256": hashlib.sha256(BACKBONE).hexdigest(), "kernels": "xnnpack", "space": SPACE_ID}
    return {
        "backbone.tflite": BACKBONE,
        HEAD: parts.write(of_learner(learner, 8), lengths, check_head),
        GOLDEN: parts.write(golden, lengths, check_golden, facts),
        EXEMPLARS: parts.write(exemplars, lengths, check_exemplars),
    }


@pytest.fixture(scope="module")
def manifest(learner, files) -> Manifest:
    return manifest_of(learner.labels, tuple(described(name, data) for name, data in files.items()))


@pytest.fixture(scope="module")
def data(manifest, files) -> bytes:
    return pack(manifest, files)


def test_what_goes_in_comes_out(data, manifest, files, learner):
    found = unpack(data, Facts(7, **SHARE))
    assert found == Bundle(manifest, files)
    assert found.missing() == ()
    assert found.manifest.feature_space == SPACE._replace(id=SPACE_ID)
    answers = to_learner(SPACE, LearnerConfig(views=VIEWS), found.manifest.labels, bundles.head(found))
    assert (
        answers.predict_one(lessons(1).features[0]).best == learner.predict_one(lessons(1).features[0]).best
    )
    assert bundles.golden(found).kernels == "xnnpack"
    exemplars = bundles.exemplars(found)
    assert exemplars is not None
    assert np.bincount(exemplars.numbers).tolist() == [4, 4, 4]


def test_the_same_content_gives_the_same_bytes(data, manifest, files):
    assert pack(manifest, dict(reversed(files.items()))) == data
    found = unpack(data)
    assert pack(found.manifest, found.files) == data


def test_a_new_head_travels_without_its_backbone(manifest, files):
    lean = manifest_of(
        manifest.labels, tuple(described(name, data, name == HEAD) for name, data in files.items())
    )
    data = pack(lean, {HEAD: files[HEAD]})
    found = unpack(data)
    assert {part.name for part in found.missing()} == files.keys() - {HEAD}
    held = {hashlib.sha256(each).hexdigest(): each for each in files.values()}
    assert found.completed(held).files == files
    with pytest.raises(ProtocolError, match="neither carried nor here"):
        found.completed({})
    with pytest.raises(ProtocolError, match="not the file"):
        found.completed(dict.fromkeys(held, b"other"))


def test_the_manifest_is_read_from_the_beginning_of_the_bytes(data, manifest):
    start = read_manifest(data)[1]
    assert read_manifest(data[:start]) == (manifest, start)
    assert from_plain(Manifest, canonical.read(canonical.write(to_plain(manifest)))) == manifest


def refused(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_cut_is_refused_at_every_length_of_the_manifest_and_at_many_of_the_rest(data):
    start = read_manifest(data)[1]
    for length in (*range(start + 1), *range(start, len(data), 97)):
        refused(data[:length])


def test_what_follows_is_refused(data):
    refused(data + b"\0")


def test_another_version_is_told_and_another_format_too(data):
    assert "version 9" in refused(data[:4] + b"\x09" + data[5:])
    assert "not a bundle" in refused(b"PK\3\4" + data[4:])
    refused(START.pack(b"ECLB", 1, bytes(3), 2**32 - 1) + data[START.size :])
    refused(START.pack(b"ECLB", 1, b"abc", 10) + data[START.size :])


@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_no_content(data, place, flip):
    changed = bytearray(data)
    changed[int(place * len(data))] ^= flip
    try:
        found = unpack(bytes(changed))
    except ProtocolError:
        return
    assert found.files == unpack(data).files  # a spare bit of zlib's: the content is what its hashes say


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    refused(data)
    refused(START.pack(b"ECLB", 1, bytes(3), len(data)) + data)


def edited(data: bytes, **changes) -> bytes:
    start = read_manifest(data)[1]
    plain = {**canonical.read(data[START.size : start]), **changes}
    text = canonical.write({name: value for name, value in plain.items() if value is not ...})
    return START.pack(b"ECLB", 1, bytes(3), len(text)) + text + data[start:]


def part(**changes) -> dict[str, object]:
    values = {"name": HEAD, "size": 9, "sha256": "a" * 64, "carried": 9}
    return {**values, **changes}


MANIFESTS = {
    "a field more": {"extra": 1},
    "a field less": {"gates": ...},
    "no number": {"bundle": 0},
    "a number of 2^60": {"bundle": 2**60},
    "older than its parent": {"parent": 8},
    "nobody's child with parts left out": {"parent": 0, "parts": [part(carried=0)]},
    "a model that is a path": {"model": "../waste"},
    "hardware with a dot": {"hardware": ["pi.4"]},
    "no hardware": {"hardware": []},
    "hardware twice": {"hardware": ["any", "any"]},
    "a runtime of points": {"runtime_from": "..."},
    "a runtime range of nothing": {"runtime_below": "0.1.0"},
    "a class twice": {"labels": ["mug", "mug", "fork"]},
    "a class that is a path": {"labels": ["mug", "../fork", "lamp"]},
    "no parts": {"parts": []},
    "a part twice": {"parts": [part(), part()]},
    "a part that is a path": {"parts": [part(name="../../etc/passwd")]},
    "a part of another kind": {"parts": [part(name="head.pkl")]},
    "a part of a terabyte": {"parts": [part(size=2**40)]},
    "a part of nothing": {"parts": [part(size=0)]},
    "a part larger than itself": {"parts": [part(carried=10)]},
    "a packed backbone": {"parts": [part(name="backbone.tflite", carried=3)]},
    "a hash in capitals": {"parts": [part(sha256="A" * 64)]},
    "gates of 1001": {
        "gates": {"accuracy": 1001, "fall": 0, "golden": 0, "cosine": 0, "latency": 0, "memory": 0}
    },
    "a space that is text": {"space": "0" * 16},
    "a run with a space": {"run": "a b"},
}


@pytest.mark.parametrize("changes", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_makes_no_sense_is_refused(data, changes):
    refused(edited(data, **changes))


SCALES = {
    "not a number": "nan",
    "infinite": "inf",
    "not its one form": "0x1.80p+0",
    "decimal": "1.5",
    "a number": 1,
    "zero": "0x0.0p+0",
    "huge": "0x1.0p+99999",
    "a list": ["0x1.8p+0"],
}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
def test_a_scale_has_one_form(data, scale):
    space = canonical.read(data[START.size : read_manifest(data)[1]])["space"]
    refused(edited(data, space={**space, "scale": scale}))


def test_another_release_than_the_signed_one_is_refused(data):
    with pytest.raises(ProtocolError, match="repository"):
        unpack(data, Facts(8, **SHARE))


def test_a_bomb_in_a_part_is_given_up(manifest, files):
    bomb = zlib.compress(bytes(32 << 20), 9)
    fuse = Part(HEAD, len(bomb) + 1, "a" * 64, len(bomb))
    spoiled = [fuse if each.name == HEAD else each for each in manifest.parts]
    bad = manifest_of(manifest.labels, tuple(spoiled))
    text = canonical.write(to_plain(bad))
    bodies = [bomb if each.name == HEAD else unpacked_body(files[each.name], each) for each in bad.parts]
    assert "packed" in refused(START.pack(b"ECLB", 1, bytes(3), len(text)) + text + b"".join(bodies))


def unpacked_body(data: bytes, each: Part) -> bytes:
    return data if each.carried == each.size else zlib.compress(data, 6)


def test_what_a_manifest_does_not_say_is_not_packed(manifest, files):
    with pytest.raises(ValueError):
        pack(manifest, {**files, HEAD: files[HEAD] + b"\0"})
    with pytest.raises(ValueError):
        pack(manifest, {HEAD: files[HEAD]})


def spoiled_head(name: str, change) -> object:
    return lambda head: {**head, name: change(head[name])}


HEADS = {
    "a tensor more": lambda head: {**head, "extra": np.zeros(3)},
    "a tensor less": lambda head: {name: head[name] for name in head if name != "base.steps"},
    "both forms": lambda head: {
        **head,
        "base.moment": np.zeros(SPACE.size * (SPACE.size + 1) // 2, np.int32),
    },
    "another dtype": spoiled_head("base.counts", lambda v: v.astype(np.int32)),
    "another width": spoiled_head("base.sums", lambda v: v[:, 1:]),
    "another number of classes": spoiled_head("base.counts", lambda v: v[1:]),
    "a count below zero": spoiled_head("base.counts", lambda v: -v),
    "a parent below zero": spoiled_head("base.counters", lambda v: v - [0, 0, 1]),
    "a count of 2^62": spoiled_head("base.counts", lambda v: v * 0 + 2**62),
    "a step of zero": spoiled_head("base.steps", lambda v: v * 0),
    "a step of 2^40": spoiled_head("base.steps", lambda v: v * 0 + 2**52),
    "no ridge": spoiled_head("base.shape", lambda v: v * [1, 0]),
    "shrinkage of one": spoiled_head("base.shape", lambda v: v * 0 + 1),
    "a block of no features": spoiled_head("residual.blocks", lambda v: v + 1000),
    "a block below zero": spoiled_head("residual.blocks", lambda v: v - 1000),
    "a block twice": spoiled_head("residual.blocks", lambda v: v * 0),
    "more moving than live": spoiled_head("residual.counters", lambda v: v + [1000, 0, 0]),
    "none moving": spoiled_head("residual.counters", lambda v: v * 0),
    "a scale below zero": spoiled_head("residual.average.second_scale", lambda v: v * 0 - 1),
    "a temperature of zero": spoiled_head("calibration.numbers", lambda v: v * 0),
    "a gate of five": spoiled_head("calibration.numbers", lambda v: v + [0, 0, 0, 5]),
    "a spread of zero": spoiled_head("familiarity.spread", lambda v: v * 0),
    "quantiles that fall": spoiled_head("familiarity.levels", lambda v: np.array([2.0, 1.0])),
    "a direction too long": spoiled_head("scatter.factors", lambda v: np.full_like(v, -128)),
    "a weight of 2^50": spoiled_head("scatter.weights", lambda v: v * 0 - 2**50),
    "a unit of zero": spoiled_head("scatter.unit", lambda v: v * 0),
}


@pytest.mark.parametrize("spoil", HEADS.values(), ids=HEADS.keys())
def test_a_head_that_nobody_could_answer_with_is_refused(learner, manifest, files, spoil):
    head = of_learner(learner, 8)
    spoiled = Bundle(manifest, {**files, HEAD: tensors.pack(spoil(head))})
    with pytest.raises(ProtocolError):
        bundles.head(spoiled)
    with pytest.raises(ValueError):
        parts.write(spoil(head), manifest.lengths, check_head)


def test_a_head_goes_on_from_the_parent_that_the_manifest_names_or_from_none(learner, manifest, files):
    known = to_statistics(of_learner(learner, 8))
    for parent, is_taken in ((manifest.parent, True), (manifest.parent - 1, False)):
        head = tensors.pack(of_learner(learner, 8, (parent, known)))
        opened = Bundle(manifest, {**files, HEAD: head})
        if is_taken:
            assert bundles.head(opened)["base.counters"][2] == parent
            continue
        with pytest.raises(ProtocolError, match="another bundle"):
            bundles.head(opened)


def test_an_exact_head_is_taken_too(learner, manifest):
    head = of_learner(learner)
    found = parts.read(parts.write(head, manifest.lengths, check_head), manifest.lengths, check_head)[0]
    assert found.keys() == head.keys()


def test_exemplars_of_no_class_and_golden_answers_of_other_pictures_are_refused(manifest, files):
    features = np.zeros((2, VIEWS, SPACE.size), np.int8)
    for bad in (
        {"features": features, "numbers": np.array([0, 3], np.int32)},
        {"features": features.astype(np.uint8), "numbers": np.zeros(2, np.int32)},
        {"features": features[:1], "numbers": np.zeros(2, np.int32)},
    ):
        with pytest.raises(ProtocolError):
            bundles.exemplars(Bundle(manifest, {**files, EXEMPLARS: tensors.pack(bad)}))
    facts = dict.fromkeys(parts.GOLDEN_FACTS, "a")
    good = {"inputs": np.zeros((1, 8, 8, 3), np.uint8), "outputs": np.zeros((1, SPACE.size), np.int8)}
    for bad, words in (
        ({**good, "inputs": np.zeros((1, 9, 8, 3), np.uint8)}, facts),
        ({**good, "outputs": np.zeros((2, SPACE.size), np.int8)}, facts),
        (good, {"sha256": "a"}),
        ({name: array[:0] for name, array in good.items()}, facts),
    ):
        with pytest.raises(ProtocolError):
            bundles.golden(Bundle(manifest, {**files, GOLDEN: tensors.pack(bad, words)}))


def test_a_bundle_without_exemplars_has_none(manifest, files):
    rest = {name: files[name] for name in files if name != EXEMPLARS}
    lean = manifest_of(manifest.labels, tuple(described(name, data) for name, data in rest.items()))
    assert bundles.exemplars(unpack(pack(lean, rest))) is None


def test_a_backbone_that_is_none_is_refused(manifest, files):
    other = {**files, "backbone.tflite": b"MZ" + bytes(100)}
    lean = manifest_of(manifest.labels, tuple(described(name, data) for name, data in other.items()))
    assert "TFLite" in refused(pack(lean, other))
