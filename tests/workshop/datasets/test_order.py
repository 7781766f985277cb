"""Order, tasks, held-back samples and views are pure functions of names, hashes, seed and step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.datasets.batches import ahead, batch_indices, steps_of
from host_trainer.datasets.splits import class_tasks, held_back
from host_trainer.datasets.views import WHOLE, views_of

SEEDS = st.integers(0, 2**31)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 5), SEEDS)
def test_every_epoch_visits_every_sample_once(total: int, batch: int, epochs: int, seed: int) -> None:
    steps = -(-epochs * total // batch)
    order = np.concatenate([batch_indices(total, batch, step, seed) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * total : (epoch + 1) * total]) == list(range(total))


def test_a_batch_does_not_depend_on_the_ones_before() -> None:
    forward = [batch_indices(100, 32, step, 5).tolist() for step in range(10)]
    backward = [batch_indices(100, 32, step, 5).tolist() for step in reversed(range(10))]
    assert forward == backward[::-1]


@given(st.floats(0.01, 50), st.integers(1, 1000), st.integers(1, 100))
def test_steps_see_about_as_many_samples_as_asked(epochs: float, total: int, batch: int) -> None:
    steps = steps_of(epochs, total, batch)
    assert steps >= 1
    assert abs(steps * batch - epochs * total) <= batch


def test_batches_made_ahead_come_in_order() -> None:
    made = ahead(lambda step: {"step": np.array(step)}, 3, 12)
    assert [int(batch["step"]) for batch in made] == list(range(3, 12))


def test_what_goes_wrong_in_a_batch_is_told_where_it_is_used() -> None:
    def source(step: int) -> dict[str, np.ndarray]:
        if step == 2:
            raise ConfigError("broken")
        return {}

    with pytest.raises(ConfigError, match="broken"):
        list(ahead(source, 0, 5))


NAMES = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=30, unique=True)


@given(NAMES, st.data(), SEEDS)
def test_tasks_share_out_every_class_evenly(names: list[str], data: st.DataObject, seed: int) -> None:
    tasks = data.draw(st.integers(1, len(names)))
    parts = class_tasks(names, tasks, seed)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert len(parts) == tasks
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert class_tasks(names[::-1], tasks, seed) == parts


@pytest.mark.parametrize("tasks", [0, -1, 4])
def test_there_are_no_more_tasks_than_classes(tasks: int) -> None:
    with pytest.raises(ConfigError, match="3 classes cannot make"):
        class_tasks(["a", "b", "c"], tasks)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.05, 0.95), SEEDS)
def test_some_of_every_class_are_held_back_and_some_are_left(
    labels: list[int], share: float, seed: int
) -> None:
    values = np.array(labels)
    chosen = held_back(values, share, seed)
    for label in np.unique(values):
        count, kept = int(chosen[values == label].sum()), int((~chosen[values == label]).sum())
        assert kept >= 1
        assert count >= 1 or kept == 1


@given(st.integers(0, 2**128 - 1), st.integers(1, 12), SEEDS)
def test_views_lie_in_the_picture_and_the_first_is_the_whole(number: int, count: int, seed: int) -> None:
    views = views_of(f"{number:064x}", count, seed)
    assert len(views) == count
    assert views[0] == WHOLE
    for view in views:
        assert 0 <= view.left < view.right <= 1 + 1e-12
        assert 0 <= view.top < view.bottom <= 1 + 1e-12


def test_more_views_do_not_change_the_first_ones() -> None:
    assert views_of("ab" * 32, 8, 1)[:3] == views_of("ab" * 32, 3, 1)
    assert views_of("ab" * 32, 3, 1) != views_of("ac" * 32, 3, 1)
