"""Objects come back as they went, from a folder and from a bucket; one table of checks for both."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.bucket import BUCKET

from edge_cl.errors import ConfigError, StoreDamagedError, StoreError
from host_trainer.server.objects.store import ObjectStore, open_objects

DATA = bytes(range(256)) * 100
KEY = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder", "bucket", "bucket with a prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_objects(tmp_path)
    prefix = f"/some/{tmp_path.name}" if "prefix" in request.param else ""
    return open_objects(tmp_path, f"s3://{BUCKET}{prefix}", request.getfixturevalue("endpoint"))


def check_an_object_comes_back(store: ObjectStore) -> None:
    store.put(KEY, DATA)
    assert store.get(KEY) == DATA


def check_twice_is_once(store: ObjectStore) -> None:
    store.put(KEY, DATA)
    store.put(KEY, DATA)
    assert store.get(KEY) == DATA


def check_what_was_never_there_is_missed(store: ObjectStore) -> None:
    with pytest.raises(StoreDamagedError):
        store.get(hashlib.sha256(b"other").hexdigest())


def check_what_was_removed_is_gone(store: ObjectStore) -> None:
    store.put(KEY, DATA)
    store.remove(KEY)
    store.remove(KEY)
    with pytest.raises(StoreDamagedError):
        store.get(KEY)


def check_it_can_be_asked_whether_it_works(store: ObjectStore) -> None:
    store.check()


def check_a_path_is_no_key(store: ObjectStore) -> None:
    for act in (store.get, store.remove, lambda key: store.put(key, b"")):
        with pytest.raises(ValueError, match="no key"):
            act("../../etc/passwd")


def check_a_sweep_takes_what_is_old_and_not_used(store: ObjectStore) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    store.put(KEY, DATA)
    store.put(other, b"other")
    now = int(time.time())
    assert store.sweep(frozenset({KEY}), now - 60) == 0
    assert store.sweep(frozenset({KEY}), now + 60) == 1
    assert store.get(KEY) == DATA
    with pytest.raises(StoreDamagedError):
        store.get(other)


CHECKS = [found for name, found in sorted(globals().items()) if name.startswith("check_")]


def test_no_check_was_lost() -> None:
    assert len(CHECKS) == 7


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_each_store_passes(check: Callable[[ObjectStore], None], store: ObjectStore) -> None:
    check(store)


@pytest.fixture
def in_folder(tmp_path: Path) -> Iterator[tuple[ObjectStore, Path]]:
    store = open_objects(tmp_path)
    store.put(KEY, DATA)
    yield store, tmp_path / "objects" / KEY[:2] / KEY


def test_a_changed_file_is_not_given_out(in_folder: tuple[ObjectStore, Path]) -> None:
    store, path = in_folder
    path.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(StoreDamagedError, match="not what was kept"):
        store.get(KEY)


def test_what_is_put_anew_is_not_old(in_folder: tuple[ObjectStore, Path]) -> None:
    store, path = in_folder
    os.utime(path, (0, 0))
    part = path.with_name(".part-left-by-a-crash")
    part.write_bytes(b"half")
    os.utime(part, (0, 0))
    store.put(KEY, DATA)
    assert store.sweep(frozenset(), int(time.time()) - 60) == 1
    assert path.exists()
    assert not part.exists()


def test_only_the_owner_may_look(in_folder: tuple[ObjectStore, Path]) -> None:
    assert in_folder[1].parents[1].stat().st_mode & 0o077 == 0


def test_a_full_disk_leaves_nothing_behind(
    in_folder: tuple[ObjectStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = in_folder

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(StoreError, match="No space"):
        store.put(other, b"other")
    assert [each for each in path.parents[1].rglob("*") if each.is_file()] == [path]


@pytest.mark.parametrize(
    ("address", "words"),
    [("/somewhere", "s3://"), ("s3://", "no bucket"), ("s3:///prefix", "no bucket")],
)
def test_what_names_no_store_is_refused(tmp_path: Path, address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_objects(tmp_path, address)


def test_a_bucket_that_is_not_there_is_found_at_once(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(StoreError, match="elsewhere"):
        open_objects(tmp_path, "s3://elsewhere", endpoint)


def test_a_store_that_does_not_answer_is_found_at_once(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(StoreError, match="cannot be asked"):
        open_objects(tmp_path, f"s3://{BUCKET}", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="--s3-endpoint"):
        open_objects(tmp_path, f"s3://{BUCKET}", "nowhere")
