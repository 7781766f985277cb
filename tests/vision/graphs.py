"""Rewrites real TFLite files into odd ones, with LiteRT's own schema."""

from collections.abc import Callable
from typing import Any


def unpacked(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def rewritten(data: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """Return the file after `change(model, first subgraph)`."""
    import flatbuffers

    model = unpacked(data)
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
