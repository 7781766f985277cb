"""The losses are what the papers say, and their gradients are those of the numbers they return."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ConfigError

tf = pytest.importorskip("tensorflow", reason="gradients are taken by TensorFlow here")
keras = pytest.importorskip("keras", reason="the losses are written in keras.ops")

from host_trainer.distillation import losses  # noqa: E402
from host_trainer.distillation.projection import with_projection  # noqa: E402

B, C, D = 5, 4, 6
STEP = 1e-5


def rows(seed: int, width: int, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (B, width))


def gradient(loss: Any, at: np.ndarray) -> np.ndarray:
    """Return the backend's gradient of a loss of one (B, N) argument."""
    value = tf.constant(at, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(value)
        told = loss(value)
    return np.asarray(tape.gradient(told, value))


def differences(loss: Any, at: np.ndarray) -> np.ndarray:
    """Return the gradient by central finite differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[place] = STEP
        up, down = (float(loss(tf.constant(at + sign * shift, tf.float64))) for sign in (1, -1))
        found[place] = (up - down) / (2 * STEP)
    return found


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


LABELS = np.array([0, 3, losses.NO_LABEL, 1, 1], np.int32)
LOSSES = {
    "hard": (C, lambda z: losses.hard_loss(z, LABELS)),
    "hard, mixed labels": (C, lambda z: losses.hard_loss(z, softmax(rows(1, C)))),
    "soft at 1": (C, lambda z: losses.soft_loss(z, rows(2, C), 1.0)),
    "soft at 4": (C, lambda z: losses.soft_loss(z, rows(2, C), 4.0)),
    "squared logits": (C, lambda z: losses.squared_logit_loss(z, rows(2, C))),
    "cosine": (D, lambda z: losses.cosine_loss(z, rows(3, D))),
    "squared features": (D, lambda z: losses.squared_loss(z, rows(3, D))),
}


@pytest.mark.parametrize(("width", "loss"), LOSSES.values(), ids=LOSSES)
def test_the_gradient_is_the_slope_of_the_loss(width: int, loss: Any) -> None:
    at = rows(9, width)
    np.testing.assert_allclose(gradient(loss, at), differences(loss, at), atol=1e-8)


def test_the_soft_gradient_is_t_times_the_difference_of_the_softened_answers() -> None:
    student, teacher, temperature = rows(4, C), rows(5, C), 3.0
    expected = temperature * (softmax(student, temperature) - softmax(teacher, temperature)) / B
    found = gradient(lambda z: losses.soft_loss(z, teacher, temperature), student)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_squared_temperature_keeps_the_gradient_as_large_when_the_temperature_grows() -> None:
    """Hinton 2014, eq. 4: at high T the soft loss is the squared loss of centred logits, whatever T is."""
    student, teacher = rows(6, C), rows(7, C)
    limit = gradient(lambda z: losses.squared_logit_loss(z, teacher), student)
    for temperature in (300.0, 3000.0):
        found = gradient(lambda z, t=temperature: losses.soft_loss(z, teacher, t), student)
        np.testing.assert_allclose(found, limit, rtol=0.02, atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), temperature=st.floats(0.5, 20))
def test_a_teacher_is_understood_up_to_a_constant_a_row(seed: int, shift: float, temperature: float) -> None:
    student, teacher = rows(seed, C), rows(seed + 1, C)
    told = float(losses.soft_loss(student, teacher, temperature))
    assert told >= -1e-9
    assert float(losses.soft_loss(student, teacher + shift, temperature)) == pytest.approx(told, abs=1e-6)
    assert float(losses.soft_loss(teacher + shift, teacher, temperature)) == pytest.approx(0, abs=1e-6)


def test_a_picture_without_a_label_adds_nothing_to_the_hard_loss() -> None:
    logits = rows(8, C)
    named = LABELS >= 0
    assert float(losses.hard_loss(logits, LABELS)) == pytest.approx(
        float(losses.hard_loss(logits[named], LABELS[named]))
    )
    assert float(losses.hard_loss(logits, np.full(B, losses.NO_LABEL, np.int32))) == 0


def test_prediction_is_at_temperature_one_and_training_softer() -> None:
    logits = rows(10, C)
    np.testing.assert_allclose(np.asarray(losses.probabilities(logits)), softmax(logits), atol=1e-12)
    assert np.asarray(losses.probabilities(logits, 8.0)).max() < softmax(logits).max()


def test_a_dead_feature_has_a_loss_and_a_gradient_that_are_numbers() -> None:
    dead = np.zeros((B, D))
    assert float(losses.cosine_loss(tf.constant(dead), rows(3, D))) == 1
    assert np.isfinite(gradient(lambda z: losses.cosine_loss(z, rows(3, D)), dead)).all()


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"soft": -1.0}, {"soft": 0.0, "hard": 0.0}])
def test_a_rule_that_teaches_nothing_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        losses.SoftConfig(**bad)
    with pytest.raises(ConfigError, match="cosine or squared"):
        losses.feature_objective("hinge")


def test_a_student_learns_its_teachers_answers_through_the_trainers_step() -> None:
    from host_trainer.training.gradients import open_stepper

    rng = np.random.default_rng(0)
    images = rng.normal(size=(B, 3)).astype(np.float32)
    batch = {
        losses.IMAGES: images,
        losses.LABELS: LABELS,
        losses.TARGETS: rows(2, C).astype(np.float32),
    }
    student = keras.Sequential([keras.Input((3,)), keras.layers.Dense(C)])
    stepper = open_stepper(
        student, keras.optimizers.Adam(0.1), losses.logit_objective(losses.SoftConfig(hard=0.0, soft=1.0))
    )
    told = [stepper.step(batch) for _ in range(60)]
    assert told[-1]["soft"] < 0.5 * told[0]["soft"]
    assert told[0]["loss"] == pytest.approx(told[0]["soft"])


def test_a_narrow_student_matches_a_wide_teacher_through_a_projection() -> None:
    from host_trainer.backbones.networks import backbone_of, build, parse_spec
    from host_trainer.training.gradients import open_stepper

    backbone = build(parse_spec("separable:0.25/16"))
    student = with_projection(backbone, 100, seed=3)
    assert student.output.shape == (None, 100)
    rng = np.random.default_rng(1)
    batch = {
        losses.IMAGES: rng.normal(size=(4, 16, 16, 3)).astype(np.float32),
        losses.TARGETS: rng.normal(size=(4, 100)).astype(np.float32),
    }
    stepper = open_stepper(student, keras.optimizers.Adam(0.01), losses.feature_objective("cosine"))
    told = [stepper.step(batch) for _ in range(30)]
    assert told[-1]["cosine"] > 0.9 > told[0]["cosine"]
    assert [w.path for w in backbone_of(student).weights] == [w.path for w in backbone.weights]
    np.testing.assert_array_equal(backbone_of(student).get_weights()[0], backbone.get_weights()[0])
