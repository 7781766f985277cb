"""Tensors go through bytes unchanged, the reference library agrees, and hostile bytes are refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_cl.errors import ProtocolError
from edge_cl.wire.tensors import DTYPES, METADATA, Limits, check_schema, pack, unpack

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors (dev extra) is not installed")

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,20}", fullmatch=True).filter(
    lambda name: name != METADATA
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def arrays():
    def of(dtype):
        finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
        shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
        return hnp.arrays(dtype, shapes, elements=finite or None)

    return st.sampled_from(sorted(DTYPES.values(), key=str)).flatmap(of)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and found[name].shape == values.shape
        assert found[name].tobytes() == values.tobytes()


@given(tensors=st.dictionaries(NAMES, arrays(), max_size=6), metadata=st.dictionaries(TEXT, TEXT, max_size=4))
def test_what_is_packed_is_unpacked_bit_for_bit_and_always_alike(tensors, metadata):
    data = pack(tensors, metadata)
    found, words = unpack(data)
    same(found, tensors)
    assert words == metadata
    assert pack(dict(reversed(tensors.items())), dict(reversed(metadata.items()))) == data
    assert pack(found, words) == data


@given(tensors=st.dictionaries(NAMES, arrays(), max_size=6))
def test_the_reference_library_reads_ours_and_we_read_its(tensors):
    same(dict(safetensors.load(pack(tensors, {"made by": "us"}))), tensors)
    found, words = unpack(safetensors.save(tensors, metadata={"made by": "them"}))
    same(found, tensors)
    assert words == {"made by": "them"}


def test_the_bytes_are_those_of_the_reference_library():
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, dtype=np.int8)}
    assert pack(tensors) == safetensors.save(tensors)


def test_unpacked_arrays_are_our_own_and_may_be_changed():
    data = pack({"a": np.zeros(3, dtype=np.float32)})
    unpack(data)[0]["a"][:] = 1
    assert not unpack(data)[0]["a"].any()


def test_strided_and_big_endian_arrays_are_kept_by_value():
    values = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(unpack(pack({"a": values}))[0]["a"], values)


def test_what_could_not_be_read_back_is_not_written():
    good = np.zeros(2, dtype=np.float32)
    for name, values in (
        ("has space", good),
        ("", good),
        (METADATA, good),
        ("a", good.astype(np.complex64)),
        ("a", np.array(["text"])),
        ("a", np.array([1.0, np.nan])),
        ("a", np.array([np.inf], dtype=np.float16)),
        ("a", np.zeros((1,) * 9)),
    ):
        with pytest.raises(ValueError):
            pack({name: values})


def raw(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "header longer than the file": (1_000).to_bytes(8, "little") + b"{}",
    "header of 100 MB": (100 << 20).to_bytes(8, "little") + b"{}",
    "not an object": raw(b"[]"),
    "not JSON": raw(b"{nonsense"),
    "not UTF-8": raw(b'{"\xff": 1}'),
    "60,000 brackets": raw(b'{"a":' + b"[" * 60_000),
    "number of 60,000 digits": raw(b'{"a":' + b"9" * 60_000 + b"}"),
    "twin names": raw(
        b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}", b"1234"
    ),
    "brain float": raw({"a": entry("BF16", (2,))}, b"1234"),
    "dtype that is a list": raw({"a": entry([], (2,))}, b"1234"),
    "negative side": raw({"a": entry(shape=(-4,))}, b"1234"),
    "fractional side": raw({"a": entry(shape=(4.0,))}, b"1234"),
    "true side": raw({"a": entry(shape=(4, True))}, b"1234"),
    "nine dimensions": raw({"a": entry(shape=(1,) * 8 + (4,))}, b"1234"),
    "huge empty shape": raw({"a": entry(shape=(0, 2**60), offsets=(0, 0))}),
    "huge shape": raw({"a": entry(shape=(2**61,))}, b"1234"),
    "wrong size": raw({"a": entry(shape=(5,))}, b"1234"),
    "overlap": raw({"a": entry(), "b": entry()}, b"1234"),
    "hole": raw({"a": entry(), "b": entry(offsets=(5, 9))}, b"123456789"),
    "hole at the start": raw({"a": entry(offsets=(1, 5))}, b"12345"),
    "backward": raw({"a": entry(offsets=(4, 0))}, b"1234"),
    "three offsets": raw({"a": entry(offsets=(0, 4, 4))}, b"1234"),
    "bytes left over": raw({"a": entry()}, b"12345"),
    "bytes missing": raw({"a": entry()}, b"123"),
    "extra field": raw({"a": {**entry(), "comment": "hello"}}, b"1234"),
    "missing field": raw({"a": {"dtype": "U8", "shape": [4]}}, b"1234"),
    "name with a newline": raw({"a\n": entry()}, b"1234"),
    "name of 500": raw({"a" * 500: entry()}, b"1234"),
    "metadata that is a number": raw({METADATA: 5}),
    "metadata with a number": raw({METADATA: {"a": 5}}),
    "not a number": raw({"a": entry("F32", (1,))}, np.array([np.nan], dtype="<f4").tobytes()),
    "infinite": raw({"a": entry("F64", (1,), (0, 8))}, np.array([-np.inf], dtype="<f8").tobytes()),
    "truth of 2": raw({"a": entry("BOOL")}, b"\0\1\2\0"),
    "65 tensors": raw({f"t{i}": entry(shape=(0,), offsets=(0, 0)) for i in range(65)}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused_with_one_line(data):
    with pytest.raises(ProtocolError) as caught:
        unpack(data)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_limits_are_those_given():
    data = pack({"a": np.zeros(1)}, {"words": "x" * 70_000})
    with pytest.raises(ProtocolError, match="header"):
        unpack(data)
    assert unpack(data, Limits(header_bytes=1 << 20))[1]["words"] == "x" * 70_000


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_valid(data):
    refused_or_valid(data)


@given(st.binary(max_size=120), st.binary(max_size=64))
def test_any_header_is_refused_or_valid(header, body):
    refused_or_valid(raw(b"{" + header, body))


@settings(max_examples=300)
@given(
    tensors=st.dictionaries(NAMES, arrays(), min_size=1, max_size=4),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
    cut=st.integers(0, 30),
)
def test_a_changed_file_is_refused_or_valid(tensors, edits, cut):
    data = bytearray(pack(tensors))
    for at, value in edits:
        data[at % len(data)] = value
    refused_or_valid(bytes(data[: len(data) - cut]))


def refused_or_valid(data):
    try:
        tensors, metadata = unpack(data)
    except ProtocolError:
        return
    same(unpack(pack(tensors, metadata))[0], tensors)


def test_a_schema_names_what_differs():
    tensors = {"w": np.zeros((3, 4), dtype=np.float32)}
    check_schema(tensors, {"w": ("float32", (3, None))})
    for schema, words in (
        ({"w": ("float32", (3, 5))}, "tensor w"),
        ({"w": ("float32", (3,))}, "tensor w"),
        ({"w": ("float64", (3, 4))}, "tensor w"),
        ({"v": ("float32", (3, 4))}, "differ"),
        ({}, "differ"),
    ):
        with pytest.raises(ProtocolError, match=words):
            check_schema(tensors, schema)
