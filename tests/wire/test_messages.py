"""Every message passes every shared check, keeps its own rules, and hostile frames are refused."""

import struct
import zlib

import numpy as np
import pytest
from checks.messages import CHECKS, records, refused_or_same
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ProtocolError
from edge_cl.wire import codec, messages, tensors
from edge_cl.wire.codec import FRAME, MAGIC, content_id, decode, encode
from edge_cl.wire.messages import (
    MESSAGES,
    Chunk,
    Content,
    Features,
    Greet,
    Images,
    Message,
    Offer,
    Refusal,
    Statistics,
)

HASH, SPACE = "a" * 64, "0" * 16
GREET = Greet("pi-1", 3, "0.1.0", ("cpu",), 4, SPACE, 0, "statistics", None, ())


def test_no_message_and_no_check_was_lost():
    assert len(MESSAGES) == 13
    assert len(CHECKS) == 10


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_passes(name, check):
    @settings(max_examples=5, deadline=None)
    @given(message=records(MESSAGES[name]))
    def passes(message):
        check(message)

    passes()


def frame(
    header: bytes, body: bytes = b"", packing: int = 0, body_bytes: int | None = None, version: int = 1
):
    size = len(body) if body_bytes is None else body_bytes
    return FRAME.pack(MAGIC, version, packing, 0, len(header), size) + header + body


def chunk_header() -> bytes:
    return b'{"content":"' + HASH.encode() + b'","offset":0,"size":100,"type":"chunk"}'


