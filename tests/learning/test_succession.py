"""A learner goes on under a new head: it knows what others taught, and loses nothing of its own."""

import numpy as np
import pytest
from checks.learner import SIZE, SPACE, STEPS, VIEWS, accuracy, lessons, teach

from edge_cl.errors import ReleaseError
from edge_cl.learning import head, increment, named
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.coreset import coreset
from edge_cl.learning.embedding import embed
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import SAMPLE_WEIGHT, merge
from edge_cl.learning.succession import Exemplars, succeed, taught_again
from edge_cl.memory.buffer import EMPTY

CONFIG = LearnerConfig(views=VIEWS)
MINE, THEIRS = ("mug", "fork"), ("lamp", "Fork", "bowl")
LENT = 5  # exemplars a class
NOTHING = named.nothing(SIZE)


def taught(names: tuple[str, ...], count: int, seed: int = 0) -> EdgeLearner:
    return teach(EdgeLearner(SPACE, CONFIG), lessons(count, names, seed))


def own_of(learner: EdgeLearner) -> Named:
    return Named(learner.labels, learner.own_statistics())


def told(learner: EdgeLearner, rank: int = 24) -> Named:
    """What the host knows after one coarse telling."""
    nothing = named.nothing(SIZE)
    now = learner.own_statistics()
    more = increment.compress(now, named.on(nothing, learner.labels), rank)
    return named.grown(nothing, learner.labels, more)


def released(*known: Named) -> tuple[EdgeLearner, Named]:
    """The head of a host that knows these, as a learner of a device, and its statistics."""
    whole = named.nothing(SIZE)
    for each in known:
        whole = named.plus(whole, each)
    host = EdgeLearner(SPACE, CONFIG)
    for label in whole.labels:
        host.add_class(label)
    host.base.restore(*increment.lifted(whole.statistics), 0.2, 1.0, 0)
    host.base.refresh(0.2)
    return head.to_learner(SPACE, CONFIG, whole.labels, head.of_learner(host)), whole


def exemplars_of(learner: EdgeLearner, labels: tuple[str, ...]) -> Exemplars:
    slots = learner.buffer.filled
    numbers = learner.buffer.slots.number[slots]
    chosen = coreset(embed(learner.buffer.features[slots][:, 0], SPACE.zero_point), numbers, LENT)
    places = increment.places(learner.labels, labels)
    return Exemplars(learner.buffer.features[slots[chosen]][:, :1], places[numbers[chosen]])


def memory_of(learner: EdgeLearner) -> dict[int, np.ndarray]:
    slots = learner.buffer.filled
    return {int(learner.buffer.slots.sample[slot]): learner.buffer.features[slot] for slot in slots}


@pytest.fixture(scope="module")
def mine() -> EdgeLearner:
    return taught(MINE, 48)


@pytest.fixture(scope="module")
def theirs() -> EdgeLearner:
    return taught(THEIRS, 60, seed=1)


@pytest.fixture
def successor(mine, theirs) -> EdgeLearner:
    known = told(mine)
    new, whole = released(known, told(theirs))
    return succeed(mine, new, own_of(mine), known, memory_of(mine), exemplars_of(theirs, whole.labels))


def test_it_knows_what_either_was_taught(successor, mine):
    assert set(successor.labels) == {"mug", "fork", "lamp", "bowl"}
    asked = lessons(80, ("mug", "fork", "lamp", "bowl"), seed=7)
    assert accuracy(successor, asked) >= 0.95
    assert accuracy(mine, asked) < 0.6


