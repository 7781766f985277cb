"""What every learner must do, the edge learner and its peers alike: one table of learners, one of checks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.learner import EdgeLearner, LearnerConfig
from edge_cl.learning.peers import PEERS, PeerConfig
from edge_cl.sample import FeatureSpace

SIZE = 64  # D
VIEWS = 2
STEPS = 24
SPACE = FeatureSpace("made for checks", SIZE, "int8", 0.05, -20)

Make = Callable[[FeatureSpace, int], Any]


class Lessons(NamedTuple):
    """Made samples: features (N, V, D), labels, in random order of classes."""

    features: NDArray[np.int8]
    labels: list[str]


def peer(name: str) -> Make:
    return lambda space, seed: PEERS[name](space, PeerConfig(views=VIEWS, hidden=32, seed=seed))


def edge(residual: bool) -> Make:
    return lambda space, seed: EdgeLearner(space, LearnerConfig(views=VIEWS, residual=residual, seed=seed))


LEARNERS: dict[str, Make] = {
    "edge": edge(residual=True),
    "base": edge(residual=False),
    **{name: peer(name) for name in PEERS},
}


def lessons(count: int, names: tuple[str, ...] = ("mug", "fork", "lamp"), seed: int = 0) -> Lessons:
    """Make classes that overlap little: a prototype each, noise for each sample, less for each view."""
    rng = np.random.default_rng((seed, 99))
    prototypes = {name: np.random.default_rng(sum(name.encode())).normal(0, 30, SIZE) for name in names}
    labels = [names[i % len(names)] for i in rng.permutation(count)]
    centres = np.stack([prototypes[label] for label in labels]) + rng.normal(0, 15, (count, SIZE))
    values = centres[:, None] + rng.normal(0, 5, (count, VIEWS, SIZE)) + SPACE.zero_point
    return Lessons(np.clip(np.round(values), -128, 127).astype(np.int8), labels)


def teach(learner: Any, taught: Lessons, size: int = 16) -> Any:
    for begin in range(0, len(taught.labels), size):
        part = slice(begin, begin + size)
        learner.learn_many(taught.features[part], taught.labels[part])
        learner.consolidate(STEPS)
    return learner


def accuracy(learner: Any, asked: Lessons) -> float:
    scores = learner.scores_many(asked.features)
    return float(
        np.mean([learner.labels[k] == label for k, label in zip(scores.argmax(1), asked.labels, strict=True)])
    )


def check_a_new_learner_knows_nothing_and_says_so(make: Make) -> None:
    learner = make(SPACE, 0)
    answer = learner.predict_one(lessons(1).features[0])
    assert learner.labels == ()
    assert answer.label is None
    assert answer.best is None
    assert learner.predict_many(lessons(3).features[:0]) == []


def check_a_class_is_known_from_its_first_sample(make: Make) -> None:
    learner, shown = make(SPACE, 0), lessons(1)
    learner.learn_one(shown.features[0], shown.labels[0])
    learner.consolidate(STEPS)
    assert learner.labels == tuple(shown.labels)
    assert learner.predict_one(shown.features[0]).best == shown.labels[0]
    assert learner.scores_many(shown.features).shape == (1, 1)


def check_classes_mixed_in_one_update_are_told_apart(make: Make) -> None:
    learner = teach(make(SPACE, 0), lessons(96), size=96)
    for _ in range(10):
        teach(learner, lessons(48, seed=2), size=48)
    assert accuracy(learner, lessons(60, seed=1)) >= 0.9


def check_labels_keep_their_order_when_classes_are_added(make: Make) -> None:
    learner = teach(make(SPACE, 0), lessons(8, ("mug", "fork")))
    before = learner.labels
    teach(learner, lessons(8, ("lamp", "mug")))
    assert learner.labels[:2] == before
    assert set(learner.labels) == {"mug", "fork", "lamp"}
    assert learner.scores_many(lessons(5).features).shape == (5, 3)


def check_the_same_lessons_give_the_same_scores_bit_for_bit(make: Make) -> None:
    asked = lessons(20, seed=1).features
    first, second = (teach(make(SPACE, 7), lessons(60)).scores_many(asked) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def check_scores_and_predictions_agree_and_change_nothing(make: Make) -> None:
    learner, asked = teach(make(SPACE, 0), lessons(60)), lessons(12, seed=1).features
    scores = learner.scores_many(asked)
    found = learner.predict_many(asked)
    assert [answer.best for answer in found] == [learner.labels[k] for k in scores.argmax(axis=1)]
    assert all(0 <= answer.second_probability <= answer.probability <= 1 + 1e-9 for answer in found)
    assert learner.predict_one(asked[3]).best == found[3].best
    assert abs(learner.predict_one(asked[3]).probability - found[3].probability) < 1e-5
    assert learner.scores_many(asked).tobytes() == scores.tobytes()


def check_any_number_of_views_can_be_asked_about(make: Make) -> None:
    learner, asked = teach(make(SPACE, 0), lessons(60)), lessons(9, seed=1).features
    whole, doubled = learner.scores_many(asked[:, :1]), learner.scores_many(asked[:, [0, 0, 0]])
    np.testing.assert_allclose(whole, doubled, rtol=1e-5, atol=1e-4)


def check_scores_are_finite_and_of_float64(make: Make) -> None:
    learner = teach(make(SPACE, 0), lessons(40))
    extremes = np.stack([np.full((1, SIZE), value, np.int8) for value in (-128, SPACE.zero_point, 127)])
    scores = learner.scores_many(extremes)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


def check_features_of_another_size_are_refused(make: Make) -> None:
    learner = make(SPACE, 0)
    try:
        learner.learn_one(np.zeros((VIEWS, SIZE + 1), np.int8), "mug")
    except ValueError:
        assert learner.labels == ()
        return
    raise AssertionError("features of the wrong size were taken")


def check_teaching_keeps_no_hold_on_the_callers_array(make: Make) -> None:
    asked, learner, other = lessons(20, seed=1).features, make(SPACE, 0), make(SPACE, 0)
    shown = lessons(32)
    learner.learn_many(shown.features, shown.labels)
    shown.features[:] = 0
    learner.consolidate(STEPS)
    again = lessons(32)
    other.learn_many(again.features, again.labels)
    other.consolidate(STEPS)
    assert learner.scores_many(asked).tobytes() == other.scores_many(asked).tobytes()


def check_the_size_of_the_state_is_told(make: Make) -> None:
    learner = teach(make(SPACE, 0), lessons(40))
    told = learner.state_bytes()
    assert set(told) == {"base", "residual", "buffer"}
    assert sum(told.values()) > 0


CHECKS = [found for name, found in sorted(globals().items()) if name.startswith("check_")]
