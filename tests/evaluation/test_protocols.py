"""What arrives when, who is asked about it, and which labels are made wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from edge_cl.evaluation.protocols import (
    PROTOCOLS,
    Samples,
    class_incremental,
    domain_incremental,
    stream,
    wrong_labels,
)

NAMES = tuple("abcdefghij")


def samples(labels, sessions=None, orders=None):
    count = len(labels)
    return Samples(
        np.zeros((count, 1, 4), np.uint8),
        tuple(labels),
        tuple(sessions or [""] * count),
        tuple(orders or [None] * count),
    )


def classes_of(plan, train):
    return [{train.labels[i] for i in task} for task in plan.tasks]


@given(tasks=st.integers(1, 10), seed=st.integers(0, 1000))
def test_class_incremental_shows_every_sample_once_and_every_class_in_one_task(tasks, seed):
    train, test = samples(NAMES * 3), samples(NAMES)
    plan = class_incremental(train, test, tasks, seed)
    assert sorted(np.concatenate(plan.tasks)) == list(range(30))
    groups = classes_of(plan, train)
    assert len(groups) == tasks
    assert sum(map(len, groups)) == len(set().union(*groups)) == 10
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert all(label in groups[group] for label, group in zip(test.labels, plan.groups, strict=True))


def test_the_seed_decides_the_order_of_classes_and_nothing_else_does():
    train, test = samples(NAMES * 2), samples(NAMES)
    backwards = samples((NAMES * 2)[::-1])
    first, second = (classes_of(class_incremental(train, test, 5, seed), train) for seed in (0, 1))
    assert first != second
    assert classes_of(class_incremental(backwards, test, 5, 0), backwards) == first


def test_domain_incremental_cuts_the_sessions_in_their_natural_order():
    sessions = [str(n) for n in (10, 2, 1, 9) for _ in range(2)]
    train = samples(["a", "b"] * 4, sessions)
    test = samples(["a", "b", "a"], ["0", "3", "11"])
    plan = domain_incremental(train, test, 2, seed=0)
    assert [sorted({train.sessions[i] for i in task}) for task in plan.tasks] == [["1", "2"], ["10", "9"]]
    assert classes_of(plan, train) == [{"a", "b"}, {"a", "b"}]
    assert plan.groups.tolist() == [0, 0, 1]


def test_a_stream_runs_by_session_then_order_and_puts_the_unknown_last():
    train = samples(["a", "b", "c", "a", "b"], ["2", "1", "", "1", "10"], [1, 7, None, 3, 1])
    plan = stream(train, samples(["a", "b", "c"]), 2, seed=0)
    assert np.concatenate(plan.tasks).tolist() == [3, 1, 0, 4, 2]
    assert [len(task) for task in plan.tasks] == [3, 2]
    assert plan.groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("protocol", "tasks", "message"),
    [
        ("class-incremental", 3, "3 tasks need as many classes, there are 2"),
        ("domain-incremental", 2, "manifest.csv"),
        ("stream", 5, "5 tasks need as many pictures, there are 4"),
        ("class-incremental", 0, "0 tasks cannot be"),
    ],
)
def test_more_tasks_than_there_is_to_share_out_are_refused(protocol, tasks, message):
    with pytest.raises(ConfigError, match=message):
        PROTOCOLS[protocol](samples("abab"), samples("ab"), tasks, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_class_that_is_not_in_both_parts_is_refused(protocol):
    with pytest.raises(ConfigError, match="'b' has no readable test picture"):
        PROTOCOLS[protocol](samples("ab"), samples("a"), 1, 0)
    with pytest.raises(ConfigError, match="'c' has no readable training picture"):
        PROTOCOLS[protocol](samples("ab"), samples("abc"), 1, 0)


@given(share=st.sampled_from([0.0, 0.1, 0.25, 1.0]), seed=st.integers(0, 100))
def test_wrong_labels_are_as_many_as_asked_and_name_classes_seen_by_then(share, seed):
    train = samples(NAMES * 10)
    plan = class_incremental(train, samples(NAMES), 5, seed)
    noise = wrong_labels(train.labels, plan, share, seed)
    seen = set()
    for task in plan.tasks:
        seen |= {train.labels[i] for i in task}
        assert noise.wrong[task].sum() == round(share * len(task))
        assert all(noise.labels[i] in seen for i in task)
    changed = np.array([a != b for a, b in zip(noise.labels, train.labels, strict=True)])
    assert (changed == noise.wrong).all()
    again = wrong_labels(train.labels, plan, share, seed)
    assert again.labels == noise.labels


def test_a_single_class_so_far_cannot_be_mistaken_for_another():
    train = samples("aaaabbbb")
    plan = class_incremental(train, samples("ab"), 2, 0)
    noise = wrong_labels(train.labels, plan, 0.5, 0)
    assert noise.wrong[plan.tasks[0]].sum() == 0
    assert noise.wrong[plan.tasks[1]].sum() == 2