def test_all_that_was_taught_here_stays_exactly_known(successor, mine):
    """What was told of it is in the release's head too, roughly, and counts once."""
    found, now = successor.own_statistics(), named.on(own_of(mine), successor.labels)
    for one, other in zip(found, now, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_old_learner_is_not_changed(mine, theirs):
    before = {name: values.copy() for name, values in mine.flatten().items()}
    new, whole = released(told(theirs))
    succeed(mine, new, own_of(mine), NOTHING, memory_of(mine), exemplars_of(theirs, whole.labels))
    for name, values in mine.flatten().items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_every_sample_stays_in_memory_and_exemplars_speak_for_who_is_not_here(successor, mine):
    assert {s for s in successor.live_samples() if s > EMPTY} == mine.live_samples()
    kept = dict(zip(successor.labels, successor.buffer.kept().tolist(), strict=True))
    assert (kept["lamp"], kept["bowl"]) == (LENT, LENT)
    assert kept["fork"] == sum(label == "fork" for label in lessons(48, MINE).labels)


def test_a_sample_taught_before_is_taken_out_exactly(successor):
    before = successor.base.statistics.counts.copy()
    sums = successor.base.statistics.sums.copy()
    rows = embed(successor.buffer.features[successor.buffer.find(1)], SPACE.zero_point)
    number = int(successor.buffer.slots.number[successor.buffer.find(1)])
    assert successor.forget_sample(1).exact == 1
    before[number] -= SAMPLE_WEIGHT
    sums[number] -= SAMPLE_WEIGHT // VIEWS * rows.sum(axis=0)
    np.testing.assert_array_equal(successor.base.statistics.counts, before)
    np.testing.assert_array_equal(successor.base.statistics.sums, sums)


def test_it_goes_on_learning_and_never_suspects_an_exemplar(successor):
    teach(successor, lessons(48, ("mug", "cup"), seed=4))
    assert accuracy(successor, lessons(80, ("mug", "lamp", "bowl", "cup"), seed=8)) >= 0.9
    assert all(suspect.sample > EMPTY for suspect in successor.suspects())
    assert np.isfinite(successor.calibration).all()


def test_a_class_with_exemplars_can_be_forgotten(successor):
    forgotten = successor.forget_label("lamp")
    assert forgotten.samples == ()
    assert set(successor.labels) == {"mug", "fork", "bowl"}
    assert successor.own_statistics().counts.min() >= -(SAMPLE_WEIGHT * 48)
    successor.consolidate(STEPS)


def test_it_comes_back_from_its_state(successor):
    successor.consolidate(STEPS)
    again = EdgeLearner.restore(SPACE, CONFIG, successor.flatten(), memory_of(successor))
    asked = lessons(20, seed=3).features
    np.testing.assert_array_equal(again.scores_many(asked), successor.scores_many(asked))
    assert again.live_samples() == successor.live_samples()


def test_a_class_that_only_this_device_knows_goes_on_under_its_name(mine, theirs):
    new, whole = released(told(theirs))  # the host took nothing of us
    lent = exemplars_of(theirs, whole.labels)
    found = succeed(mine, new, own_of(mine), NOTHING, memory_of(mine), lent)
    assert set(found.labels) == {"mug", "fork", "lamp", "bowl"}
    assert accuracy(found, lessons(80, ("mug", "fork", "lamp", "bowl"), seed=7)) >= 0.95


def test_a_head_that_lacks_what_it_took_is_refused(mine, theirs):
    new, whole = released(told(theirs))
    with pytest.raises(ReleaseError, match="was taught here, and the release lacks it"):
        succeed(
            mine,
            new,
            own_of(mine),
            told(mine),
            memory_of(mine),
            exemplars_of(theirs, whole.labels),
        )


def test_a_class_of_the_last_release_that_the_new_one_lacks_and_nobody_taught_here_goes(successor, mine):
    """The fleet has forgotten lamps."""
    new, whole = released(told(mine), told(taught(("bowl",), 12, seed=2)))
    lent = exemplars_of(mine, whole.labels)
    found = succeed(successor, new, own_of(successor), told(mine), memory_of(successor), lent)
    assert set(found.labels) == {"mug", "fork", "bowl"}
    for one, other in zip(found.own_statistics(), named.on(own_of(mine), found.labels), strict=True):
        np.testing.assert_array_equal(one, other)


def test_suspects_go_on_as_suspects(mine, theirs):
    learner = taught(MINE, 48)
    slot = learner.buffer.find(5)
    learner.base.revert(
        embed(learner.buffer.features[slot], SPACE.zero_point), int(learner.buffer.slots.number[slot])
    )
    learner.buffer.slots.suspect[slot] = True  # as the audit does
    suspects = {suspect.sample for suspect in learner.suspects()}
    assert suspects == {5}
    new, whole = released(told(theirs))
    lent = exemplars_of(theirs, whole.labels)
    found = succeed(learner, new, own_of(learner), NOTHING, memory_of(learner), lent)
    assert {suspect.sample for suspect in found.suspects()} == suspects
    assert found.own_statistics().counts.sum() == learner.own_statistics().counts.sum()


def test_in_another_space_what_was_taught_is_made_anew_of_what_can_be_seen_again(mine, theirs):
    """The same features under another name: made anew of all, they are what they were."""
    again = taught_again(mine, memory_of(mine), SIZE, SPACE.zero_point)
    for one, other in zip(again.statistics, mine.own_statistics(), strict=True):
        np.testing.assert_array_equal(one, other)
    half = dict(list(memory_of(mine).items())[::2])
    new, whole = released(told(theirs))
    found = succeed(
        mine,
        new,
        taught_again(mine, half, SIZE, SPACE.zero_point),
        NOTHING,
        half,
        exemplars_of(theirs, whole.labels),
    )
    assert {s for s in found.live_samples() if s > EMPTY} == set(half)
    assert accuracy(found, lessons(80, ("mug", "fork", "lamp", "bowl"), seed=7)) >= 0.95


def test_larger_features_leave_room_for_fewer_samples_of_each_class_alike(mine, theirs):
    small = LearnerConfig(views=VIEWS, buffer_bytes=20 * (VIEWS * SIZE + 64))
    known = told(theirs)
    host, _ = released(known)
    new = head.to_learner(SPACE, small, host.labels, head.of_learner(host))
    found = succeed(
        mine,
        new,
        own_of(mine),
        NOTHING,
        memory_of(mine),
        Exemplars(np.zeros((0, 1, SIZE), np.int8), np.zeros(0, np.int32)),
    )
    kept = dict(zip(found.labels, found.buffer.kept().tolist(), strict=True))
    assert kept["mug"] == 10
    assert merge(found.own_statistics(), found.own_statistics()).counts.sum() == 2 * 48 * SAMPLE_WEIGHT
