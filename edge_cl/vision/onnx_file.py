"""Reads what an ONNX file says about itself, without the onnx package.

It is a protobuf message (onnx.proto3, ModelProto), walked field by field; the graph inside is stepped over.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

IR_VERSION, GRAPH, OPSETS, METADATA = 1, 7, 8, 14  # field numbers of ModelProto
DOMAIN, VERSION = 1, 2  # of OperatorSetIdProto
KEY, VALUE = 1, 2  # of StringStringEntryProto
PRECISION_KEY = "edge_cl.precision"  # written by `host-trainer export`
PRECISIONS = ("fp32", "fp16", "int8")
QUANTISED = b"QuantizeLinear"  # named in files that carry their own int8 scales
MAX_IR_VERSION = 100  # 7 to 13 exist; beyond this it is no ONNX file
MAX_SMALL_BYTES = 4096  # an opset or a line of metadata
MAX_FIELDS = 10_000
MAX_VARINT_BYTES = 10


class OnnxFacts(NamedTuple):
    """What an ONNX file says about itself.

    Attributes:
        ir_version: of its layout.
        opset: of the standard operations.
        precision: `fp32`, `fp16` or `int8` as its exporter wrote it; empty where another exporter made it.
    """

    ir_version: int
    opset: int
    precision: str


class _BrokenError(Exception):
    """The bytes are no protobuf message."""


def read_facts(file: BinaryIO, size_bytes: int) -> OnnxFacts | None:
    """Return what an open file says about itself; None when it is no ONNX file, or not whole."""
    ir_version = opset = 0
    precision, has_graph = "", False
    file.seek(0)
    try:
        for field, value in _fields(file, size_bytes):
            if field == IR_VERSION and isinstance(value, int):
                ir_version = value
            elif field == GRAPH:
                has_graph = True
            elif field == OPSETS and isinstance(value, bytes):
                opset = _opset(value) or opset
            elif field == METADATA and isinstance(value, bytes):
                precision = _precision(value) or precision
    except _BrokenError:
        return None
    if not (0 < ir_version <= MAX_IR_VERSION and has_graph and opset):
        return None
    return OnnxFacts(ir_version, opset, precision)


def _fields(file: BinaryIO, size_bytes: int) -> Iterator[tuple[int, int | bytes]]:
    """Walk the fields of a message; a long one is stepped over and given as no bytes."""
    for _ in range(MAX_FIELDS):
        if file.tell() == size_bytes:
            return
        key = _varint(file)
        field, kind = key >> 3, key & 7
        if kind == 0:
            yield field, _varint(file)
        elif kind in (1, 2, 5):
            length = _varint(file) if kind == 2 else {1: 8, 5: 4}[kind]
            if file.tell() + length > size_bytes:
                raise _BrokenError
            if length <= MAX_SMALL_BYTES:
                yield field, file.read(length)
            else:
                file.seek(length, io.SEEK_CUR)
                yield field, b""
        else:
            raise _BrokenError
    raise _BrokenError


def _varint(file: BinaryIO) -> int:
    number = 0
    for place in range(MAX_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise _BrokenError
        number |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return number
    raise _BrokenError


def _opset(message: bytes) -> int:
    """Return the version of the standard operations; 0 for those of another domain."""
    fields = dict(_fields(io.BytesIO(message), len(message)))
    version = fields.get(VERSION, 0)
    is_standard = fields.get(DOMAIN, b"") in (b"", b"ai.onnx")
    return version if is_standard and isinstance(version, int) else 0


def _precision(message: bytes) -> str:
    fields = dict(_fields(io.BytesIO(message), len(message)))
    value = fields.get(VALUE, b"")
    if fields.get(KEY) != PRECISION_KEY.encode() or not isinstance(value, bytes):
        return ""
    text = value.decode("ascii", "replace")
    return text if text in PRECISIONS else ""
