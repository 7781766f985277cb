"""What two learners are compared by: answers to samples as if these had never been taught."""

import numpy as np
import pytest
from checks.learner import SPACE, VIEWS, lessons, teach

from edge_cl.learning import unseen
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.embedding import embed
from edge_cl.learning.learner import EdgeLearner
from edge_cl.memory.buffer import exemplar_ids

NAMES = ("mug", "fork", "lamp")


@pytest.fixture(scope="module")
def learner() -> EdgeLearner:
    found = EdgeLearner(SPACE, LearnerConfig(views=VIEWS, residual=False))
    teach(found, lessons(60))
    found.buffer.lend(int(exemplar_ids(1)[0]), 0, found.buffer.features[0])
    return found


def test_who_judges_was_taught_here_and_is_every_sixth(learner):
    assert unseen.trusted(learner) == list(range(1, 61))
    assert unseen.held_back(learner) == list(range(6, 61, 6))


def test_a_suspect_does_not_judge(learner):
    other = EdgeLearner.restore(SPACE, learner.config, learner.flatten(), memory_of(learner))
    other.buffer.slots.suspect[other.buffer.find(6)] = True
    assert 6 not in unseen.held_back(other)


def memory_of(learner: EdgeLearner) -> dict[int, np.ndarray]:
    slots = learner.buffer.filled
    return {int(learner.buffer.slots.sample[slot]): learner.buffer.features[slot] for slot in slots}


def test_the_answers_are_those_of_a_learner_that_was_not_taught_them(learner):
    samples = unseen.held_back(learner)
    other = EdgeLearner.restore(SPACE, learner.config, learner.flatten(), memory_of(learner))
    for sample in samples:
        slot = other.buffer.find(sample)
        rows = embed(other.buffer.features[slot], SPACE.zero_point)
        other.base.revert(rows, int(other.buffer.slots.number[slot]))
    other.base.settle()
    shown = np.stack([learner.buffer.features[learner.buffer.find(sample)] for sample in samples])
    wanted = [answer.best for answer in other.predict_many(shown[:, :1])]
    assert unseen.answers(learner, samples, learner.labels) == wanted
    truth = unseen.labels_of(learner, samples)
    assert np.mean([a == b for a, b in zip(wanted, truth, strict=True)]) > 0.8


def test_a_class_of_one_sample_is_unknown_without_it():
    learner = EdgeLearner(SPACE, LearnerConfig(views=VIEWS, residual=False))
    learner.learn_many(*lessons(20, ("mug", "fork")))
    learner.learn_one(lessons(1, ("lamp",)).features[0], "lamp")
    learner.base.refresh(0.2)
    assert unseen.answers(learner, [21], learner.labels) != ["lamp"]
    assert unseen.answers_of_base(learner, [21], learner.labels) != ["lamp"]


def test_one_by_one_the_base_answers_nearly_the_same(learner):
    samples = unseen.trusted(learner)
    found = unseen.answers_of_base(learner, samples, learner.labels)
    truth = unseen.labels_of(learner, samples)
    assert np.mean([a == b for a, b in zip(found, truth, strict=True)]) > 0.9


def test_answers_may_be_restricted_to_some_classes(learner):
    samples = unseen.held_back(learner)
    for ask in (unseen.answers, unseen.answers_of_base):
        assert set(ask(learner, samples, ("lamp", "mug"))) <= {"lamp", "mug"}
        assert ask(learner, [], learner.labels) == []
