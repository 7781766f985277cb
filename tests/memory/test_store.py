"""The store keeps what it acknowledged, gives it back bit for bit, and refuses what does not belong to it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from simulators.killer import PYTHON, process_environment

from edge_cl.errors import ConfigError, MismatchError, StoreBusyError, StoreError
from edge_cl.memory import database as database_module
from edge_cl.memory import store as store_module
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import Event, EventKind
from edge_cl.sample import FeatureSpace

SPACE = FeatureSpace("mobile", 64, "int8", 0.02, -128)


def taught(store, count, *, views=2, label="mug", jpeg=None, seed=0):
    """Return `count` TEACH events that may be appended next."""
    rng = np.random.default_rng((seed, store.next_seq))
    dtype = np.dtype(store.space.dtype)
    return [
        Event(
            store.next_seq + i,
            EventKind.TEACH,
            store.next_sample + i,
            label,
            features=rng.integers(0, 120, (views, store.space.size)).astype(dtype),
            image_hash=rng.bytes(16),
            session="monday",
            source=f"photo {store.next_sample + i}.jpg",
            jpeg=jpeg,
        )
        for i in range(count)
    ]


def same(found, expected):
    assert found._replace(features=None) == expected._replace(features=None, jpeg=None)
    if expected.features is None:
        assert found.features is None
    else:
        np.testing.assert_array_equal(found.features, expected.features)
        assert found.features.dtype == expected.features.dtype


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("size", [1, 64, 1024, 1280, 2048])
def test_what_was_appended_comes_back_bit_for_bit_after_reopening(tmp_path, dtype, size):
    space = SPACE._replace(size=size, dtype=dtype)
    with open_store(tmp_path, space) as store:
        events = taught(store, 5, views=3)
        store.append(events)
        others = [
            Event(6, EventKind.RELABEL, 2, "cup"),
            Event(7, EventKind.CONSOLIDATE, amount=50),
            Event(8, EventKind.FORGET_CLASS, label="mug"),
            Event(9, EventKind.REFRESH),
        ]
        store.append(others)
    with open_store(tmp_path, None) as store:
        assert store.space == space
        for found, expected in zip(store.events_after(0), events + others, strict=True):
            same(found, expected)
        assert [event.seq for event in store.events_after(6)] == [7, 8, 9]
        assert (store.next_seq, store.next_sample) == (10, 6)


def test_a_log_longer_than_one_read_comes_back_in_order(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        for _ in range(7):
            store.append(taught(store, 17))
        assert [event.seq for event in store.events_after(0)] == list(range(1, 120))
        assert [event.seq for event in store.events_after(64)] == list(range(65, 120))


def test_the_database_is_what_the_design_asks_for(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        connection = store._open
        for pragma, value in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("page_size", 4096),
            ("user_version", 3),
            ("application_id", 0x45434C31),
        ):
            assert connection.execute(f"PRAGMA {pragma}").fetchone()[0] == value
        indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
        assert indexes == []
        store.append(taught(store, 8))
        longest = connection.execute("SELECT max(length(z)) FROM features").fetchone()[0]
    assert longest < 4_000


def test_features_and_pictures_are_read_by_sample(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        events = taught(store, 6, jpeg=b"\xff\xd8" + b"x" * 9_000)
        store.append(events)
        found = store.features([5, 2, 99])
        assert set(found) == {2, 5}
        np.testing.assert_array_equal(found[5], events[4].features)
        assert store.jpeg(3) == events[2].jpeg
        assert store.jpeg(99) is None
        assert store.known_hashes() == {event.image_hash for event in events}


def test_samples_carry_their_latest_label(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 3))
        store.append([Event(4, EventKind.RELABEL, 2, "cup"), Event(5, EventKind.RELABEL, 2, "glass")])
        assert [(info.sample, info.label) for info in store.samples()] == [
            (1, "mug"),
            (2, "glass"),
            (3, "mug"),
        ]


@pytest.mark.parametrize("name", ["\udcff\udc80.jpg", "é" * 400 + ".jpg", "a\nb.jpg", "", "🦀.png", "a\0b"])
def test_any_file_name_can_be_a_source(tmp_path, name):
    with open_store(tmp_path, SPACE) as store:
        store.append([taught(store, 1)[0]._replace(source=name)])
    with open_store(tmp_path, SPACE) as store:
        kept = store.samples()[0].source
        assert len(kept.encode()) <= 255
        assert kept == name or kept.endswith(".jpg")
        assert len(list(store.events_after(0))) == 1  # and its CRC still fits
        assert store.salvage is None


def test_a_batch_out_of_order_or_of_another_shape_is_a_mistake_of_the_program(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        good = taught(store, 2)
        bad = [
            [good[1]],
            [good[0], good[0]],
            [good[0], good[1]._replace(sample=1)],
            [good[0]._replace(features=good[0].features[:, :5])],
            [good[0]._replace(features=good[0].features.astype(np.float32))],
            [good[0]._replace(features=None)],
        ]
        for events in bad:
            with pytest.raises(ValueError):
                store.append(events)
        assert list(store.events_after(0)) == []
        store.append(good)


def test_one_process_writes_and_a_second_is_told_at_once(tmp_path):
    with open_store(tmp_path, SPACE), pytest.raises(StoreBusyError, match="another edge-cl"):
        open_store(tmp_path, SPACE)
    open_store(tmp_path, SPACE).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from edge_cl.memory.opening import open_store;"
        "from edge_cl.sample import FeatureSpace;"
        f"s = open_store(Path(sys.argv[1]), FeatureSpace(*{tuple(SPACE)!r})); print('open', flush=True);"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [PYTHON, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=process_environment()
    ) as child:
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StoreBusyError):
            open_store(tmp_path, SPACE)
        child.send_signal(signal.SIGKILL)
        child.wait()
    open_store(tmp_path, SPACE).close()


def test_readers_read_while_a_writer_writes(tmp_path):
    with open_store(tmp_path, SPACE) as writer:
        writer.append(taught(writer, 4))
        with open_store(tmp_path, SPACE, read_only=True) as reader:
            assert len(list(reader.events_after(0))) == 4
            writer.append(taught(writer, 4))
            assert len(list(reader.events_after(0))) == 8
            with pytest.raises(RuntimeError, match="read-only"):
                reader.append([])


def test_reading_leaves_the_database_as_it_was(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 4))
    before = (tmp_path / "learner.db").read_bytes()
    with open_store(tmp_path, None, read_only=True) as reader:
        assert len(reader.samples()) == 4
        assert reader.sizes().samples == 4
    assert (tmp_path / "learner.db").read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_folder_without_a_learner_is_named_and_left_alone(tmp_path, read_only):
    with pytest.raises(ConfigError, match="edge-cl init"):
        open_store(tmp_path / "nothing", None, read_only=read_only)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_the_features_of_two_backbones_never_mix(tmp_path, read_only):
    open_store(tmp_path, SPACE).close()
    before = (tmp_path / "learner.db").read_bytes()
    with pytest.raises(MismatchError, match="mobile.*efficient"):
        open_store(tmp_path, SPACE._replace(id="efficient"), read_only=read_only)
    assert (tmp_path / "learner.db").read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("pragma", "words"),
    [("user_version = 4", "newer edge-cl"), ("application_id = 7", "not made by edge-cl")],
)
def test_a_database_of_a_newer_or_another_program_is_refused_untouched(tmp_path, pragma, words, read_only):
    open_store(tmp_path, SPACE).close()
    connection = sqlite3.connect(tmp_path / "learner.db")
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    before = (tmp_path / "learner.db").read_bytes()
    with pytest.raises(MismatchError, match=words):
        open_store(tmp_path, SPACE, read_only=read_only)
    assert (tmp_path / "learner.db").read_bytes() == before


def test_a_failed_batch_leaves_nothing_and_the_same_call_works_afterwards(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 3))
        batch = taught(store, 40, views=4)
        pages = store._open.execute("PRAGMA page_count").fetchone()[0]
        store._open.execute(f"PRAGMA max_page_count = {pages + 1}")  # SQLite's own "disk full"
        with pytest.raises(StoreError, match="free some space") as caught:
            store.append(batch)
        assert "\n" not in str(caught.value)
        assert len(list(store.events_after(0))) == 3
        store._open.execute("PRAGMA max_page_count = 100000")
        store.append(batch)
        for found, expected in zip(store.events_after(3), batch, strict=True):
            same(found, expected)


def test_a_full_disk_loses_nothing_and_works_again_when_there_is_space(tmp_path):
    place = mounted(tmp_path, "size=512k")
    try:
        ballast = place / "ballast"
        with open_store(place / "state", SPACE) as store:
            store.append(taught(store, 4))
            ballast.write_bytes(bytes(shutil.disk_usage(place).free - 40_000))
            kept = 4
            with pytest.raises(StoreError, match="space") as caught:
                while True:
                    store.append(taught(store, 32, views=4))
                    kept += 32
            assert "\n" not in str(caught.value)
            assert len(list(store.events_after(0))) == kept
            ballast.unlink()
            store.append(taught(store, 32, views=4))
        with open_store(place / "state", SPACE) as store:
            assert store.salvage is None
            assert len(list(store.events_after(0))) == kept + 32
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_disk_can_be_read_even_after_a_crash_and_refuses_writing_clearly(tmp_path):
    place = mounted(tmp_path, "size=8m")
    try:
        with open_store(tmp_path / "model", SPACE) as store:
            store.append(taught(store, 4))
            (place / "state").mkdir()
            for file in (
                "learner.db",
                "learner.db-wal",
                "lock",
            ):  # as a crash leaves it: the log not moved in
                shutil.copyfile(tmp_path / "model" / file, place / "state" / file)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with open_store(place / "state", SPACE, read_only=True) as reader:
            assert len(list(reader.events_after(0))) == 4
        with pytest.raises(StoreError, match="read-only"):
            open_store(place / "state", SPACE)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def mounted(tmp_path: Path, options: str) -> Path:
    """Mount a small memory file system, or skip aloud."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    return place


