"""The cache gives back what was put, misses what is damaged, and never stands in the way."""

import subprocess

import numpy as np
import pytest
from simulators.killer import PYTHON, process_environment

from edge_cl.memory import cache as cache_module
from edge_cl.memory.cache import FeatureCache, FeatureKey

KEY = FeatureKey("a" * 64, "mobile", "views=4 mirror squash")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_what_was_put_comes_back_after_reopening(tmp_path, dtype):
    features = np.arange(24).reshape(3, 8).astype(dtype)
    with FeatureCache(tmp_path / "sub" / "features.db") as cache:
        assert cache.get(KEY) is None
        cache.put(KEY, features)
    with FeatureCache(tmp_path / "sub" / "features.db") as cache:
        found = cache.get(KEY)
        np.testing.assert_array_equal(found, features)
        assert found.dtype == features.dtype


def test_every_part_of_the_key_counts(tmp_path):
    with FeatureCache(tmp_path / "features.db") as cache:
        cache.put(KEY, np.zeros((1, 4), dtype=np.int8))
        for other in (
            KEY._replace(image_hash="b" * 64),
            KEY._replace(backbone_id="other"),
            KEY._replace(preprocessing="views=1"),
            FeatureKey(KEY.image_hash + KEY.backbone_id, "", KEY.preprocessing),
        ):
            assert cache.get(other) is None
        assert list(cache.get_many([KEY, KEY._replace(image_hash="c")])) == [KEY]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xa5" * 9_000])
def test_a_damaged_file_is_quietly_made_anew(tmp_path, content):
    path = tmp_path / "features.db"
    path.write_bytes(content)
    with FeatureCache(path) as cache:
        assert cache.get(KEY) is None
        cache.put(KEY, np.ones((2, 4), dtype=np.int8))
        assert cache.get(KEY) is not None


@pytest.mark.parametrize("seed", range(10))
def test_random_damage_gives_the_right_features_or_none(tmp_path, seed):
    path, rng = tmp_path / "features.db", np.random.default_rng(seed)
    keys = [KEY._replace(image_hash=str(i)) for i in range(60)]
    kept = {key: rng.integers(-128, 128, (2, 256), dtype=np.int8) for key in keys}
    with FeatureCache(path) as cache:
        cache.put_many(kept)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data) - 100, 6):
        data[at : at + 100] = rng.bytes(100)
    path.write_bytes(bytes(data))
    with FeatureCache(path) as cache:
        for key in keys:
            found = cache.get(key)
            assert found is None or np.array_equal(found, kept[key])
        cache.put_many(kept)
    with FeatureCache(path) as cache:
        assert all(
            found is None or np.array_equal(found, kept[key]) for key in keys for found in [cache.get(key)]
        )


def test_a_place_where_nothing_can_be_kept_is_a_cache_that_never_hits(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with FeatureCache(tmp_path / "file" / "features.db") as cache:
        cache.put(KEY, np.zeros((1, 4), dtype=np.int8))
        assert cache.get(KEY) is None


def test_a_cache_that_grew_too_large_begins_anew(tmp_path, monkeypatch):
    path = tmp_path / "features.db"
    with FeatureCache(path) as cache:
        cache.put(KEY, np.zeros((1, 4_000), dtype=np.float32))
    monkeypatch.setattr(cache_module, "MAX_CACHE_BYTES", 10_000)
    with FeatureCache(path) as cache:
        assert cache.get(KEY) is None


def test_two_processes_share_a_cache(tmp_path):
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from edge_cl.memory.cache import FeatureCache, FeatureKey\n"
        "with FeatureCache(Path(sys.argv[1])) as cache:\n"
        "    for i in range(150):\n"
        "        key = FeatureKey(sys.argv[2] + str(i), 'm', 'p')\n"
        "        cache.put(key, np.full((1, 64), i % 100, dtype=np.int8))\n"
    )
    path = tmp_path / "features.db"
    command = [PYTHON, "-c", script, str(path)]
    children = [subprocess.Popen([*command, name], env=process_environment()) for name in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    with FeatureCache(path) as cache:
        for name in "ab":
            for i in range(150):
                assert cache.get(FeatureKey(f"{name}{i}", "m", "p"))[0, 0] == i % 100


def test_something_that_is_no_feature_is_a_mistake_of_the_program(tmp_path):
    with FeatureCache(tmp_path / "features.db") as cache, pytest.raises(ValueError, match="V, D"):
        cache.put(KEY, np.zeros(4, dtype=np.int8))
