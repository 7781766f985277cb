"""The fused kernel gives what Keras' own normalisation gives, and leaves no trace in the layers."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from host_trainer.training.normalisation import NORM, fused

BATCH, SIDE, CLASSES = 6, 8, 3


def _network(**options: object) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    maps = keras.layers.Conv2D(5, 3, padding="same", use_bias=False)(image)
    maps = keras.layers.BatchNormalization(momentum=0.9, name="of_maps", **options)(maps)
    vectors = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(maps))
    vectors = keras.layers.BatchNormalization(momentum=0.9, name="of_vectors")(vectors)
    return keras.Model(image, keras.layers.Dense(CLASSES)(vectors))


def _judged(model: keras.Model, images: np.ndarray, is_fused: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
    @tf.function
    def judge(shown: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        values = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            if is_fused:
                with fused(model):
                    answers = model(shown, training=True)
            else:
                answers = model(shown, training=True)
            loss = tf.reduce_sum(tf.square(answers) * tf.range(1.0, 1.0 + CLASSES))
        return answers, tape.gradient(loss, values)

    graph = judge.get_concrete_function(tf.TensorSpec(images.shape)).graph
    assert is_fused == any(each.type == "FusedBatchNormV3" for each in graph.get_operations())
    return judge(tf.constant(images))  # type: ignore[no-any-return]


def test_answers_gradients_and_running_statistics_are_those_of_keras() -> None:
    images = np.random.default_rng(0).normal(2, 3, (BATCH, SIDE, SIDE, 3)).astype(np.float32)
    ours, plain = _network(), _network()
    for _ in range(3):
        found, wanted = _judged(ours, images, True), _judged(plain, images, False)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(found[1], wanted[1], strict=True):
            scale = max(1.0, float(np.abs(theirs).max()))
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * scale)
        for mine, theirs in zip(ours.variables, plain.variables, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


def test_nothing_stays_in_the_layers() -> None:
    model = _network()
    before = json.loads(model.to_json())
    with fused(model):
        assert "call" in vars(model.get_layer("of_maps"))
        assert "call" not in vars(model.get_layer("of_vectors"))
    assert all("call" not in vars(layer) for layer in model.layers)
    assert json.loads(model.to_json()) == before


def test_a_trace_that_fails_leaves_nothing_either() -> None:
    model = _network()
    with pytest.raises(RuntimeError, match="cut"), fused(model):
        raise RuntimeError("cut")
    assert all("call" not in vars(layer) for layer in model.layers if type(layer).__name__ == NORM)


@pytest.mark.parametrize("options", [{"axis": 1}, {"scale": False}, {"renorm": True}, {"synchronized": True}])
def test_what_the_kernel_cannot_do_is_left_to_keras(options: dict[str, object]) -> None:
    model = _network(**options)
    with fused(model):
        assert "call" not in vars(model.get_layer("of_maps"))


def test_asked_without_training_it_answers_by_the_running_statistics() -> None:
    model, images = _network(), np.ones((BATCH, SIDE, SIDE, 3), np.float32)
    wanted = model(images, training=False).numpy()
    with fused(model):
        assert np.array_equal(model(images, training=False).numpy(), wanted)
