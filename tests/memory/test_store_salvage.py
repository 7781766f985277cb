"""A damaged database is set aside, what is whole in it is kept, and the caller is told."""

import sqlite3

import numpy as np
import pytest
from simulators.killer import PYTHON, run_failing_at, why_not
from test_store import SPACE, taught

from edge_cl.errors import StoreDamagedError
from edge_cl.memory import salvage as salvage_module
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import Event, EventKind, Salvage

PAGE = 4096


@pytest.fixture
def world(tmp_path):
    """Return a closed state folder with 300 samples, and what was taught by sample."""
    with open_store(tmp_path, SPACE) as store:
        taught_events = {}
        for _ in range(10):
            batch = taught(store, 30)
            store.append(batch)
            taught_events |= {event.sample: event for event in batch}
        store.append([Event(store.next_seq, EventKind.CONSOLIDATE, amount=7)])
    return tmp_path, taught_events


def damage(folder, first, count=1, fill=b"\xa5"):
    with (folder / "learner.db").open("r+b") as file:
        file.seek(first * PAGE)
        file.write(fill * PAGE * count)


def pages_of(folder, table):
    """Return a leaf page number in the middle of a table, by where its rows' bytes are."""
    connection = sqlite3.connect(folder / "learner.db")
    needle = connection.execute(f"SELECT * FROM {table} ORDER BY 1 LIMIT 1 OFFSET 100").fetchone()
    connection.close()
    data = (folder / "learner.db").read_bytes()
    blob = next(value for value in needle if isinstance(value, bytes))
    return data.index(blob) // PAGE


def everything_found_was_taught(store, events):
    found = {event.sample: event for event in store.events_after(0) if event.kind is EventKind.TEACH}
    for sample, event in found.items():
        np.testing.assert_array_equal(event.features, events[sample].features)
        assert event.label == events[sample].label
    return found


@pytest.mark.parametrize("table", ["features", "events"])
def test_one_bad_page_costs_only_its_rows(world, table):
    folder, events = world
    damage(folder, pages_of(folder, table))
    with open_store(folder, None) as store:
        report = store.salvage
        found = everything_found_was_taught(store, events)
        assert 180 <= len(found) < 300
        assert report.rows_kept > 400 and report.rows_lost > 0
        assert report.aside == "learner.db.damaged-1"
        assert (folder / report.aside).stat().st_size > 0
        assert store.next_seq == 302  # the log's last event survived
        store.append(taught(store, 5))
    with open_store(folder, None) as store:
        assert store.salvage is None  # told once
        assert len(list(store.events_after(301))) == 5


def test_a_destroyed_first_page_costs_nothing_when_the_backbone_is_known(world):
    folder, events = world
    damage(folder, 0)
    with open_store(folder, SPACE) as store:
        assert len(everything_found_was_taught(store, events)) == 300
        assert store.salvage.rows_lost == 0
        assert store.space == SPACE


def test_a_file_that_is_no_database_is_set_aside_and_the_device_starts_anew(tmp_path):
    (tmp_path / "learner.db").write_bytes(b"not a database at all" * 1_000)
    with open_store(tmp_path, SPACE) as store:
        assert store.salvage.rows_kept == 0
        assert store.samples() == []
        store.append(taught(store, 1))
    assert (tmp_path / "learner.db.damaged-1").read_bytes().startswith(b"not a database")


def test_without_a_backbone_a_hopeless_file_is_left_in_place(tmp_path):
    (tmp_path / "learner.db").write_bytes(b"not a database at all" * 1_000)
    with pytest.raises(StoreDamagedError, match="--backbone"):
        open_store(tmp_path, None)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["learner.db", "lock"]


def test_readers_do_not_repair(world):
    folder, _ = world
    damage(folder, 0)
    with pytest.raises(StoreDamagedError, match="salvaged"):
        open_store(folder, SPACE, read_only=True)
    assert not (folder / "learner.db.damaged-1").exists()


