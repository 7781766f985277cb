"""A training that was stopped goes on bit for bit, and stops itself when its numbers go wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_cl.errors import ConfigError, MismatchError
from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.checkpoints import load_training, weights_of
from host_trainer.network import Network
from host_trainer.training.classification import cross_entropy
from host_trainer.training.trainer import Job, Recipe, fit

STEPS = 9


def batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((7, step))
    labels = rng.integers(0, 3, 6)
    images = rng.uniform(-1, 1, (6, 16, 16, 3)) * 0.1 + labels[:, None, None, None] - 1
    return {"images": images.astype(np.float32), "labels": np.eye(3, dtype=np.float32)[labels]}


def job(optimizer: str = "adamw", **facts: object) -> Job:
    model = with_head(build(parse_spec("separable:0.25/16"), 3), 3)
    recipe = Recipe(steps=STEPS, batch=6, optimizer=optimizer, rate=5e-3, save_every=2)
    return Job(Network(model, ("a", "b", "c")), cross_entropy(), batch, recipe, facts)


@pytest.mark.parametrize(
    ("optimizer", "stopped"), [pytest.param("adamw", 1, marks=pytest.mark.slow), ("sgd", 4)]
)  # 4: just saved
def test_stopped_and_gone_on_is_the_uninterrupted_run_bit_for_bit(
    optimizer: str, stopped: int, tmp_path: Path
) -> None:
    whole = weights_of(fit(job(optimizer), tmp_path / "whole").model)

    def stop(step: int, told: object) -> None:
        if step == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(job(optimizer), tmp_path / "cut", stop)
    saved = load_training(tmp_path / "cut")
    assert saved is not None
    assert saved.step == stopped
    steps: list[int] = []
    again = weights_of(fit(job(optimizer), tmp_path / "cut", lambda step, told: steps.append(step)).model)
    assert steps == list(range(stopped + 1, STEPS + 1))
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns_without_decay_too(optimizer: str, tmp_path: Path) -> None:
    losses: list[float] = []
    plain = job(optimizer)
    plain = plain._replace(recipe=replace(plain.recipe, decay=0.0))
    fit(plain, tmp_path / "run", lambda step, told: losses.append(told["loss"]))
    assert losses[-1] < losses[0]


def test_a_training_with_other_options_is_not_gone_on_with(tmp_path: Path) -> None:
    def stop(step: int, told: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(job(data="here"), tmp_path / "cut", stop)
    with pytest.raises(MismatchError, match=r"other options \(data\)"):
        fit(job(data="there"), tmp_path / "cut")


def test_a_loss_that_is_no_number_stops_with_step_and_remedy(tmp_path: Path) -> None:
    def broken(step: int) -> dict[str, np.ndarray]:
        made = batch(step)
        if step == 3:
            made["images"][0, 0, 0, 0] = np.nan
        return made

    with pytest.raises(ConfigError, match=r"at step 4: lower the learning rate"):
        fit(job()._replace(source=broken), tmp_path / "run")


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch": 1}, {"rate": 0}, {"warmup": 1}, {"optimizer": "magic"}, {"clip": 0}]
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Recipe(**{"steps": 3, **wrong})
