"""A head is made of statistics and samples, goes on from the incumbent, and never sees what judges it."""

from dataclasses import replace

import numpy as np
import pytest
from simulators.devices import SIZE, SPACE, VIEWS, Device, drawn_samples

from edge_cl.learning import named
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.named import Named
from edge_cl.learning.residual import ResidualConfig
from edge_cl.wire.codec import content_id
from host_trainer.retraining import heads
from host_trainer.retraining.heads import HeadConfig, Teacher, made, rehearsed
from host_trainer.retraining.merging import merged
from host_trainer.retraining.samples import Samples, joined, nothing, statistics_of
from host_trainer.retraining.told import taken_in

CONFIG = HeadConfig(LearnerConfig(views=VIEWS, network=ResidualConfig(hidden=32)))
LABELS = ("can", "mug", "tin", "jar")


def head_of(samples: Samples, incumbent=None, fresh=None):
    labels = tuple(dict.fromkeys(samples.labels))
    known = Named(labels, statistics_of(samples, labels, 0))
    fresh = np.ones(len(samples), bool) if fresh is None else fresh
    teacher = None if incumbent is None else Teacher(incumbent, samples)
    return made(SPACE, CONFIG, known, known.statistics, samples, fresh, incumbent, teacher)


def accuracy(learner, samples: Samples) -> float:
    found = heads.answers(learner, samples.features)
    return float(np.mean([one == other for one, other in zip(found, samples.labels, strict=True)]))


def test_a_first_head_answers_and_is_calibrated() -> None:
    head = head_of(drawn_samples(LABELS, 30, 0))
    assert accuracy(head.learner, drawn_samples(LABELS, 20, 9)) > 0.9
    assert head.learner.calibration.temperature != 8.0
    assert head.held_back.devices == ()  # the host's own samples judge nothing of devices


def test_the_same_head_comes_again_bit_for_bit() -> None:
    first, second = (head_of(drawn_samples(LABELS, 12, 0)).learner.flatten() for _ in range(2))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_a_head_that_learns_a_class_more_keeps_its_other_answers() -> None:
    old, new = drawn_samples(LABELS[:3], 30, 0), drawn_samples(LABELS[3:], 30, 1, "device-1")
    incumbent = head_of(old).learner
    both = joined([old, new])
    head = head_of(both, incumbent, np.array([each != "" for each in both.devices]))
    asked = drawn_samples(LABELS[:3], 40, 9)
    before, after = (heads.answers(each, asked.features) for each in (incumbent, head.learner))
    assert np.mean([one == other for one, other in zip(before, after, strict=True)]) > 0.9
    assert accuracy(head.learner, drawn_samples(LABELS[3:], 20, 9)) > 0.9
    assert set(head.held_back.devices) == {"device-1"} and set(head.held_back.truth) == {"jar"}
    assert len(head.held_back.truth) == 5  # every sixth


def test_a_head_of_statistics_alone_answers() -> None:
    device = Device("device-1")
    message = device.tell(drawn_samples(LABELS, 30, 0))
    told = taken_in(None, message, content_id(message), ())
    known = merged(named.nothing(SIZE), [told], (), 1.0).known
    none = nothing(SPACE, VIEWS)
    head = made(SPACE, CONFIG, known, known.statistics, none, np.zeros(0, bool))
    assert accuracy(head.learner, drawn_samples(LABELS, 20, 9)) > 0.9


@pytest.mark.parametrize("kept", [1.0, 0.4], ids=["all features", "some features"])
def test_what_is_learned_from_holds_every_sample(kept: float) -> None:
    samples = drawn_samples(LABELS, 10, 0, "device-1")
    message = Device("device-1", rank=4).tell(samples)
    told = taken_in(None, message, content_id(message), ())
    known = merged(named.nothing(SIZE), [told], (), 1.0).known
    some = samples.at(np.random.default_rng(0).random(len(samples)) < kept)
    found = rehearsed(named.nothing(SIZE), [told], {"device-1": 1.0}, some, known.labels, 0)
    exact = statistics_of(samples, known.labels, 0)
    if kept == 1.0:
        np.testing.assert_array_equal(found.moment, exact.moment)
    np.testing.assert_array_equal(found.counts, exact.counts)
    seen = statistics_of(some, known.labels, 0)
    within = [s.moment - heads.between(s.counts, s.sums) for s in (found, seen)]
    assert np.linalg.eigvalsh(within[0] - within[1])[0] > -1e-6 * np.trace(within[0])
    np.testing.assert_array_equal(found.moment, np.rint(found.moment))
    head = made(SPACE, CONFIG, known, found, some, np.ones(len(some), bool))
    assert np.isfinite(head.learner.calibration.loss)
    assert accuracy(head.learner, drawn_samples(LABELS, 20, 9)) > 0.85


def test_wrong_labels_are_named_with_their_device() -> None:
    many = (*LABELS, "box", "bag", "lid", "cup")
    clean, dirty = drawn_samples(many, 40, 0, "", 60.0), drawn_samples(many[:4], 2, 1, "device-2", 60.0)
    swapped = replace(dirty, labels=tuple(reversed(dirty.labels)))
    suspects = head_of(joined([clean, swapped])).suspects
    assert {device for device, _, _ in suspects} == {"device-2"}
    assert {sample for _, sample, _ in suspects} <= set(range(1, 9)) and len(suspects) > 5
