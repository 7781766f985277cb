"""Two processes that share each batch are one process that has it whole; the command starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulators import foreman
from simulators.foreman import ok
from simulators.small_network import small_network

from edge_cl.errors import ConfigError
from host_trainer.checkpoints import load_network, save_network, weights_of
from host_trainer.training.workers import TF_CONFIG, Workers, free_ports, open_workers

# A few steps of two tasks, in as many processes as TF_CONFIG names; leaves what a checkpoint would hold.
TRAINING = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from host_trainer.training.workers import open_workers
workers = open_workers()
from simulators.small_network import small_network
from host_trainer.checkpoints import weights_of
from host_trainer.sparcl.learner import Lesson, open_learner
from host_trainer.sparcl.plan import make_plan
from host_trainer.sparcl.schedule import Sparsity

def lesson(first):
    rng = np.random.default_rng(first)
    labels = np.repeat(np.arange(first, first + 2), 24).astype(np.int32)
    images = rng.integers(0, 120, (48, 16, 16, 3)) + 30 * labels[:, None, None, None]
    return Lesson(images.astype(np.uint8), labels, np.arange(first, first + 2))

def trained(method, rules):
    plan = make_plan(method, rules, epochs=1, batch=16, replay=16, buffer=24)
    learner = open_learner(small_network(tuple("abcd")), plan, workers)
    for task, given in enumerate((lesson(0), lesson(2))):
        learner.begin_task(given)
        learner.begin_epoch(given, task, 0)
        for at in range(learner.length()):
            learner.step(given, learner.batch_of(given, task, 0, at), task, at, at + 1 == learner.length())
    return {**learner.state(), **weights_of(learner.saved().model)}

for name, method, rules in (
    ("derpp", "derpp", None),
    ("edge", "sparcl-derpp", Sparsity("edge", 0.75, batches=2, gradient=0.875)),
    ("official", "sparcl-er", Sparsity("official", 0.75, refresh=2)),
):
    found = trained(method, rules)
    np.savez(f"{sys.argv[2]}-{name}.npz", **{key.replace("/", "."): value for key, value in found.items()})
if workers is not None:
    workers.meet()
"""
NAMES = ("derpp", "edge", "official")


def config(ports: list[int], index: int) -> str:
    places = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": places}, "task": {"type": "worker", "index": index}})


def started(out: Path, told: str | None) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
    words = [sys.executable, "-c", TRAINING, str(Path(__file__).parents[2]), str(out)]
    environment |= {TF_CONFIG: told} if told else {}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], out: Path) -> dict[str, dict[str, np.ndarray]]:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = {}
    for name in NAMES:
        with np.load(f"{out}-{name}.npz", allow_pickle=False) as file:
            found[name] = dict(file)
    return found


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    ports = free_ports(2)
    processes = [started(tmp_path / str(index), config(ports, index)) for index in range(2)]
    one, other = (ended(process, tmp_path / str(index)) for index, process in enumerate(processes))
    alone = ended(started(tmp_path / "alone", None), tmp_path / "alone")
    for name, found in alone.items():
        for key, values in found.items():
            assert np.array_equal(one[name][key], other[name][key]), (name, key)
            away = np.abs(one[name][key].astype(float) - values).max(initial=0)
            assert away < 1e-5, (name, key, away)


@pytest.mark.slow
def test_the_command_starts_workers_and_gives_what_one_process_gives(drawn: Path, tmp_path: Path) -> None:
    save_network(tmp_path / "small", small_network())
    words = ("train", "--data", drawn, "--method", "sparcl-derpp", "--sparsity", 0.75, "--tasks", 1)
    small = ("--network", tmp_path / "small", "--buffer", 12, "--batch", 8, "--epochs", 2)
    told = ok(*words, *small, "--out", tmp_path / "alone")
    process = foreman.started(*words, *small, "--out", tmp_path / "shared", "--workers", 2, "--json")
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(said)["steps"] == told["steps"]
    one, other = (weights_of(load_network(tmp_path / name).model) for name in ("alone", "shared"))
    for path, values in one.items():
        assert np.abs(values - other[path]).max() < 1e-5, path
    assert "cannot be shared evenly by 3 workers" in _refused(
        *words, *small, "--out", tmp_path / "three", "--workers", 3
    )


def _refused(*words: object) -> str:
    """Run the command in a process of its own, for it has to be the first to use TensorFlow."""
    process = foreman.started(*words)
    said, err = process.communicate(timeout=300)
    assert process.returncode == 2 and said == "", err
    return err


@pytest.mark.parametrize(
    "told", ["two", "{}", '{"cluster": {"worker": ["here:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_workers_that_are_not_told_as_tensorflow_has_it_are_refused(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TF_CONFIG, told)
    with pytest.raises(ConfigError, match="TF_CONFIG is not as TensorFlow has it"):
        open_workers()


def test_a_worker_alone_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TF_CONFIG, raising=False)
    assert open_workers() is None
    monkeypatch.setenv(TF_CONFIG, config([1], 0))
    assert open_workers() is None


def test_each_worker_takes_its_own_rows_and_all_numbers() -> None:
    batch = {"images": np.arange(12).reshape(6, 2), "known": np.ones(4), "trust": np.float32(0.5)}
    parts = [Workers(None, 3, index).part(batch, {"known"}) for index in range(3)]
    assert np.array_equal(np.concatenate([part["images"] for part in parts]), batch["images"])
    assert all(part["known"] is batch["known"] and part["trust"] == 0.5 for part in parts)
    assert [worker.writes for worker in (Workers(None, 2, 0), Workers(None, 2, 1))] == [True, False]
    with pytest.raises(ConfigError, match="images of 6 cannot be shared evenly by 4 workers"):
        Workers(None, 4, 0).part(batch, {"known"})