BOMB = zlib.compress(bytes(64 << 20), 9)
HOSTILE = {
    "nothing": b"",
    "another protocol": b"PK\x03\x04" + bytes(60),
    "header of 4 GB": FRAME.pack(MAGIC, 1, 0, 0, 2**32 - 1, 0) + b"{}",
    "header of 65 KB": frame(b'{"type":"' + b"a" * 65_536 + b'"}'),
    "body of 4 GB": FRAME.pack(MAGIC, 1, 0, 0, len(chunk_header()), 2**32 - 1) + chunk_header(),
    "packing unknown": frame(chunk_header(), b"x" * 10, packing=2),
    "spare bytes used": struct.pack("<4sBBHII", MAGIC, 1, 0, 7, 2, 0) + b"{}",
    "not an object": frame(b"[]"),
    "no type": frame(b"{}"),
    "type unknown": frame(b'{"type":"exec"}'),
    "type a list": frame(b'{"type":["greet"]}'),
    "type the name of a class": frame(b'{"type":"Greet"}'),
    "not UTF-8": frame(b'{"type":"\xff"}'),
    "half a character": frame(b'{"type":"\\ud800"}'),
    "60,000 brackets": frame(b'{"type":' + b"[" * 60_000),
    "deep but whole": frame(b'{"type":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    "number of 60,000 digits": frame(b'{"round":' + b"9" * 60_000 + b"}"),
    "a fraction": frame(b'{"round":1.0,"type":"offer"}'),
    "not a number": frame(b'{"round":NaN,"type":"offer"}'),
    "twin names": frame(b'{"type":"greet","type":"greet"}'),
    "bomb of 64 MB": frame(chunk_header(), BOMB, packing=1, body_bytes=100),
    "bomb that is announced": frame(chunk_header(), BOMB, packing=1, body_bytes=64 << 20),
    "zlib cut off": frame(chunk_header(), zlib.compress(b"x" * 100)[:-1], packing=1, body_bytes=100),
    "zlib and more": frame(chunk_header(), zlib.compress(b"x" * 100) + b"y", packing=1, body_bytes=100),
    "zlib shorter than announced": frame(chunk_header(), zlib.compress(b"x" * 99), packing=1, body_bytes=100),
    "zlib that is none": frame(chunk_header(), b"x" * 100, packing=1, body_bytes=100),
    "chunk without data": frame(chunk_header()),
    "chunk beyond its content": frame(chunk_header(), b"x" * 101),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_frame_is_refused_with_one_line(data):
    assert refused_or_same(data)


def test_a_bomb_is_given_up_before_it_has_grown():
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ProtocolError):
        decode(HOSTILE["bomb of 64 MB"])
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_frame_of_another_place_is_refused_before_its_body_is_unpacked():
    with pytest.raises(ProtocolError, match="out of place"):
        decode(HOSTILE["bomb of 64 MB"], Greet)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_valid(data):
    refused_or_same(data)


@given(st.binary(max_size=120), st.binary(max_size=64), st.integers(0, 1))
def test_any_header_is_refused_or_valid(header, body, packing):
    refused_or_same(frame(b"{" + header, body, packing))


@settings(max_examples=200, deadline=None)
@given(
    message=st.sampled_from(sorted(MESSAGES)).flatmap(lambda name: records(MESSAGES[name])),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_a_changed_frame_is_refused_or_valid(message, edits):
    data = bytearray(codec.canonical(message))
    for at, value in edits:
        data[at % len(data)] = value
    refused_or_same(bytes(data))


def statistics(**changes) -> Statistics:
    given_values = {
        "device": "pi-1",
        "number": 1,
        "since": None,
        "space": SPACE,
        "registry": 0,
        "labels": ("mug", "fork"),
        "counts": np.array([12, 24]),
        "sums": np.array([[1, 2, 3], [4, 5, 600]], np.int16),
        "residue": 0,
        "factors": np.array([[1, -7, 7]], np.int8),
        "weights": np.array([5]),
        "spread": np.zeros(3, np.int8),
        "unit": 0,
        "error": 100,
        "withdrawn": np.zeros(0, np.int64),
    }
    return Statistics(**{**given_values, **changes})


def features(**changes) -> Features:
    given_values = {
        "device": "pi-1",
        "space": SPACE,
        "registry": 0,
        "labels": ("mug",),
        "samples": np.array([3, 7]),
        "numbers": np.zeros(2, np.int32),
        "features": np.zeros((2, 1, 4), np.float32),
    }
    return Features(**{**given_values, **changes})


def images(**changes) -> Images:
    given_values = {
        "device": "pi-1",
        "registry": 0,
        "labels": ("mug",),
        "samples": np.array([3, 7]),
        "numbers": np.zeros(2, np.int32),
        "sizes": np.array([4, 5], np.int32),
        "pictures": np.frombuffer(messages.JPEG + b"a" + messages.JPEG + b"bb", np.uint8),
    }
    return Images(**{**given_values, **changes})


NONSENSE = {
    "a level that is none": lambda: GREET.__class__(**{**vars(GREET), "level": "everything"}),
    "a device that is a path": lambda: Greet(**{**vars(GREET), "device": "../../etc/passwd"}),
    "a device with a newline": lambda: Greet(**{**vars(GREET), "device": "pi\n"}),
    "a true round": lambda: Greet(**{**vars(GREET), "round": True}),
    "a content twice": lambda: Greet(
        **{**vars(GREET), "contents": (Content(HASH, "statistics", 5), Content(HASH, "images", 6))}
    ),
    "a class of two spellings": lambda: statistics(labels=("mug", "mug")),
    "a class that is a path": lambda: statistics(labels=("mug", "../fork")),
    "labels that do not count": lambda: statistics(labels=("mug",)),
    "an offer without a manifest": lambda: Offer(1, 5, None, 0, None),
    "an offer of nothing that knows something": lambda: Offer(1, 0, None, 0, HASH),
    "a reason that is none": lambda: Refusal("because", "", 0),
    "words with a newline": lambda: Refusal("busy", "a\nb", 0),
    "an empty chunk": lambda: Chunk(HASH, 0, 1, b""),
    "sums of another width": lambda: statistics(sums=np.zeros((2, 4), np.int8)),
    "sums that are wide": lambda: statistics(sums=np.zeros((2, 3), np.int64)),
    "sums that are fractions": lambda: statistics(sums=np.zeros((2, 3))),
    "a factor of -128": lambda: statistics(factors=np.array([[-128, 0, 0]], np.int8)),
    "a weight of 2^50": lambda: statistics(weights=np.array([-(2**50)])),
    "a weight of -2^63": lambda: statistics(weights=np.array([-(2**63)])),
    "600 factors": lambda: statistics(factors=np.zeros((600, 3), np.int8), weights=np.zeros(600, np.int64)),
    "samples withdrawn twice": lambda: statistics(withdrawn=np.array([3, 3])),
    "samples that fall": lambda: features(samples=np.array([7, 3])),
    "sample zero": lambda: features(samples=np.array([0, 3])),
    "a class that is not listed": lambda: features(numbers=np.array([0, 1], np.int32)),
    "a feature that is not finite": lambda: features(features=np.full((2, 1, 4), np.nan, np.float32)),
    "features in double": lambda: features(features=np.zeros((2, 1, 4))),
    "sizes that do not add up": lambda: images(sizes=np.array([4, 6], np.int32)),
    "a size below zero": lambda: images(sizes=np.array([10, -1], np.int32)),
    "a picture that is none": lambda: images(pictures=np.zeros(9, np.uint8)),
    "a class of none": lambda: images(numbers=np.array([-1, 0], np.int32)),
}


@pytest.mark.parametrize("make", NONSENSE.values(), ids=NONSENSE.keys())
def test_what_makes_no_sense_is_not_made(make):
    with pytest.raises(ValueError):
        make()


def test_what_would_not_be_made_is_not_read():
    for name, tampered in {
        "factors": np.array([[-128, 0, 0]], np.int8),
        "weights": np.array([2**62]),
        "sums": np.zeros((2, 3), np.int64),
    }.items():
        data = codec.canonical(statistics())
        start = FRAME.size + FRAME.unpack_from(data)[4]
        body = tensors.pack({**tensors.unpack(data[start:])[0], name: tampered})
        assert refused_or_same(frame(data[FRAME.size : start], body))


def test_the_same_content_of_two_rounds_has_two_names():
    assert content_id(statistics()) == content_id(statistics())
    assert content_id(statistics()) != content_id(statistics(number=2))


def test_pictures_come_out_as_they_went_in():
    found = decode(encode(images()), Images)
    assert isinstance(found, Images)
    assert found.files() == [messages.JPEG + b"a", messages.JPEG + b"bb"]


def test_a_message_that_is_too_large_is_not_written():
    labels = tuple(f"{i}{'x' * 190}" for i in range(1000))
    many = statistics(labels=labels, counts=np.zeros(1000, np.int64), sums=np.zeros((1000, 3), np.int8))
    with pytest.raises(ValueError, match="too large"):
        encode(many)


def test_messages_without_arrays_are_equal_by_their_fields():
    assert decode(encode(GREET)) == GREET
    assert isinstance(GREET, Message)
    assert len(encode(GREET)) < 256
