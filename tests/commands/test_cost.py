"""What learning costs in memory with the backbone that boards really carry."""

from pathlib import Path

import pytest
from simulators.workshop import process

MOBILENET = Path("coral") / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
MAX_RSS_BYTES = 110_000_000


@pytest.mark.slow
def test_learning_with_mobilenet_stays_within_its_memory(models_dir: Path, all_photos: Path, tmp_path: Path):
    state = tmp_path / "state"
    assert process("init", "--state", state, "--backbone", models_dir / MOBILENET).status == 0
    said = process("learn", all_photos, "--state", state, "--json")
    assert said.status == 0, said
    assert said.json["learned"] == 120
    assert said.json["peak_rss_bytes"] <= MAX_RSS_BYTES