def test_a_folder_without_rights_says_so(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="right to write"):
            open_store(tmp_path / "state", SPACE)
    finally:
        tmp_path.chmod(0o700)


def test_cleaning_keeps_the_living_and_what_came_after_the_checkpoint(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        events = taught(store, 10)
        store.append(events)
        assert store.clean([2, 4], up_to_seq=8) == 12  # rows: 6 dead samples of two views
        assert set(store.features(range(1, 11))) == {2, 4, 9, 10}
        assert store.known_hashes() == {event.image_hash for event in events}
        assert [event.seq for event in store.events_after(8)] == [9, 10]


def test_the_file_stays_bounded_while_samples_come_and_go(tmp_path):
    space = SPACE._replace(size=1024)
    living = 256  # samples kept: 256 KB
    with open_store(tmp_path, space) as store:
        for _ in range(400):
            store.append(taught(store, 32, views=1))
            newest = store.next_sample
            store.clean(range(newest - living, newest), store.next_seq - 1)
        sizes = store.sizes()
        kept = store.features(range(store.next_sample - living, store.next_sample))
        assert len(kept) == living
    features_bytes = (
        sizes.used_slots + sizes.free_slots
    ) * 400  # a row of a third of 1,024 bytes, and its share
    assert features_bytes < 5 * living * 1024
    assert (
        sizes.database_bytes < features_bytes + 12_800 * 130
    )  # and about 100 bytes for each sample ever taught


def test_the_log_forgets_the_oldest_dead_samples_beyond_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_REMEMBERED", 40)
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 100, jpeg=b"picture"))
        store.append([Event(101, EventKind.RELABEL, 3, "cup"), Event(102, EventKind.CONSOLIDATE, amount=5)])
        store.clean([3], up_to_seq=102)
        assert [info.sample for info in store.samples()] == [3, *range(61, 101)]
        assert store.samples()[0].label == "cup"
        assert len(store.known_hashes()) == 41
        assert store.jpeg(3) == b"picture"
        assert store.jpeg(90) is None
    with open_store(tmp_path, SPACE) as store:
        assert (store.next_seq, store.next_sample) == (103, 101)


