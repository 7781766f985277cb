"""The learner on real steps of a small network: masks hold, states go on bit for bit, parts come alone."""

from dataclasses import replace

import numpy as np
import pytest
from simulators.small_network import small_network

from edge_cl.errors import ConfigError, MismatchError
from host_trainer.checkpoints import weights_of
from host_trainer.network import Network
from host_trainer.sparcl.gates import switch
from host_trainer.sparcl.learner import Learner, Lesson, open_learner
from host_trainer.sparcl.methods import METHODS
from host_trainer.sparcl.plan import make_plan, plan_facts, plan_of
from host_trainer.sparcl.schedule import MODES, Sparsity
from host_trainer.sparcl.structured import ChannelMasks
from host_trainer.sparcl.weights import WeightMasks

EPOCHS = 3


def lesson(first: int) -> Lesson:
    """Return pictures of two classes that differ in brightness and in their corner."""
    rng = np.random.default_rng(first)
    labels = np.repeat(np.arange(first, first + 2), 12).astype(np.int32)
    images = rng.integers(0, 120, (24, 16, 16, 3)) + 30 * labels[:, None, None, None]
    return Lesson(images.astype(np.uint8), labels, np.arange(first, first + 2))


def network() -> Network:
    return small_network(tuple("abcd"))


def plan(method: str, sparsity: Sparsity | None = None, **options: object):
    return make_plan(method, sparsity, epochs=EPOCHS, batch=8, replay=8, buffer=16, **options)


def epoch(learner: Learner, given: Lesson, task: int, number: int, stop: int | None = None) -> None:
    if number == 0:
        learner.begin_task(given)
    learner.begin_epoch(given, task, number)
    steps(learner, given, task, number, 0, stop)


def steps(learner: Learner, given: Lesson, task: int, number: int, start: int, stop: int | None) -> None:
    for at in range(start, learner.length() if stop is None else stop):
        learner.step(given, learner.batch_of(given, task, number, at), task, at, at + 1 == learner.length())


def sparse(mode: str, sparsity: float = 0.75, **values: object) -> Sparsity:
    return Sparsity(mode, sparsity, batches=1, refresh=2, **values)


@pytest.mark.parametrize("name", ["sgd", "er", "derpp"])
def test_every_dense_method_takes_steps_and_fills_its_buffer(name: str) -> None:
    learner = open_learner(network(), plan(name))
    epoch(learner, lesson(0), 0, 0)
    epoch(learner, lesson(2), 1, 0)
    assert learner.steps == 6
    assert learner.reservoir.filled == (16 if METHODS[name].draws else 0)
    assert np.isfinite(learner.answer(lesson(0).images)).all()


@pytest.mark.parametrize("mode", MODES)
def test_sparsity_is_exact_at_every_stage_and_dead_weights_are_zero(mode: str) -> None:
    learner = open_learner(network(), plan("sparcl-derpp", sparse(mode), momentum=0.9))
    masking, found = learner.masking, []
    for task, given in enumerate((lesson(0), lesson(2))):
        for number in range(EPOCHS):
            epoch(learner, given, task, number, stop=2)
            found.append(_live(masking))
            _dead_are_zero(learner)
    grown, usual = found[EPOCHS], found[-1]
    assert found[EPOCHS - 1] == found[EPOCHS + 1] == usual
    assert all(grown[name] > usual[name] for name in usual)
    if mode == "official":
        assert found[0] == grown


def _live(masking: object) -> dict[str, int]:
    if isinstance(masking, WeightMasks):
        return {path: int(mask.sum()) for path, mask in masking.live.items()}
    assert isinstance(masking, ChannelMasks)
    return {name: int((index >= 0).sum()) for name, index in masking.slots.index.items()}


