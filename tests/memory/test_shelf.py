"""Features of two spaces side by side, while a learner moves: written together, read by name, never mixed."""

import sqlite3

import numpy as np
import pytest
from test_store import SPACE, taught
from test_store_salvage import damage, pages_of

from edge_cl.errors import MismatchError
from edge_cl.memory.opening import open_store
from edge_cl.sample import FeatureSpace

OTHER = FeatureSpace("newer", 96, "uint8", 0.1, 3)


def seen_again(samples, views=2):
    """What the samples look like in the other space."""
    return {
        sample: np.random.default_rng(sample).integers(0, 255, (views, OTHER.size)).astype(np.uint8)
        for sample in samples
    }


def both(store, count):
    """Teach samples with features of both spaces."""
    events = taught(store, count)
    twins = seen_again([event.sample for event in events])
    store.append([event._replace(twin=twins[event.sample]) for event in events])
    return {event.sample: event.features for event in events}, twins


@pytest.fixture
def moving(tmp_path):
    """A store that keeps two spaces: samples 1 to 8 seen again later, 9 to 12 taught in both."""
    with open_store(tmp_path, SPACE) as store:
        events = taught(store, 8)
        store.append(events)
        store.add_space(OTHER)
        store.add_features(seen_again(range(1, 9)))
        old, new = both(store, 4)
    return tmp_path, {event.sample: event.features for event in events} | old, seen_again(range(1, 9)) | new


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for sample, features in wanted.items():
        np.testing.assert_array_equal(found[sample], features)


def test_each_space_gives_back_its_own_features(moving):
    folder, old, new = moving
    for wanted in (SPACE, SPACE.id, None):
        with open_store(folder, wanted, read_only=True) as store:
            assert (store.space, store.other_space) == (SPACE, OTHER)
            assert_same(store.features(old), old)
            assert_same(store.other_features(old), new)
    for wanted in (OTHER, OTHER.id):
        with open_store(folder, wanted, read_only=True) as store:
            assert (store.space, store.other_space) == (OTHER, SPACE)
            assert_same(store.features(old), new)
            assert_same({event.sample: event.features for event in store.events_after(0)}, new)


def test_a_third_space_is_refused(moving):
    folder, _, _ = moving
    with pytest.raises(MismatchError):
        open_store(folder, SPACE._replace(id="third"))
    with open_store(folder, None) as store, pytest.raises(ValueError):
        store.add_space(SPACE._replace(id="third"))


def test_the_other_space_is_given_up_and_the_next_one_takes_its_place(moving):
    folder, old, new = moving
    with open_store(folder, OTHER) as store:
        store.drop_other()
        store.drop_other()
        assert_same(store.features(old), new)
    with open_store(folder, None) as store:  # the only one there is
        assert (store.space, store.other_space) == (OTHER, None)
        store.add_space(SPACE)
        assert store.other_features(old) == {}
        store.add_features(old)
        assert_same(store.other_features(old), old)
    with pytest.raises(MismatchError):
        open_store(folder, SPACE._replace(id="third"))


def test_what_is_forgotten_leaves_both(moving):
    folder, old, new = moving
    with open_store(folder, OTHER) as store:
        store.forget([3, 10])
        assert 3 not in store.features(old)
        assert 10 not in store.other_features(old)
    data = b"".join(path.read_bytes() for path in folder.iterdir())
    assert new[3][0].tobytes() not in data
    assert old[10][0].tobytes() not in data


def test_what_no_checkpoint_needs_is_given_up_in_both(moving):
    folder, old, _ = moving
    with open_store(folder, OTHER) as store:
        assert store.clean(range(1, 5), up_to_seq=12) > 0
        assert set(store.features(old)) == set(store.other_features(old)) == {1, 2, 3, 4}


def test_features_that_do_not_fit_are_refused_and_nothing_is_kept(moving):
    folder, old, _ = moving
    with open_store(folder, SPACE) as store:
        event = taught(store, 1)[0]
        with pytest.raises(ValueError):
            store.append([event._replace(twin=event.features)])
        with pytest.raises(ValueError):
            store.add_features(old)
        store.drop_other()
        with pytest.raises(ValueError):
            store.add_features(seen_again([1]))
        with pytest.raises(ValueError):
            store.append([event._replace(twin=seen_again([1])[1])])
        assert store.next_seq == 13


@pytest.mark.parametrize("table", ["features", "features_2", "events"])
def test_salvage_saves_both_spaces(tmp_path, table):
    with open_store(tmp_path, SPACE) as store:
        store.add_space(OTHER)
        old, new = {}, {}
        for _ in range(10):
            mine, twins = both(store, 30)
            old, new = old | mine, new | twins
    damage(tmp_path, pages_of(tmp_path, table))
    with open_store(tmp_path, OTHER) as store:
        assert store.salvage is not None
        mine, theirs = store.features(new), store.other_features(old)
        assert min(len(mine), len(theirs)) >= 200
        for sample, features in mine.items():
            np.testing.assert_array_equal(features, new[sample])
        for sample, features in theirs.items():
            np.testing.assert_array_equal(features, old[sample])


def test_a_row_of_one_space_is_not_believed_in_the_other(moving):
    folder, _, new = moving
    connection = sqlite3.connect(folder / "learner.db")
    connection.execute("DELETE FROM features")
    connection.execute("INSERT INTO features SELECT * FROM features_2")
    connection.commit()
    connection.close()
    with open_store(folder, SPACE, read_only=True) as store:
        assert store.features(new) == {}


def test_a_database_of_the_last_version_is_read_as_it_is_and_comes_forward_when_written(tmp_path):
    with open_store(tmp_path, SPACE) as store:
        store.append(taught(store, 3))
    connection = sqlite3.connect(tmp_path / "learner.db")
    connection.execute("DROP TABLE features_2")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with open_store(tmp_path, SPACE, read_only=True) as store:
        assert len(store.features([1, 2, 3])) == 3
    with open_store(tmp_path, SPACE) as store:
        store.add_space(OTHER)
        both(store, 1)
        assert len(store.other_features([4])) == 1
