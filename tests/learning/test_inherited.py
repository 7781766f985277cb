"""What a learner was born with stays apart from what it was taught, whatever happens to its classes."""

import numpy as np
import pytest
from checks.learner import SIZE, SPACE, VIEWS, lessons, teach

from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.inherited import inherited, statistics
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.statistics import Statistics, empty_statistics

CONFIG = LearnerConfig(views=VIEWS)


def taught(count: int, seed: int = 0) -> EdgeLearner:
    return teach(EdgeLearner(SPACE, CONFIG), lessons(count, seed=seed))


def born(seed: int = 0) -> EdgeLearner:
    """A learner whose base came from elsewhere, and that was taught nothing yet."""
    elsewhere = taught(48, seed)
    learner = EdgeLearner(SPACE, CONFIG)
    for label in elsewhere.labels:
        learner.add_class(label)
    learner.base.restore(*elsewhere.base.statistics, 0.3, 1.0, 0)
    learner.inherited = inherited(learner.base.statistics)
    return learner


def assert_equal(found: Statistics, wanted: Statistics) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_kept_comes_back():
    found = taught(24).base.statistics
    assert_equal(statistics(inherited(found)), found)


def test_what_was_taught_here_is_the_difference():
    learner, alone = born(), EdgeLearner(SPACE, CONFIG)
    for each in (learner, alone):
        each.learn_many(*lessons(30, seed=5))
    places = [learner.labels.index(label) for label in alone.labels]
    own, wanted = learner.own_statistics(), alone.base.statistics
    np.testing.assert_array_equal(own.counts[places], wanted.counts)
    np.testing.assert_array_equal(own.sums[places], wanted.sums)
    np.testing.assert_array_equal(own.moment, wanted.moment)


def test_a_learner_that_was_born_empty_was_taught_all_it_knows():
    learner = taught(12)
    own = learner.own_statistics()
    assert_equal(own, learner.base.statistics)
    own.moment[:] = 0  # a copy: the base's own stays
    assert learner.base.statistics.moment.any()


def test_a_new_class_is_not_inherited():
    learner = born()
    learner.learn_one(lessons(1, ("bowl",)).features[0], "bowl")
    own = learner.own_statistics()
    assert own.counts.tolist() == [0, 0, 0, 12]


@pytest.mark.parametrize("label", ["mug", "bowl"])
def test_a_forgotten_class_leaves_the_rest_of_what_was_taught_as_it_was(label):
    learner = born()
    learner.learn_many(*lessons(24, ("mug", "bowl"), seed=3))
    before = learner.own_statistics()
    kept = [number for number, each in enumerate(learner.labels) if each != label]
    learner.forget_label(label)
    after = learner.own_statistics()
    np.testing.assert_array_equal(after.counts, before.counts[kept])
    np.testing.assert_array_equal(after.sums, before.sums[kept])
    assert after.residue == 0  # what was taught here of it was at hand, and went exactly


def test_a_forgotten_class_that_came_from_elsewhere_alone_takes_nothing_of_ours():
    learner = born()
    learner.forget_label("lamp")
    own = learner.own_statistics()
    assert_equal(own, empty_statistics(SIZE, 2))


def test_two_classes_that_become_one_do_so_in_both_parts():
    learner = born()
    learner.learn_many(*lessons(12, ("mug", "fork"), seed=3))
    learner.rename_label("fork", "mug")
    own = learner.own_statistics()
    assert own.counts[learner.labels.index("mug")] == 12 * 12
    assert int(learner.inherited.counts.sum()) == 48 * 12


def test_it_is_part_of_the_state():
    learner = born()
    learner.learn_many(*lessons(12, seed=3))
    slots = learner.buffer.filled
    features = {int(learner.buffer.slots.sample[slot]): learner.buffer.features[slot] for slot in slots}
    again = EdgeLearner.restore(SPACE, CONFIG, learner.flatten(), features)
    assert_equal(again.own_statistics(), learner.own_statistics())
    again.learn_one(lessons(1, seed=9).features[0], "mug")
    assert again.own_statistics().counts.sum() == learner.own_statistics().counts.sum() + 12