def test_positions_are_never_used_twice_even_when_everything_is_forgotten(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 5))
        store.forget(range(1, 6))
    with open_store(tmp_path, SPACE) as store:
        assert (store.next_seq, store.next_sample) == (6, 6)
        assert store.samples() == []


def test_a_smaller_buffer_gives_the_disk_its_space_back(tmp_path):
    space = SPACE._replace(size=1024)
    with open_store(tmp_path, space) as store:
        for _ in range(8):
            store.append(taught(store, 400, views=1))
        events = {event.sample: event.features for event in store.events_after(0) if event.sample > 3190}
    before = (tmp_path / "learner.db").stat().st_size
    with open_store(tmp_path, space) as store:
        store.clean(events, store.next_seq - 1)
        assert store.sizes().database_bytes < before / 5
        for sample, features in store.features(events).items():
            np.testing.assert_array_equal(features, events[sample])
        assert len(store.features(events)) == 10


def test_forgetting_destroys_the_bytes_in_every_file(tmp_path):
    pattern = np.frombuffer(b"SECRET-PATTERN-0" * 4, dtype=np.int8)
    spoken = (b"SECRET-PATTERN", b"secret-name", b"SECRETHASH", b"secret-class", b"SECRET-PICTURE")
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 20, jpeg=b"other picture" * 99))
        secret = [
            event._replace(
                features=np.stack([pattern, pattern]),
                source="secret-name.jpg",
                image_hash=b"SECRETHASH" + bytes(6),
                label="secret-class",
                jpeg=b"SECRET-PICTURE" * 999,
            )
            for event in taught(store, 8)
        ]
        store.append(secret)
        store.append(taught(store, 20))
        # A dead copy, freed pages and a second generation of the same bytes: all must go.
        store.clean([*range(1, 21), *(event.sample for event in secret[4:])], store.next_seq - 1)
        store.append(
            [Event(store.next_seq, EventKind.FORGET_CLASS, label="secret-class")], erase=range(21, 29)
        )
        assert store.erasures() == tuple(range(21, 29))
        assert all(is_in_a_file(tmp_path, text) for text in spoken)
        store.forget(store.erasures(), labels=["secret-class"])
        assert store.erasures() == ()
        assert not any(is_in_a_file(tmp_path, text) for text in spoken)
        assert not {event.sample for event in secret} & {info.sample for info in store.samples()}
        assert secret[0].image_hash not in store.known_hashes()
        assert set(store.features(range(1, 60))) == set(range(1, 21))
    assert not any(is_in_a_file(tmp_path, text) for text in spoken)


