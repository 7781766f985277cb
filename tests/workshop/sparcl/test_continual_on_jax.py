"""Twenty steps of a continual training are alike on both backends: masks, gates, buffer and averages too."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

# Two tasks of one epoch, whatever Keras runs on; leaves what a checkpoint would hold.
TRAINING = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from simulators.small_network import small_network
from host_trainer.checkpoints import weights_of
from host_trainer.sparcl.learner import Lesson, open_learner
from host_trainer.sparcl.plan import make_plan
from host_trainer.sparcl.schedule import Sparsity

def lesson(first):
    rng = np.random.default_rng(first)
    labels = np.repeat(np.arange(first, first + 2), 40).astype(np.int32)
    images = rng.integers(0, 120, (80, 16, 16, 3)) + 30 * labels[:, None, None, None]
    return Lesson(images.astype(np.uint8), labels, np.arange(first, first + 2))

def trained(method, rules):
    plan = make_plan(method, rules, epochs=2, batch=16, replay=16, buffer=24)
    learner = open_learner(small_network(tuple("abcd")), plan)
    for task, given in enumerate((lesson(0), lesson(2))):
        learner.begin_task(given)
        for epoch in range(2):
            learner.begin_epoch(given, task, epoch)
            for at in range(learner.length()):
                batch = learner.batch_of(given, task, epoch, at)
                told = learner.step(given, batch, task, at, at + 1 == learner.length())
    return {"loss": told.loss, "steps": learner.steps, **learner.state(), **weights_of(learner.saved().model)}

for name, method, rules in (
    ("derpp", "derpp", None),
    ("edge", "sparcl-derpp", Sparsity("edge", 0.75, batches=2, gradient=0.875)),
):
    found = trained(method, rules)
    np.savez(f"{sys.argv[2]}-{name}.npz", **{key.replace("/", "."): value for key, value in found.items()})
"""
TOLERANCE = 1e-4


def trained(backend: str, out: Path) -> dict[str, dict[str, np.ndarray]]:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
    }
    tests = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, tests, str(out)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ("derpp", "edge"):
        with np.load(f"{out}-{name}.npz", allow_pickle=False) as file:
            found[name] = dict(file)
    return found


@pytest.mark.slow
def test_jax_and_tensorflow_train_alike(tmp_path: Path) -> None:
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed: the second backend cannot be tried (pip install jax)")
    one, other = (trained(backend, tmp_path / backend) for backend in ("tensorflow", "jax"))
    for name, found in one.items():
        assert found["steps"] == 20, name
        for key, values in found.items():
            assert np.abs(values.astype(float) - other[name][key]).max(initial=0) < TOLERANCE, (name, key)