def test_a_truncated_file_keeps_what_is_left(world):
    folder, events = world
    data = (folder / "learner.db").read_bytes()
    (folder / "learner.db").write_bytes(data[: len(data) * 2 // 3 // PAGE * PAGE])
    with open_store(folder, SPACE) as store:
        assert store.salvage is not None
        everything_found_was_taught(store, events)
        store.append(taught(store, 3))


@pytest.mark.parametrize("seed", [*range(10), 173, 227, 275, 285, 1134])  # the last five once failed
def test_random_damage_never_yields_a_wrong_feature_or_a_crash(world, seed):
    folder, events = world
    rng = np.random.default_rng(seed)
    data = bytearray((folder / "learner.db").read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, len(data) - 600 if rng.random() < 0.7 else 5 * PAGE))
        length = int(rng.integers(1, 600 if rng.random() < 0.5 else 4))
        data[at : at + length] = rng.bytes(length)
    (folder / "learner.db").write_bytes(bytes(data))
    with open_store(folder, SPACE) as store:
        everything_found_was_taught(store, events)
        before = store.next_seq
        store.append(taught(store, 3))
        assert len(list(store.events_after(before - 1))) == 3


def test_a_bit_that_flips_in_a_feature_is_noticed_and_only_that_sample_left_out(world):
    folder, events = world
    connection = sqlite3.connect(folder / "learner.db")
    z = connection.execute("SELECT z FROM features WHERE slot = 77").fetchone()[0]
    flipped = bytes([z[0] ^ 1]) + z[1:]
    connection.execute("UPDATE features SET z = ? WHERE slot = 77", (flipped,))
    connection.commit()
    connection.close()
    with open_store(folder, None) as store:
        assert len(everything_found_was_taught(store, events)) == 299
        assert store.dropped == 1


def test_the_id_of_a_lost_sample_is_not_mixed_with_its_successor(world):
    folder, _ = world
    connection = sqlite3.connect(folder / "learner.db")
    connection.execute(
        "UPDATE events SET crc = crc + 1 WHERE seq > 290"
    )  # the log's end is lost, not its features
    connection.commit()
    connection.close()
    damage(folder, pages_of(folder, "features"))
    with open_store(folder, None) as store:
        assert store.salvage.rows_lost > 20
        store.skip_to(400, 400)
        batch = taught(store, 5, seed=1)
        assert batch[0].seq == batch[0].sample == 400
        store.append(batch)
        for event in batch:
            np.testing.assert_array_equal(store.features([event.sample])[event.sample], event.features)


def test_a_report_survives_json():
    report = Salvage(5, 2, "learner.db.damaged-1")
    assert Salvage.from_json(report.to_json()) == report


def test_reading_gives_up_in_time_on_a_hopeless_table(world, monkeypatch):
    monkeypatch.setattr(salvage_module, "MAX_FAILED_READS", 50)
    folder, _ = world
    size = (folder / "learner.db").stat().st_size // PAGE
    damage(folder, 2, size - 2)
    with open_store(folder, SPACE) as store:
        assert store.salvage.rows_kept == 0


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "traced")
def test_a_salvage_killed_at_any_call_is_finished_by_the_next_start(world, tmp_path_factory):
    import shutil

    folder, events = world
    damage(folder, pages_of(folder, "features"))
    with sqlite3.connect(folder / "learner.db"):  # a log beside it, as a crash leaves one
        state = tmp_path_factory.mktemp("killed") / "state"
    script = (
        "import sys; from pathlib import Path; from edge_cl.memory.opening import open_store;"
        "open_store(Path(sys.argv[1]), None).close()"
    )

    def prepare():
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(folder, state)

    tried = 0
    for outcome in run_failing_at([PYTHON, "-c", script, str(state)], prepare, stride=3):
        with open_store(state, None) as store:
            assert len(everything_found_was_taught(store, events)) >= 180, outcome
        aside = list(state.glob("learner.db.damaged-?"))
        assert [path.name for path in aside] == ["learner.db.damaged-1"], outcome
        assert not list(state.glob("*.salvaged")) and not list(state.glob("*.building"))
        tried += 1
    assert tried > 10
