"""What every message must do: one table of messages, each drawn by its own kinds, and one table of checks."""

import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_cl.errors import LabelError, ProtocolError
from edge_cl.sample import clean_label, label_key
from edge_cl.wire import canonical, fields, messages
from edge_cl.wire.codec import FRAME, PLAIN, content_id, decode, encode
from edge_cl.wire.codec import canonical as frame_of
from edge_cl.wire.labels import Edit
from edge_cl.wire.messages import MESSAGES, Message

SMALL = 1 << 10  # truncated at every length up to this many bytes


def _clean(text: str) -> bool:
    try:
        return clean_label(text) == text
    except LabelError:
        return False


LABELS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12).filter(
    _clean
)


def values(kind: fields.Kind, lengths: Mapping[str, int]) -> st.SearchStrategy[Any]:
    """Draw what a field of a kind may hold."""
    match kind:
        case fields.Text():
            return st.from_regex(
                kind.pattern, fullmatch=True, alphabet=st.sampled_from(string.printable[:95])
            )
        case fields.LabelText():
            return LABELS
        case fields.Whole():
            return st.integers(kind.least, kind.most)
        case fields.Truth():
            return st.booleans()
        case fields.Choice():
            return st.sampled_from(kind.values)
        case fields.Maybe():
            return st.none() | values(kind.of, lengths)
        case fields.Many():
            unique = {"unique": True} if kind.is_set else {}
            return st.lists(values(kind.of, lengths), max_size=min(kind.most, 4), **unique).map(tuple)
        case fields.One():
            return records(kind.record)
        case fields.Bytes():
            return st.binary(min_size=kind.least, max_size=min(kind.most, kind.least + 64))
        case fields.Raw():
            return st.binary(min_size=1, max_size=64)
        case fields.Array():
            shape = tuple(lengths[each] if isinstance(each, str) else each for each in kind.shape)
            finite = {"allow_nan": False, "allow_infinity": False, "width": 32}
            return st.sampled_from(kind.dtypes).flatmap(
                lambda name: hnp.arrays(name, shape, elements=st.floats(**finite) if name[0] == "f" else None)
            )
    raise AssertionError(kind)


def records(record: type[fields.Record]) -> st.SearchStrategy[Any]:
    """Draw a record whose fields go together as `FITTED` says."""
    return st.fixed_dictionaries({each: st.integers(0, 3) for each in "CDNVRPHWGK"}).flatmap(
        lambda lengths: st.fixed_dictionaries(
            {name: values(kind, lengths) for name, kind in record.KINDS.items()}
        ).map(lambda drawn: record(**FITTED.get(record, dict)(drawn)))
    )


def _greet(drawn: dict[str, Any]) -> dict[str, Any]:
    return {**drawn, "contents": tuple({each.id: each for each in drawn["contents"]}.values())}


def _chunk(drawn: dict[str, Any]) -> dict[str, Any]:
    offset = drawn["offset"] % (1 << 20)
    return {**drawn, "offset": offset, "size": offset + len(drawn["data"]) + drawn["size"] % 100}


def _offer(drawn: dict[str, Any]) -> dict[str, Any]:
    if drawn["manifest"] is None:
        return {**drawn, "bundle": 0, "taken": None}
    return {**drawn, "bundle": max(drawn["bundle"], 1)}


def _named(drawn: dict[str, Any], count: int) -> dict[str, Any]:
    return {**drawn, "labels": tuple(f"class {i}" for i in range(count))}


def _statistics(drawn: dict[str, Any]) -> dict[str, Any]:
    sums = drawn["sums"]
    return _named(
        {
            **drawn,
            "counts": drawn["counts"] % messages.MAX_WEIGHT,
            "sums": sums.astype(messages.narrowest(sums)),
            "factors": (drawn["factors"].astype(np.int64) % 15 - 7).astype(np.int8),
            "weights": drawn["weights"] % messages.MAX_WEIGHT,
            "withdrawn": np.arange(1, len(drawn["withdrawn"]) + 1),
        },
        len(drawn["counts"]),
    )


def _sampled(drawn: dict[str, Any]) -> dict[str, Any]:
    count = len(drawn["samples"])
    drawn = {**drawn, "samples": np.arange(1, count + 1), "numbers": drawn["numbers"] % 3}
    return _named(drawn, 3)


def _images(drawn: dict[str, Any]) -> dict[str, Any]:
    count = len(drawn["samples"])
    pictures = [messages.JPEG + bytes(range(i)) for i in range(count)]
    sizes = np.array([len(each) for each in pictures], np.int32)
    joined = np.frombuffer(b"".join(pictures), np.uint8)
    return _sampled({**drawn, "sizes": sizes, "pictures": joined})


