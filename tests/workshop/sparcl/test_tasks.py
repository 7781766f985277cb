"""Every protocol shares out a data set whole, and says in one line what cannot be learned so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.datasets.domains import unchanged
from host_trainer.datasets.examples import DataSet, Examples
from host_trainer.sparcl.tasks import (
    CLASS,
    DOMAIN,
    GIVEN,
    PROTOCOLS,
    SHUFFLED,
    TASK,
    Task,
    check_batch,
    classes_match,
    plan_tasks,
    transform_of,
)

SEEDS = st.integers(0, 2**31)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def part(labels: np.ndarray, domains: np.ndarray) -> Examples:
    return Examples(
        np.zeros((len(labels), 4, 4, 3), np.uint8), labels.astype(np.int32), domains.astype(np.int32)
    )


def data_set(
    classes: tuple[str, ...] = CIFAR10,
    each: int = 6,
    sessions: tuple[str, ...] = (),
    name: str = "own",
    seed: int = 0,
) -> DataSet:
    """Return a data set of `each` pictures a class to learn from and half as many to ask; shuffled."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in (each, max(1, each // 2)):
        labels = rng.permutation(np.repeat(np.arange(len(classes)), count))
        parts.append(part(labels, np.arange(len(labels)) % max(1, len(sessions))))
    return DataSet(name, classes, sessions, *parts)


def shared_out(tasks: tuple[Task, ...], data: DataSet) -> None:
    """Check that every picture of both parts belongs to one task."""
    for number, whole in enumerate((data.train, data.test)):
        found = np.concatenate([task[2 + number] for task in tasks])
        assert sorted(found) == list(range(len(whole.labels)))


