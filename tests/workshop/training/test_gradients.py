"""One step is the same step on both backends, and follows the loss's own slope."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.checkpoints import weights_of
from host_trainer.training.classification import cross_entropy
from host_trainer.training.gradients import open_stepper, predict

# Twenty steps of a small classifier on drawn noise, whatever Keras runs on; prints a digest of the weights.
TWENTY_STEPS = """
import json, sys
import numpy as np, keras
from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.checkpoints import weights_of
from host_trainer.training.classification import cross_entropy
from host_trainer.training.gradients import open_stepper
from host_trainer.training.trainer import Recipe, make_optimizer

model = with_head(build(parse_spec("separable:0.25/16"), 1), 3)
optimizer = make_optimizer(Recipe(steps=20, batch=8, rate=1e-3, optimizer="sgd"))
stepper = open_stepper(model, optimizer, cross_entropy())
rng = np.random.default_rng(0)
for step in range(20):
    images = rng.uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    told = stepper.step({"images": images, "labels": np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]})
stepper.settle()
np.savez(sys.argv[1], **{name.replace("/", "."): values for name, values in weights_of(model).items()})
print(json.dumps({"backend": keras.backend.backend(), **told}))
"""


def twenty_steps(backend: str, out: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", TWENTY_STEPS, str(out)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(out, allow_pickle=False) as file:
        return json.loads(done.stdout.splitlines()[-1]), dict(file)


def test_tensorflow_and_jax_agree_after_twenty_steps(tmp_path: Path) -> None:
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed: the second backend cannot be tried (pip install jax)")
    told, weights = twenty_steps("tensorflow", tmp_path / "tensorflow.npz")
    told_too, weights_too = twenty_steps("jax", tmp_path / "jax.npz")
    assert (told["backend"], told_too["backend"]) == ("tensorflow", "jax")
    assert told["loss"] == pytest.approx(told_too["loss"], abs=1e-4)
    assert weights.keys() == weights_too.keys()
    for name, values in weights.items():
        assert np.abs(values - weights_too[name]).max() < 1e-4, name


def test_a_step_goes_down_the_slope_measured_by_finite_differences() -> None:
    import keras

    model = with_head(build(parse_spec("separable:0.25/16"), 0), 3)
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    loss = cross_entropy()

    def value() -> float:
        # In float64, so that a difference of 1e-4 is no rounding: the loss of the logits alone.
        logits = np.asarray(model(images, training=True), np.float64)
        wanted = labels * 0.9 + 0.1 / 3
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return float(-(wanted * logs).sum(1).mean())

    before = model.get_weights()
    rate = 1e-2
    told = open_stepper(model, keras.optimizers.SGD(rate), loss).step({"images": images, "labels": labels})
    after = model.get_weights()
    model.set_weights(before)
    assert told["loss"] == pytest.approx(value(), abs=1e-5)
    head = next(i for i, v in enumerate(model.variables) if v.path == "logits/kernel")
    for place in [(0, 0), (5, 1), (20, 2)]:
        slope = (before[head][place] - after[head][place]) / rate
        measured = []
        for shift in (1e-2, -1e-2):
            moved = [each.copy() for each in before]
            moved[head][place] += shift
            model.set_weights(moved)
            measured.append(value())
        assert slope == pytest.approx((measured[0] - measured[1]) / 2e-2, abs=2e-3)


def test_running_statistics_move_with_a_step() -> None:
    import keras

    model = with_head(build(parse_spec("separable:0.25/16"), 0), 2)
    before = weights_of(model)["stem_bn/moving_mean"].copy()
    batch = {
        "images": np.ones((4, 16, 16, 3), np.float32),
        "labels": np.eye(2, dtype=np.float32)[[0, 1, 0, 1]],
    }
    open_stepper(model, keras.optimizers.SGD(0.1), cross_entropy()).step(batch)
    assert not np.array_equal(before, weights_of(model)["stem_bn/moving_mean"])


def test_prediction_in_batches_is_prediction(drawn: Path) -> None:
    model = build(parse_spec("separable:0.25/16"))
    images = np.random.default_rng(0).uniform(-1, 1, (7, 16, 16, 3)).astype(np.float32)
    assert np.allclose(predict(model, images, 3), np.asarray(model(images)), atol=1e-5)
