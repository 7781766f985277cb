"""A trial teaches everything once, in updates, and asks what it should."""

import numpy as np
import pytest
from checks.learner import LEARNERS, SPACE, lessons

from edge_cl.evaluation.protocols import Samples, class_incremental
from edge_cl.evaluation.trial import TrialConfig, run_trial

NAMES = ("mug", "fork", "lamp", "book")


def part(count, seed):
    made = lessons(count, NAMES, seed)
    return Samples(made.features, tuple(made.labels), ("",) * count, (None,) * count)


class Recorder:
    """A real learner that also notes what it was given."""

    def __init__(self, learner):
        self.learner, self.taught, self.calls = learner, [], []

    @property
    def labels(self):
        return self.learner.labels

    def learn_many(self, features, labels, samples=None):
        self.taught += list(zip(samples, labels, strict=True))
        self.calls.append(features.shape[:2])
        self.learner.learn_many(features, labels, samples)

    def consolidate(self, steps=None):
        self.calls.append(steps)
        self.learner.consolidate(steps)

    def scores_many(self, features):
        return self.learner.scores_many(features)


def ticking(step_s=0.5):
    """Return a clock that moves by a step each time it is read."""
    state = {"now_s": 0.0}

    def clock():
        state["now_s"] += step_s
        return state["now_s"]

    return clock


def test_every_sample_is_taught_once_in_updates_that_are_consolidated():
    train, test = part(50, 0), part(40, 1)
    plan = class_incremental(train, test, 2, 0)
    recorder = Recorder(LEARNERS["ncm"](SPACE, 0))
    config = TrialConfig(views=1, update_size=16, steps_per_update=5)
    trial = run_trial(recorder, plan, train, test, config, ticking())
    arrival = [int(i) for task in plan.tasks for i in task]
    assert recorder.taught == [(k + 1, train.labels[i]) for k, i in enumerate(arrival)]
    assert np.concatenate(trial.updates).tolist() == arrival
    assert recorder.calls[1::2] == [5] * (len(recorder.calls) // 2)
    assert all(shape[0] <= 16 and shape[1] == 1 for shape in recorder.calls[::2])
    assert trial.consolidate_ms == (500.0,) * len(trial.updates)
    assert trial.learn_ms == tuple(500.0 / len(update) for update in trial.updates)


def test_only_classes_seen_so_far_are_asked_about_and_all_of_them_at_the_end():
    train, test = part(80, 0), part(60, 1)
    plan = class_incremental(train, test, 4, 0)
    trial = run_trial(LEARNERS["slda"](SPACE, 0), plan, train, test, TrialConfig(), ticking())
    assert np.isnan(trial.matrix).tolist() == np.triu(np.ones((4, 4), bool), 1).tolist()
    assert trial.accuracy_per_task[0] == 1.0
    weights = np.bincount(plan.groups)
    assert trial.accuracy_per_task[-1] == pytest.approx(trial.matrix[-1] @ weights / weights.sum())
    assert trial.final_by_views[1] == trial.accuracy_per_task[-1]
    assert set(trial.final_by_views) == {1, 2}
    assert trial.base_final is None


def test_a_part_of_the_learner_is_judged_on_the_same_pictures():
    train, test = part(40, 0), part(40, 1)
    learner = LEARNERS["ncm"](SPACE, 0)
    plan = class_incremental(train, test, 2, 0)
    trial = run_trial(
        learner, plan, train, test, TrialConfig(), ticking(), alone=lambda x: -learner.scores_many(x)
    )
    assert trial.base_final < 0.2 < trial.accuracy_per_task[-1]


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_trial_gives_the_same_figures(name):
    train, test = part(48, 0), part(24, 1)
    plan = class_incremental(train, test, 2, 3)
    config = TrialConfig(views=2, update_size=24, steps_per_update=8)
    first, second = (
        run_trial(LEARNERS[name](SPACE, 3), plan, train, test, config, ticking()) for _ in range(2)
    )
    assert first.accuracy_per_task == second.accuracy_per_task
    assert first.final_by_views == second.final_by_views
