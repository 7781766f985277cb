"""Reads the clock for whoever teaches: where the time went."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass
class Timings:
    """Where the time of teaching went, in milliseconds; `decode_ms` includes reading and hashing the file."""

    decode_ms: float = 0.0
    prepare_ms: float = 0.0
    embed_ms: float = 0.0
    store_ms: float = 0.0
    learn_ms: float = 0.0
    consolidate_ms: float = 0.0
    checkpoint_ms: float = 0.0

    @contextlib.contextmanager
    def count(self, name: str) -> Iterator[None]:
        """Add the time of a block to one of the fields."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + 1000 * (time.perf_counter() - start))

    def to_dict(self, total_ms: float) -> dict[str, float]:
        """Return all fields, and what of `total_ms` none of them explains as `other_ms`."""
        found = {part.name: float(getattr(self, part.name)) for part in fields(self)}
        found["other_ms"] = total_ms - sum(found.values())
        return {name: round(value, 1) for name, value in found.items()} | {"total_ms": round(total_ms, 1)}