@given(
    st.integers(2, 30), st.data(), st.sampled_from([CLASS, TASK]), st.sampled_from([GIVEN, SHUFFLED]), SEEDS
)
def test_classes_are_shared_out_whole(
    count: int, draw: st.DataObject, protocol: str, order: str, seed: int
) -> None:
    data = data_set(tuple(f"class {number}" for number in range(count)), seed=seed)
    tasks = plan_tasks(data, protocol, draw.draw(st.integers(1, count // 2)), seed, order)
    shared_out(tasks, data)
    assert sorted(np.concatenate([task.classes for task in tasks])) == list(range(count))
    sizes = [len(task.classes) for task in tasks]
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    for task in tasks:
        assert set(data.train.labels[task.train]) == set(data.test.labels[task.test]) == set(task.classes)


def test_what_was_taught_earlier_is_in_no_new_task_and_one_new_class_may_come_alone() -> None:
    data = data_set(("old", "older", "new", "newer"))
    chosen = data.train.labels >= 2
    new = data._replace(train=Examples(*(values[chosen] for values in data.train)))
    assert [task.classes.tolist() for task in plan_tasks(new, CLASS, 1)] == [[2, 3]]
    assert [task.name for task in plan_tasks(new, CLASS, 2, least=1)] == ["new", "newer"]
    with pytest.raises(
        ConfigError, match="2 classes cannot make 2 tasks of 2 or more: give at most --tasks 1"
    ):
        plan_tasks(new, CLASS, 2)


def test_changed_pictures_go_on_with_changes_that_were_not_there_yet() -> None:
    data = data_set(tuple("0123456789"), name="rot-mnist")
    names = [task.name for task in plan_tasks(data, DOMAIN, 4)]
    assert [task.name for task in plan_tasks(data, DOMAIN, 2, before=2)] == names[2:]


def test_split_cifar10_takes_the_classes_as_they_are_numbered() -> None:
    tasks = plan_tasks(data_set(), CLASS, 5, seed=3)
    assert [task.classes.tolist() for task in tasks] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [task.name for task in tasks][:2] == ["airplane, automobile", "bird, cat"]


def test_shuffled_classes_follow_the_seed() -> None:
    first, again, other = (
        [task.classes.tolist() for task in plan_tasks(data_set(), CLASS, 5, seed, SHUFFLED)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@given(st.integers(1, 12), st.data(), SEEDS)
def test_sessions_are_shared_out_in_their_order(count: int, draw: st.DataObject, seed: int) -> None:
    names = tuple(f"day {number}" for number in range(1, count + 1))  # 9 comes before 10
    data = data_set(sessions=names, seed=seed)
    tasks = plan_tasks(data, DOMAIN, draw.draw(st.integers(1, count)), seed)
    shared_out(tasks, data)
    last = -1
    for task in tasks:
        assert task.classes.tolist() == list(range(10))
        domains = data.train.domains[task.train]
        assert domains.min() > last
        assert set(data.test.domains[task.test]) <= set(domains)
        last = domains.max()


def test_a_test_picture_of_a_later_session_belongs_to_the_last_task_begun_before_it() -> None:
    names = ("day 1", "day 2", "day 3", "day 4", "day 9")
    data = DataSet(
        "own",
        ("a", "b"),
        names,
        part(np.array([0, 1, 0, 1]), np.array([0, 1, 2, 3])),
        part(np.array([0, 1, 0]), np.array([0, 4, 2])),
    )
    first, second = plan_tasks(data, DOMAIN, 2)
    assert (first.name, second.name) == ("day 1, day 2", "day 3, day 4")
    assert first.test.tolist() == [0]
    assert second.test.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["mnist", "rot-mnist", "perm-mnist"])
def test_every_domain_of_mnist_holds_every_picture(name: str) -> None:
    data = data_set(name=name)
    tasks = plan_tasks(data, DOMAIN, 20, seed=1)
    assert len({task.name for task in tasks}) == 20
    for task in tasks:
        shared_out((task,), data)
        assert task.classes.tolist() == list(range(10))


def test_domains_of_mnist_change_pictures_by_task_and_seed_and_no_other_data() -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)
    for name in ("mnist", "rot-mnist", "perm-mnist"):
        first, again, other, seed = (
            transform_of(name, DOMAIN, *at)(values) for at in ((0, 5), (0, 5), (1, 5), (0, 6))
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert not np.array_equal(first, seed)
        assert not np.array_equal(first, values)
    assert transform_of("mnist", CLASS, 0, 5) is unchanged
    assert transform_of("cifar10", DOMAIN, 0, 5) is unchanged


def test_more_tasks_do_not_change_the_first_domains() -> None:
    few, many = (plan_tasks(data_set(name="mnist"), DOMAIN, tasks, seed=4) for tasks in (3, 9))
    assert [task.name for task in many[:3]] == [task.name for task in few]


BAD = {
    "no protocol": (
        data_set(),
        ("stream", 2),
        f"'stream' is no protocol: give one of {', '.join(PROTOCOLS)}",
    ),
    "no task": (data_set(), (CLASS, 0), "0 tasks cannot be"),
    "fewer than none": (data_set(name="mnist"), (DOMAIN, -1), "-1 tasks cannot be"),
    "more tasks than classes": (data_set(), (CLASS, 11), "10 classes cannot make 11 tasks"),
    "a task with one class": (
        data_set(),
        (TASK, 6),
        "10 classes cannot make 6 tasks of 2 or more.*--tasks 5",
    ),
    "no such order": (data_set(), (CLASS, 5, 0, "random"), "'random' is no order"),
    "no domains": (data_set(), (DOMAIN, 2), "own has no domains: name sessions"),
    "more tasks than sessions": (data_set(sessions=("a", "b")), (DOMAIN, 3), "3 tasks need as many sessions"),
    "turned digits by class": (data_set(name="rot-mnist"), (CLASS, 5), "rot-mnist is made of domains"),
}


@pytest.mark.parametrize(("data", "asked", "says"), BAD.values(), ids=BAD)
def test_what_makes_no_sense_is_one_line(data: DataSet, asked: tuple, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        plan_tasks(data, *asked)
    assert "\n" not in str(refusal.value)


def test_a_task_fills_a_batch() -> None:
    tasks = plan_tasks(data_set(each=6), CLASS, 5)
    check_batch(tasks, 12)
    with pytest.raises(ConfigError, match="task airplane, automobile has 12 pictures.*a batch 13"):
        check_batch(tasks, 13)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((), ("mug",)),
        (("mug", "fork"), ("mug", "fork")),
        (("mug", "fork"), ("mug", "fork", "cup")),
        (("Mug", "Straße"), ("mug", "STRASSE", "cup")),
    ],
)
def test_a_continued_run_may_spell_otherwise_and_learn_more(before: tuple, now: tuple) -> None:
    classes_match(before, now)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (("mug", "spoon"), "class 2 was 'fork' and is 'spoon' now"),
        (("fork", "mug"), "class 1 was 'mug' and is 'fork' now"),
        (("cup", "mug", "fork"), "class 1 was 'mug' and is 'cup' now"),
        (("mug",), "class 'fork' of the earlier run is missing"),
    ],
)
def test_a_continued_run_keeps_its_classes_and_their_order(now: tuple, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        classes_match(("mug", "fork"), now)
