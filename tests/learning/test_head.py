"""A head answers elsewhere as it does at home, whole or in few bytes, and goes on learning there."""

import numpy as np
import pytest
from checks.learner import SIZE, SPACE, VIEWS, accuracy, lessons, teach

from edge_cl.errors import MismatchError, ReleaseError
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.head import of_learner, parent_of, sum_steps, to_learner, to_statistics
from edge_cl.learning.increment import fault, untold
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.residual import ResidualConfig
from edge_cl.wire.tensors import pack, unpack

CONFIG = LearnerConfig(views=VIEWS)


@pytest.fixture(scope="module")
def home() -> EdgeLearner:
    learner = EdgeLearner(SPACE, CONFIG)
    for seed in range(6):
        teach(learner, lessons(48, seed=seed))
    learner.gate = 0.5  # so that the residual is heard
    learner.settle()
    return learner


def elsewhere(home: EdgeLearner, rank: int | None) -> EdgeLearner:
    tensors = unpack(pack(of_learner(home, rank)))[0]
    return to_learner(SPACE, CONFIG, home.labels, tensors)


@pytest.mark.parametrize(("rank", "error"), [(None, 0.2), (64, 0.4)])
def test_it_answers_as_at_home(home, rank, error):
    asked = lessons(90, seed=11).features
    first, second = (learner.predict_many(asked) for learner in (home, elsewhere(home, rank)))
    assert np.mean([a.best == b.best for a, b in zip(first, second, strict=True)]) > 0.98
    far = [abs(a.probability - b.probability) for a, b in zip(first, second, strict=True)]
    assert max(far) < error
    assert np.mean([a.label == b.label for a, b in zip(first, second, strict=True)]) > (
        0.97 if rank is None else 0.9
    )


def test_exact_statistics_are_those_of_home(home):
    found, mine = to_statistics(of_learner(home)), home.base.statistics
    assert all(np.array_equal(a, b) for a, b in zip(found[:3], mine[:3], strict=True))
    assert found.residue == mine.residue


def test_coarse_statistics_are_whole_and_possible(home):
    found, mine = to_statistics(of_learner(home, 16)), home.base.statistics
    assert np.array_equal(found.counts, mine.counts)
    assert np.array_equal(found.moment, np.rint(found.moment))
    assert (np.abs(found.sums - mine.sums) <= sum_steps(mine)[:, None] / 2).all()
    assert fault(found) == ""


def test_a_head_that_goes_on_from_its_parent_comes_nearer_than_one_from_nothing(home):
    parent = to_statistics(of_learner(home, 16))
    later = EdgeLearner(SPACE, CONFIG)
    for seed in range(6):
        teach(later, lessons(48, seed=seed))
    teach(later, lessons(12, ("bowl",), seed=9))
    alone, following = of_learner(later, 16), of_learner(later, 16, (3, parent))
    mine = later.base.statistics
    left = untold(mine, to_statistics(following, parent))
    assert left < 0.7 * untold(mine, to_statistics(alone))
    assert parent_of(following) == 3
    assert fault(to_statistics(following, parent)) == ""
    with pytest.raises(ReleaseError, match="bundle 3"):
        to_statistics(following)


def test_what_is_taught_elsewhere_is_taken_out_exactly(home):
    learner = elsewhere(home, 16)
    before = [array.copy() for array in learner.base.statistics[:3]]
    lesson = learner.learn_one(lessons(1, seed=20).features[0], "mug")
    learner.forget_sample(lesson.sample)
    assert all(np.array_equal(a, b) for a, b in zip(before, learner.base.statistics[:3], strict=True))


def test_it_goes_on_learning_and_forgets_nothing(home):
    learner = elsewhere(home, 64)
    teach(learner, lessons(48, ("bowl",), seed=21))
    asked = lessons(80, ("mug", "fork", "lamp", "bowl"), seed=22)
    assert accuracy(learner, asked) > 0.9


def test_a_head_of_nothing_is_a_learner_of_nothing():
    learner = elsewhere(EdgeLearner(SPACE, CONFIG), None)
    assert learner.predict_one(lessons(1).features[0]).best is None
    assert learner.learn_one(lessons(1).features[0], "mug").new_class


def test_a_residual_of_another_shape_is_refused(home):
    config = LearnerConfig(views=VIEWS, network=ResidualConfig(hidden=64))
    with pytest.raises(MismatchError):
        to_learner(SPACE, config, home.labels, of_learner(home))


def test_statistics_that_cannot_be_solved_are_refused(home):
    tensors = of_learner(home)
    with pytest.raises(ReleaseError):
        to_learner(SPACE, CONFIG, home.labels, {**tensors, "base.moment": -tensors["base.moment"]})


def test_a_coarse_head_is_small(home):
    assert len(pack(of_learner(home, 8))) < len(pack(of_learner(home)))
    assert of_learner(home, 8)["scatter.factors"].shape == (8, SIZE)
