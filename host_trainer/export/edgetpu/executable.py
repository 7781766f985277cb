"""Reads what the Edge TPU compiler left inside a compiled file: how many parameters it caches and streams.

The custom operation carries a flexbuffer with a flatbuffer in it, whose schema is public: `executable.fbs`
of google-coral/libedgetpu (Apache-2.0). Only the few fields named below are read.
"""

import struct
from typing import Any, NamedTuple

from edge_cl.errors import ModelError
from edge_cl.vision.files import one_line
from host_trainer.export.edgetpu.graph import Graph

MAGIC = b"DWN1"  # flatbuffer file identifier of a package, 4 bytes behind its start
MAGIC_OFFSET = 4
FIRST_FIELD, FIELD_BYTES = 4, 2  # of a flatbuffer's table of fields

# Places of fields in executable.fbs.
PACKAGE_RUNTIME, PACKAGE_EXECUTABLES = 0, 1
EXECUTABLES_LIST = 0
EXECUTABLE_PARAMETERS, EXECUTABLE_TYPE = 6, 13
PARAMETER_CACHING = 1  # of ExecutableType: fills the chip once, before the first inference


class Compiled(NamedTuple):
    """What a compiled file asks of the chip.

    Attributes:
        parts: custom operations of the Edge TPU; the compiler makes one.
        left: operations that stay on the CPU.
        cached_bytes: parameters that stay on the chip.
        streamed_bytes: parameters that are sent at each inference.
        min_runtime: version of the Edge TPU runtime that it needs.
    """

    parts: int
    left: int
    cached_bytes: int
    streamed_bytes: int
    min_runtime: int


def read_compiled(graph: Graph) -> Compiled:
    """Return what a file that the Edge TPU compiler made asks of the chip.

    Raises:
        ModelError: the compiled part is damaged.
    """
    parts = [o.payload for o in graph.operations if o.is_custom and MAGIC in o.payload]
    left = sum(not (o.is_custom and MAGIC in o.payload) for o in graph.operations)
    try:
        packages = [_package(payload) for payload in parts]
    except Exception as error:  # every offset comes from the file
        raise ModelError(
            f"the compiled part is damaged ({one_line(error)}): compile the model again"
        ) from error
    if not packages:
        raise ModelError("the compiled part holds no program: compile the model again")
    runtime = max(runtime for runtime, _, _ in packages)
    return Compiled(len(parts), left, sum(c for _, c, _ in packages), sum(s for _, _, s in packages), runtime)


def _package(payload: bytes) -> tuple[int, int, int]:
    """Return minimum runtime, cached bytes and streamed bytes."""
    package = _root(payload[payload.index(MAGIC) - MAGIC_OFFSET :])
    cached = streamed = 0
    for executable in _executables(package):
        kind = _number(executable, EXECUTABLE_TYPE, "<h")
        size_bytes = len(_vector(executable, EXECUTABLE_PARAMETERS))
        if kind == PARAMETER_CACHING:
            cached += size_bytes
        else:
            streamed += size_bytes
    return _number(package, PACKAGE_RUNTIME, "<i"), cached, streamed


def _executables(package: Any) -> list[Any]:
    bundle = _root(_vector(package, PACKAGE_EXECUTABLES))
    field = _field(bundle, EXECUTABLES_LIST)
    if not field:
        return []
    start, count = bundle.Vector(field), bundle.VectorLen(field)
    return [_root(_text(bundle, start + 4 * i)) for i in range(count)]


def _root(data: bytes) -> Any:
    from flatbuffers.table import Table

    return Table(data, struct.unpack_from("<I", data, 0)[0])


def _field(table: Any, place: int) -> int:
    return int(table.Offset(FIRST_FIELD + FIELD_BYTES * place))


def _number(table: Any, place: int, layout: str) -> int:
    field = _field(table, place)
    return struct.unpack_from(layout, table.Bytes, table.Pos + field)[0] if field else 0


def _vector(table: Any, place: int) -> bytes:
    field = _field(table, place)
    if not field:
        return b""
    start, count = table.Vector(field), table.VectorLen(field)
    return _slice(table.Bytes, start, count)


def _text(table: Any, at: int) -> bytes:
    start = table.Indirect(at)
    return _slice(table.Bytes, start + 4, struct.unpack_from("<I", table.Bytes, start)[0])


def _slice(data: bytes, start: int, count: int) -> bytes:
    if start < 0 or start + count > len(data):
        raise ValueError("a list reaches beyond the file")
    return bytes(data[start : start + count])
