"""A network is pruned while it learns: exactly as dense as asked, and what is gone stays exactly zero."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the workshop's networks need keras")

from edge_cl.errors import ConfigError
from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.compression.curvature import curvatures
from host_trainer.compression.distribution import counts
from host_trainer.compression.masks import prunable
from host_trainer.compression.pruning import Plan, compress
from host_trainer.network import Network
from host_trainer.training.classification import cross_entropy
from host_trainer.training.trainer import Recipe

CLASSES, STEPS = 3, 12


def pictures(step: int) -> dict[str, np.ndarray]:
    """Pictures of three classes, each brighter in a channel of its own."""
    rng = np.random.default_rng((9, step))
    labels = rng.integers(0, CLASSES, 8)
    images = rng.normal(0, 0.3, (8, 16, 16, 3)) + np.eye(3)[labels][:, None, None]
    return {"images": images.astype(np.float32), "labels": np.eye(CLASSES, dtype=np.float32)[labels]}


@pytest.fixture
def network() -> Network:
    return Network(with_head(build(parse_spec("separable:0.25/16")), CLASSES), classes=("r", "g", "b"))


def kernels(network: Network) -> dict[str, np.ndarray]:
    return {path: np.asarray(kernel.value) for path, kernel in prunable(network.model).items()}


@pytest.mark.parametrize(
    ("saliency", "distribution"),
    [pytest.param("magnitude", "uniform", marks=pytest.mark.slow), ("obd", "erk")],
)
def test_the_pruned_network_is_exactly_as_dense_as_asked(
    network: Network, saliency: str, distribution: str
) -> None:
    plan = Plan(0.3, saliency, distribution, prunings=2, batches=2, regrow=0.1)

    pruned = compress(network, cross_entropy(), pictures, Recipe(STEPS, batch=8), plan)

    found = kernels(pruned)
    wanted = counts({path: values.shape for path, values in found.items()}, 0.3, distribution)
    assert {path: np.count_nonzero(values) for path, values in found.items()} == wanted
    assert pruned.origin["pruned"]["density"] == pytest.approx(0.3, abs=1e-3)


def test_every_step_sees_the_pruned_weights_as_exact_zeros(network: Network) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's step reads variables as they are; that is how this looks inside")
    watched, seen = list(prunable(network.model).values()), []

    def loss(call: Any, batch: Any) -> Any:
        value, _ = cross_entropy()(call, batch)
        live = sum(keras.ops.sum(keras.ops.cast(kernel.value != 0, "float32")) for kernel in watched)
        return value, {"live": live}

    recipe, plan = Recipe(STEPS, batch=8, optimizer="sgd"), Plan(0.2, "magnitude", "uniform", prunings=3)
    compress(network, loss, pictures, recipe, plan, lambda step, told: seen.append(told["live"]))

    total, schedule = sum(int(np.prod(kernel.shape)) for kernel in watched), plan.schedule(STEPS)
    at = [max(step for step in range(now + 1) if schedule.prunes(step)) for now in range(STEPS)]
    assert seen == [round(total * schedule.density(step)) for step in at] and seen[-1] == round(total * 0.2)


def test_curvatures_leave_the_network_as_it_was(network: Network) -> None:
    before = [np.asarray(variable.value).copy() for variable in network.model.variables]

    found = curvatures(network.model, cross_entropy(), pictures, 3)

    assert set(found) == {variable.path for variable in network.model.trainable_variables}
    assert all(np.all(values >= 0) and values.any() for values in found.values())
    for variable, values in zip(network.model.variables, before, strict=True):
        assert np.array_equal(np.asarray(variable.value), values)


def test_curvatures_are_the_squares_of_the_backends_own_gradients(network: Network) -> None:
    tf = pytest.importorskip("tensorflow", reason="gradients of another hand")
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients of another hand are TensorFlow's here")
    loss, model, total = cross_entropy(), network.model, None
    found = curvatures(model, loss, pictures, 2)
    for step in range(2):
        with tf.GradientTape() as tape:
            value, _ = loss(model, pictures(step))
        square = np.square(tape.gradient(value, model.trainable_variables[-2].value).numpy())
        total = square if total is None else total + square

    np.testing.assert_allclose(found[model.trainable_variables[-2].path], 8 * total / 2, rtol=2e-3, atol=1e-7)


def test_the_first_layer_and_depthwise_kernels_stay_whole(network: Network) -> None:
    assert "stem/kernel" not in prunable(network.model)
    assert not any("depthwise" in path for path in prunable(network.model))
    assert any("depthwise" in path for path in prunable(network.model, depthwise=True))


def test_what_is_fixed_is_no_first_layer() -> None:
    model = build(parse_spec("separable:0.25/32+haar"))
    assert not {"haar/kernel", "stem/kernel"} & prunable(model).keys()
    assert "block1_pointwise/kernel" in prunable(model)


@pytest.mark.parametrize(
    "wrong",
    [{"density": 0.0}, {"saliency": "luck"}, {"distribution": "even"}, {"prunings": 0}, {"regrow": 1.0}],
)
def test_a_plan_that_cannot_be_is_refused_before_a_step(network: Network, wrong: dict[str, Any]) -> None:
    before = kernels(network)
    with pytest.raises(ConfigError):
        compress(network, cross_entropy(), pictures, Recipe(4, batch=8), Plan(**{"density": 0.5, **wrong}))
    assert all(np.array_equal(values, before[path]) for path, values in kernels(network).items())