def _edit(drawn: dict[str, Any]) -> dict[str, Any]:
    sources = tuple({label_key(each): each for each in drawn["sources"]}.values()) or ("mug",)
    assigned = {(each.device, each.sample): each for each in drawn["assigned"]}
    return {**drawn, "sources": sources, "assigned": tuple(assigned.values())}


FITTED: dict[type, Callable[[dict[str, Any]], dict[str, Any]]] = {
    messages.Greet: _greet,
    messages.Chunk: _chunk,
    messages.Offer: _offer,
    messages.Statistics: _statistics,
    messages.Features: _sampled,
    messages.Images: _images,
    Edit: _edit,
}


def refused_or_same(data: bytes) -> bool:
    """Read bytes; they are refused by one line, or are what we would have written. Tell whether refused."""
    try:
        found = decode(data)
    except ProtocolError as error:
        assert str(error)
        assert "\n" not in str(error)
        return True
    plain = frame_of(found)
    assert frame_of(decode(encode(found))) == plain
    if data[5] == PLAIN:
        assert plain == data
    return False


def edited(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return a plain frame with another header."""
    start = FRAME.size
    magic, version, packing, zero, header_bytes, body_bytes = FRAME.unpack_from(data)
    header = change(canonical.read(data[start : start + header_bytes]))
    text = header if isinstance(header, bytes) else canonical.write(header)
    return (
        FRAME.pack(magic, version, packing, zero, len(text), body_bytes) + text + data[start + header_bytes :]
    )


def check_it_comes_back_as_it_went(message: Message) -> None:
    for data in (encode(message), frame_of(message)):
        found = decode(data, type(message))
        assert type(found) is type(message)
        assert frame_of(found) == frame_of(message)


def check_its_name_is_that_of_its_content_and_not_of_its_packing(message: Message) -> None:
    found = decode(encode(message))
    assert content_id(found) == content_id(message)
    assert len(encode(message)) <= len(frame_of(message))


def check_it_is_not_changed_by_being_sent(message: Message) -> None:
    before = frame_of(message)
    encode(message)
    assert frame_of(message) == before


def check_a_cut_is_refused_at_every_length(message: Message) -> None:
    for data in (encode(message), frame_of(message)):
        for length in range(min(len(data), SMALL)):
            assert refused_or_same(data[:length])


def check_what_follows_is_refused(message: Message) -> None:
    for data in (encode(message), frame_of(message)):
        assert refused_or_same(data + b"\0")


def check_another_version_is_told(message: Message) -> None:
    data = bytearray(encode(message))
    data[4] = 9
    try:
        decode(bytes(data))
    except ProtocolError as error:
        assert "version 9" in str(error)
        return
    raise AssertionError("a message of version 9 was read")


def check_a_field_more_or_less_is_refused(message: Message) -> None:
    data = frame_of(message)
    assert refused_or_same(edited(data, lambda header: {**header, "extra": 1}))
    for name in canonical.read(data[FRAME.size : FRAME.size + FRAME.unpack_from(data)[4]]):
        less = edited(data, lambda header, name=name: {k: v for k, v in header.items() if k != name})
        assert refused_or_same(less)


def check_a_field_of_another_type_is_refused(message: Message) -> None:
    data = frame_of(message)
    for name in canonical.read(data[FRAME.size : FRAME.size + FRAME.unpack_from(data)[4]]):
        for wrong in ({"a": 1}, [[1]], -1, "\x00../..", 2**70, [None]):
            if name == "residue" and wrong == -1:
                continue  # the one number that may be below zero
            assert refused_or_same(edited(data, lambda header, n=name, w=wrong: {**header, n: w}))


def check_its_header_has_one_form(message: Message) -> None:
    data = frame_of(message)

    def spaced(header: dict[str, Any]) -> bytes:
        return canonical.write(header).replace(b'":', b'": ', 1)

    def twins(header: dict[str, Any]) -> bytes:
        return canonical.write(header)[:-1] + b',"type":"' + header["type"].encode() + b'"}'

    def bare(header: dict[str, Any]) -> bytes:
        return b" " + canonical.write(header)

    assert all(refused_or_same(edited(data, change)) for change in (spaced, twins, bare))


def check_it_is_refused_where_another_is_expected(message: Message) -> None:
    other = next(kind for kind in MESSAGES.values() if kind is not type(message))
    try:
        decode(encode(message), other)
    except ProtocolError:
        return
    raise AssertionError("a message was read where another was expected")


CHECKS = [found for name, found in sorted(globals().items()) if name.startswith("check_")]