def is_in_a_file(folder, text):
    return any(text in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_forgetting_says_when_a_reader_keeps_the_old_bytes_and_is_finished_later(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 4))
        with open_store(tmp_path, SPACE, read_only=True) as reader:
            reader._open.execute("BEGIN")
            reader._open.execute("SELECT count(*) FROM events").fetchone()
            with pytest.raises(StoreBusyError, match="another program"):
                store.forget([1])
        assert store.erasures() == (1,)
        assert set(store.features(range(5))) == {2, 3, 4}
        store.forget(store.erasures())
        assert store.erasures() == ()


def test_a_backup_is_one_whole_file_made_while_the_store_is_in_use(tmp_path):
    with open_store(tmp_path / "state", SPACE) as store:
        events = taught(store, 40)
        store.append(events)
        target = tmp_path / "backup.db"
        target.write_bytes(b"an older backup")
        store.backup_to(target)
        store.append(taught(store, 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "state"]
    (tmp_path / "restored").mkdir()
    shutil.copyfile(target, tmp_path / "restored" / "learner.db")
    with open_store(tmp_path / "restored", SPACE) as store:
        for found, expected in zip(store.events_after(0), events, strict=True):
            same(found, expected)


def test_a_backup_that_cannot_be_written_leaves_the_older_one(tmp_path):
    with open_store(tmp_path / "state", SPACE) as store:
        store.append(taught(store, 4))
        with pytest.raises(StoreError):
            store.backup_to(tmp_path / "no such folder" / "backup.db")


def test_written_bytes_are_counted_and_the_total_survives(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        for _ in range(5):
            store.append(taught(store, 32))
        first = store.sizes().written_bytes_total
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 1))
        assert store.sizes().written_bytes_total >= 0.5 * first > 0


def test_a_closed_store_says_so_and_closing_twice_is_nothing(tmp_path):
    store = open_store(tmp_path, SPACE)
    store.close()
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        store.samples()


def test_a_store_may_be_used_from_another_thread(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        worker = threading.Thread(target=lambda: store.append(taught(store, 3)))
        worker.start()
        worker.join()
        assert len(list(store.events_after(0))) == 3


def test_samples_are_called_what_their_class_is_called_since(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 3))
        store.append([Event(4, EventKind.RENAME, label="MUG", source="cup")])
        store.append(taught(store, 1))
        store.append([Event(6, EventKind.RELABEL, 2, "fork")])
        named = [(info.sample, info.label) for info in store.samples()]
        assert named == [(1, "cup"), (2, "fork"), (3, "cup"), (4, "mug")]


def test_a_renaming_is_kept_while_a_sample_needs_it(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 2))
        store.append([Event(3, EventKind.RENAME, label="mug", source="cup")])
        store.append([Event(4, EventKind.RENAME, label="cup", source="bowl")])
        store.forget([1], labels=["cup"])
        assert [(info.sample, info.label) for info in store.samples()] == [(2, "bowl")]
        store.forget([2], labels=["bowl"])
        assert not is_in_a_file(tmp_path, b"bowl")
        assert len(list(store.events_after(0))) == 1  # that from mug to cup, which nobody named