def _dead_are_zero(learner: Learner) -> None:
    """Weights, their averages and the optimizer's moments are exactly zero outside of the masks."""
    assert learner.masking is not None
    learner.stepper.settle()
    moving = learner.masking.guards()
    live = learner.masking.live if isinstance(learner.masking, WeightMasks) else None
    for model in (learner.network.model, *learner.followers):
        for path, values in weights_of(model).items():
            if live is not None and path in live:
                assert not values[~live[path]].any(), path
                assert not (moving[path] & ~live[path]).any()
    pairs = zip(learner.network.model.trainable_variables, learner.optimizer.momentums, strict=True)
    for variable, moment in pairs:
        if variable.path in moving:
            assert not np.asarray(moment.value)[~moving[variable.path].astype(bool)].any(), variable.path


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        pytest.param("cls-er", None, marks=pytest.mark.slow),
        pytest.param("er-ace", None, marks=pytest.mark.slow),
        pytest.param("sparcl-derpp", "official", marks=pytest.mark.slow),
        ("sparcl-derpp", "edge"),
    ],
)
def test_a_stopped_training_goes_on_bit_for_bit(method: str, mode: str | None) -> None:
    rules = sparse(mode) if mode else None
    whole, half = (open_learner(network(), plan(method, rules)) for _ in range(2))
    first, second = lesson(0), lesson(2)
    for learner in (whole, half):
        epoch(learner, first, 0, 0)
        epoch(learner, first, 0, 1)
        epoch(learner, second, 1, 0, stop=1)
    state, weights = half.state(), weights_of(half.saved().model)
    moments = [np.asarray(v.value) for v in half.optimizer.variables]
    again = open_learner(network(), plan(method, rules))
    for variable, values in zip(again.optimizer.variables, moments, strict=True):
        variable.assign(values)
    again.restore(weights, {name: np.array(values) for name, values in state.items()}, half.steps)
    for learner in (whole, again):
        steps(learner, second, 1, 0, 1, None)
        epoch(learner, second, 1, 1)
        learner.stepper.settle()
    mine, theirs = weights_of(again.network.model), weights_of(whole.network.model)
    assert all(np.array_equal(mine[path], theirs[path]) for path in theirs)
    assert np.array_equal(again.answer(first.images), whole.answer(first.images))


def test_a_training_of_before_classes_were_counted_is_refused() -> None:
    learner = open_learner(network(), plan("er"))
    weights = weights_of(learner.network.model)
    with pytest.raises(MismatchError, match="earlier version"):
        learner.restore(weights, {"seen": np.ones(4, bool)}, 1)
    assert not learner.steps


