"""What a step shows of each class beyond its due, and the loss that takes it off."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from host_trainer.sparcl.losses import single_head
from host_trainer.sparcl.plan import make_plan
from host_trainer.sparcl.schedule import EDGE, Sparsity
from host_trainer.sparcl.shares import shares_of

METHOD = make_plan("sparcl-derpp", Sparsity(EDGE)).method
COUNTS = hnp.arrays(np.int64, 5, elements=st.integers(0, 40))


def labels(counts: object) -> np.ndarray:
    return np.repeat(np.arange(len(np.asarray(counts))), counts).astype(np.int32)


def test_a_first_task_has_nothing_to_take_off() -> None:
    shares = shares_of(labels([30, 10, 0]), labels([3, 1, 0]), np.array([30, 10, 0]), METHOD)
    assert shares == pytest.approx([1, 1, 0])


def test_a_new_class_is_shown_more_than_its_due_and_its_share_says_how_much() -> None:
    # Two classes of ten each are remembered by four; one of ten is new, and half of every step.
    shares = shares_of(labels([0, 0, 10]), labels([2, 2, 0]), np.array([10, 10, 10]), METHOD)
    # What is remembered counts for half, so each of the old ones has a quarter of the new one's.
    assert METHOD.adjustment == 0.5
    assert shares == pytest.approx([0.25, 0.25, 1])


def test_a_rare_class_stays_rare() -> None:
    # As often in the step as in all that was taught: nothing is beyond its due, and logits may tell it.
    shares = shares_of(labels([90, 10]), labels([9, 1]), np.array([900, 100]), METHOD)
    assert shares == pytest.approx([1, 1])


@given(stream=COUNTS, memory=COUNTS, before=COUNTS)
def test_shares_are_of_what_can_be_shown_and_remembered_pictures_count_as_asked(
    stream: np.ndarray, memory: np.ndarray, before: np.ndarray
) -> None:
    stream = stream + 1  # a task has pictures
    taught = stream + before + memory
    shares = shares_of(labels(stream), labels(memory), taught, METHOD)
    assert shares.max() == 1 and shares.min() > 0
    alone = shares_of(labels(stream), labels(memory), taught, replace(METHOD, adjustment=1e-9))
    wanted = (stream / taught) / (stream / taught).max()
    assert alone == pytest.approx(wanted, rel=1e-5)


def test_a_class_of_which_nothing_is_left_does_not_count() -> None:
    shares = shares_of(labels([0, 0, 8]), labels([4, 0, 0]), np.array([8, 8, 8]), METHOD)
    assert shares[1] == 0 and shares[0] > 0


def test_the_loss_takes_the_logarithm_of_the_shares_off() -> None:
    rng = np.random.default_rng(0)
    logits, right = rng.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 3, 3, 0, 1], np.int32)
    shares = np.array([0.25, 1.0, 0.0, 0.5], np.float32)
    weighed = np.exp(logits) * shares
    wanted = -np.log(weighed[np.arange(6), right] / weighed.sum(axis=1)).mean()
    assert float(single_head(logits, right, shares)) == pytest.approx(wanted, rel=1e-5)
    keras, whole = pytest.importorskip("keras"), np.ones(4, np.float32)
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(right, logits)
    assert float(single_head(logits, right, whole)) == pytest.approx(float(plain), rel=1e-6)
