"""The before-you-learn tallies count answers given before the sample was learned."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.learning.progress import MEMORY, Progress


def of(classes):
    progress = Progress.empty()
    for _ in range(classes):
        progress = progress.with_class()
    return progress


def test_the_progress_of_nobody_is_empty():
    assert [array.shape for array in Progress.empty()] == [(0,), (0,), (0,), (0, 0)]


def test_the_first_sample_of_a_class_is_taught_but_not_an_answer():
    progress = of(2).taught_one(1, None)
    assert progress.taught.tolist() == [0, 1]
    assert progress.seen.tolist() == [0, 0]


def test_answers_are_tallied_and_older_ones_count_less():
    progress = of(2).taught_one(0, 0).taught_one(0, 1)
    assert progress.taught.tolist() == [2, 0]
    assert progress.seen[0] == MEMORY + 1
    assert progress.right[0] == MEMORY
    assert progress.confused.tolist() == [[0, 1], [0, 0]]


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 2))), max_size=60))
def test_right_never_exceeds_seen_and_confusions_are_the_wrong_answers(answers):
    progress = of(3)
    for number, predicted in answers:
        progress = progress.taught_one(number, predicted)
    assert (progress.right <= progress.seen + 1e-12).all()
    assert progress.taught.sum() == len(answers)
    wrong = [(n, p) for n, p in answers if p is not None and p != n]
    assert progress.confused.sum() == len(wrong)
    assert all(progress.confused[n, p] == wrong.count((n, p)) for n, p in set(wrong))
    assert not progress.confused.diagonal().any()


def test_a_score_follows_what_is_true_now():
    progress = of(1)
    for _ in range(200):
        progress = progress.taught_one(0, 0)
    progress = progress.with_class()
    for _ in range(200):
        progress = progress.taught_one(0, 1)
    assert progress.right[0] / progress.seen[0] < 0.01


@given(st.integers(0, 2))
def test_dropping_a_class_keeps_the_tallies_of_the_others(number):
    progress = of(3)
    for taught, predicted in [(0, 1), (1, 2), (2, 0), (1, 0), (0, 0)]:
        progress = progress.taught_one(taught, predicted)
    rest = [i for i in range(3) if i != number]
    dropped = progress.without_class(number)
    assert np.array_equal(dropped.taught, progress.taught[rest])
    assert np.array_equal(dropped.seen, progress.seen[rest])
    assert np.array_equal(dropped.right, progress.right[rest])
    assert np.array_equal(dropped.confused, progress.confused[np.ix_(rest, rest)])


def test_steps_replace_arrays_and_never_change_them():
    first = of(2)
    before = [array.copy() for array in first]
    first.taught_one(0, 1)
    first.with_class()
    first.without_class(0)
    assert all(np.array_equal(a, b) for a, b in zip(before, first, strict=True))