def test_shares_are_taken_off_while_a_task_lacks_a_class_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, batches = open_learner(network(), plan("sparcl-derpp", sparse("edge"))), []
    step = learner.stepper.step
    monkeypatch.setattr(learner.stepper, "step", lambda batch: batches.append(dict(batch)) or step(batch))
    first, second = lesson(0), lesson(2)
    both = Lesson(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
    for task, given in enumerate((first, second, both)):
        epoch(learner, given, task, 0, stop=1)
    none, taken, none_again = batches
    assert none["known"].tolist() == [1, 1, 0, 0]
    old, new = np.split(taken["known"], 2)
    assert (new == 1).all() and (old > 0).all() and (old < 1).all()
    assert np.array_equal(taken["memory_known"], taken["known"])
    assert (none_again["known"] == 1).all() and (none_again["memory_known"] == 1).all()
    assert taken.keys() == none_again.keys()  # or the step is traced once more, which holds memory
    assert learner.taught.tolist() == [24] * 4


def test_a_frozen_block_stays_and_its_gradient_is_as_if_multiplied_by_zero() -> None:
    rules = sparse("edge", gradient=0.875)  # of two blocks one moves
    closed, masked = (open_learner(network(), plan("sparcl-derpp", rules, momentum=0.9)) for _ in range(2))
    for task, given in enumerate((lesson(0), lesson(2))):
        for learner in (closed, masked):
            if task == 0:
                learner.begin_task(given)
            learner.begin_epoch(given, task, 0)
        switch(masked.masking.gates, masked.masking.gates)  # gradients are computed, and then masked
        masked.stepper.resume()
        (still,) = [paths for name, paths in closed.masking.blocks.items() if not closed.masking.moving[name]]
        before = weights_of(closed.saved().model)
        for learner in (closed, masked):
            steps(learner, given, task, 0, 0, None)
        mine, theirs = (weights_of(learner.saved().model) for learner in (closed, masked))
        for path, values in mine.items():
            assert np.array_equal(values, theirs[path]), path
            assert not path.endswith("kernel") or np.array_equal(values, before[path]) == (path in still), (
                path
            )


def test_what_is_saved_has_no_gates_and_gates_do_not_matter_to_who_takes_it_up() -> None:
    rules = sparse("edge", gradient=0.875)
    learner, again = (open_learner(network(), plan("sparcl-derpp", rules)) for _ in range(2))
    epoch(learner, lesson(0), 0, 0)
    saved = learner.saved().model
    assert {type(layer).__module__.partition(".")[0] for layer in saved.layers} == {"keras"}
    assert not any("gate" in path for path in weights_of(saved))
    again.restore(weights_of(saved), learner.state(), learner.steps)
    gates = [
        {name: float(gate.value) for name, gate in each.masking.gates.items()} for each in (learner, again)
    ]
    assert gates[0] == gates[1]
    assert set(gates[0].values()) == {0.0, 1.0}
    with pytest.raises(MismatchError, match="the saved network is of another network"):
        again.restore(weights_of(learner.network.model), learner.state(), learner.steps)


@pytest.mark.slow
def test_parts_are_left_out_one_by_one() -> None:
    full = open_learner(network(), plan("sparcl-derpp", sparse("paper", masks=False)))
    assert all(share == 1 for share in full.masking.densities().values())
    still = open_learner(network(), plan("sparcl-derpp", sparse("paper", gradients=False)))
    epoch(still, lesson(0), 0, 0)
    assert still.masking.movements() == still.masking.densities()
    none = open_learner(network(), plan("sparcl-derpp", sparse("paper", masks=False, gradients=False)))
    assert none.masking is None
    kept = open_learner(network(), plan("sparcl-derpp", sparse("paper", removal=False)))
    for number in range(EPOCHS):
        epoch(kept, lesson(0), 0, number)
    assert kept.attendance.kept.all()


def test_a_global_threshold_keeps_the_sum() -> None:
    learner = open_learner(network(), plan("sparcl-derpp", sparse("paper", scope="global")))
    before = sum(_live(learner.masking).values())
    for number in range(EPOCHS):
        epoch(learner, lesson(0), 0, number)
    assert sum(_live(learner.masking).values()) == before


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_averages_follow_the_weights_and_get_no_gradient(chance: float) -> None:
    usual = plan("cls-er")
    averages = replace(usual.method.averages, chances=(chance, chance))
    learner = open_learner(network(), replace(usual, method=replace(usual.method, averages=averages)))
    before = weights_of(learner.followers[0])
    epoch(learner, lesson(0), 0, 0)
    moved = [
        path for path, v in weights_of(learner.followers[0]).items() if not np.array_equal(v, before[path])
    ]
    assert len(moved) == (len(before) if chance else 0)


def test_a_training_that_explodes_says_where_and_what_to_try() -> None:
    learner = open_learner(network(), plan("derpp", rate=1e30))
    with pytest.raises(ConfigError, match=r"the loss is .* at step \d+ .*--rate.*--clip"):
        for number in range(EPOCHS):
            epoch(learner, lesson(0), 0, number)


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_survives_json(method: str) -> None:
    made = plan(method, sparse("edge") if METHODS[method].sparse else None)
    assert plan_of(plan_facts(made)) == made


def test_plans_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a --sparsity"):
        make_plan("sparcl-er")
    with pytest.raises(ConfigError, match="belong to sparcl"):
        make_plan("er", Sparsity())
    with pytest.raises(ConfigError, match="no method"):
        make_plan("magic")
    with pytest.raises(ConfigError, match="buffer of 0"):
        make_plan("er", buffer=0)
