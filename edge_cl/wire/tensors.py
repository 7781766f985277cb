"""Tensors as bytes: the safetensors format in numpy, checked before it is believed.

The format (https://github.com/huggingface/safetensors#format): 8 bytes header length, little endian; a JSON
header; the values, packed without holes. Narrower on purpose: few dtypes, bounded header, plain names, finite
values, every byte accounted for. Never pickle, never npz.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_cl.errors import ProtocolError

METADATA = "__metadata__"
MAX_RANK = 8  # dimensions; no tensor of ours has more than 4
MAX_ELEMENTS = 1 << 31  # values, empty dimensions counted as 1: a shape that numpy cannot hold is refused
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_TAGS = {dtype: tag for tag, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Limits:
    """How much a peer may send."""

    header_bytes: int = 64 << 10  # the format allows 100 MB; ours is a few hundred bytes a tensor
    tensors: int = 64  # 200,000 empty ones took the reference reader 1.65 s


def pack(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Write tensors and metadata as safetensors bytes; the same content always gives the same bytes.

    Raises:
        ValueError: a name, dtype or value that `unpack` would refuse.
    """
    # Widest first keeps every tensor aligned in the file, as the reference writer does.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    parts, offset = [], 0
    for name in names:
        values = _packable(name, tensors[name])
        header[name] = {
            "dtype": _TAGS[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        parts.append(_little_endian(values).tobytes())
        offset += values.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def unpack(data: bytes, limits: Limits | None = None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read safetensors bytes into writable arrays of their own, and the metadata.

    Raises:
        ProtocolError: anything that is not exactly what `pack` could have written.
    """
    limits = limits or Limits()
    header, start = _header(data, limits)
    metadata = _metadata(header.pop(METADATA, {}))
    if len(header) > limits.tensors:
        raise ProtocolError(f"{len(header)} tensors where at most {limits.tensors} are allowed")
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    _check_layout(entries, len(data) - start)
    body = memoryview(data)[start:]
    return {name: _values(name, body, *entry) for name, entry in entries.items()}, metadata


def check_schema(
    tensors: Mapping[str, np.ndarray], schema: Mapping[str, tuple[str, tuple[int | None, ...]]]
) -> None:
    """Compare tensors with what is expected: {name: (numpy dtype name, shape)}, None for any length.

    Raises:
        ProtocolError: a tensor is missing, unexpected, or of another dtype or shape.
    """
    if tensors.keys() != schema.keys():
        raise ProtocolError(
            f"tensors differ from the agreed ones: {sorted(tensors.keys() ^ schema.keys())[:5]}"
        )
    for name, (dtype, shape) in schema.items():
        found = tensors[name]
        fits = len(shape) == found.ndim and all(
            want is None or want == have for want, have in zip(shape, found.shape, strict=True)
        )
        if found.dtype != np.dtype(dtype) or not fits:
            raise ProtocolError(f"tensor {name} is {found.dtype}{found.shape}, agreed is {dtype}{shape}")


def _packable(name: str, values: np.ndarray) -> np.ndarray:
    if not NAME.fullmatch(name) or name == METADATA:
        raise ValueError(f"{name!r} cannot name a tensor")
    if values.dtype.newbyteorder("=") not in _TAGS:
        raise ValueError(f"tensor {name} has dtype {values.dtype}")
    if values.ndim > MAX_RANK or not _is_finite(values):
        raise ValueError(f"tensor {name} has {values.ndim} dimensions, or a value that is not finite")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _little_endian(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _is_finite(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _header(data: bytes, limits: Limits) -> tuple[dict[str, Any], int]:
    """Return the parsed header and where the values start."""
    if len(data) < 8:
        raise ProtocolError(f"{len(data)} bytes are too few for tensors")
    size = int.from_bytes(data[:8], "little")
    if size > limits.header_bytes:
        raise ProtocolError(f"a header of {size} bytes where at most {limits.header_bytes} are allowed")
    text = bytes(data[8 : 8 + size])
    if len(text) < size or not text.startswith(b"{"):
        raise ProtocolError("the header is cut off or not an object")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, numbers of 5,000 digits, 60,000 brackets
        raise ProtocolError(f"the header is not JSON ({type(error).__name__})") from error
    return header, 8 + size


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ProtocolError("the metadata is not text by name")
    return found


def _entry(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Return (dtype, shape, begin, end) of one tensor's entry."""
    if not NAME.fullmatch(name):
        raise ProtocolError(f"{name[:40]!r} cannot name a tensor")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ProtocolError(f"tensor {name} is not described by dtype, shape and data_offsets")
    tag, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(tag, str) or tag not in DTYPES:
        raise ProtocolError(f"tensor {name} has a dtype that is not allowed")
    if not _is_counts(shape) or len(shape) > MAX_RANK:
        raise ProtocolError(f"tensor {name} has an impossible shape")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise ProtocolError(f"tensor {name} has impossible offsets")
    if math.prod(max(length, 1) for length in shape) > MAX_ELEMENTS:
        raise ProtocolError(f"tensor {name} is too large")
    return DTYPES[tag], tuple(shape), offsets[0], offsets[1]


def _is_counts(found: Any) -> bool:
    return isinstance(found, list) and all(type(n) is int and 0 <= n <= 1 << 62 for n in found)


def _check_layout(entries: Mapping[str, tuple[np.dtype, tuple[int, ...], int, int]], size: int) -> None:
    """Refuse overlaps, holes, and lengths that do not add up to exactly `size` bytes."""
    at = 0
    for name, (dtype, shape, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != at or end - begin != math.prod(shape) * dtype.itemsize:
            raise ProtocolError(
                f"tensor {name} overlaps another, leaves a hole, or has not the size of its shape"
            )
        at = end
    if at != size:
        raise ProtocolError(f"{size} bytes of values where {at} are described")


def _values(
    name: str, body: memoryview, dtype: np.dtype, shape: tuple[int, ...], begin: int, end: int
) -> np.ndarray:
    if dtype.kind == "b" and not set(bytes(body[begin:end])) <= {0, 1}:
        raise ProtocolError(f"tensor {name} holds a truth value that is neither 0 nor 1")
    values = np.frombuffer(body[begin:end], dtype=dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    if not _is_finite(values):
        raise ProtocolError(f"tensor {name} holds a value that is not finite")
    return values
