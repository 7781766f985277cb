"""What learning costs with the backbone that boards really carry: memory, and time beside the pictures."""

from pathlib import Path

import pytest
from simulators.workshop import process

MOBILENET = Path("coral") / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
MAX_RSS_BYTES = 110_000_000
MAX_SHARE = 0.20  # of the wall time, outside decoding, inference and fsync


@pytest.fixture
def cost(models_dir: Path, all_photos: Path, tmp_path: Path) -> dict:
    """Teach 120 photographs in a process of its own."""
    state = tmp_path / "state"
    assert process("init", "--state", state, "--backbone", models_dir / MOBILENET).status == 0
    said = process("learn", all_photos, "--state", state, "--json")
    assert said.status == 0, said
    assert said.json["learned"] == 120
    return said.json


@pytest.mark.slow
def test_learning_with_mobilenet_stays_within_its_memory(cost):
    assert cost["peak_rss_bytes"] <= MAX_RSS_BYTES


@pytest.mark.slow
def test_learning_is_mostly_looking_at_pictures(cost):
    timings = cost["timings"]
    needed = sum(timings[name] for name in ("decode_ms", "embed_ms", "store_ms"))
    assert 1 - needed / timings["total_ms"] < MAX_SHARE
