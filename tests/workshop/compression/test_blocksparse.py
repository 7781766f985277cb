"""Block-sparse kernels are stored sparse, answer the same, and it is known which kernels may run them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.compression.blocksparse import block_mask, compress, csr, encode, obstacles, zeros_of
from host_trainer.network import Network


@settings(deadline=None)
@given(
    seed=st.integers(0, 99),
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 18),
    block=st.integers(1, 6),
    density=st.floats(0.01, 1.0),
)
def test_blocks_live_whole_and_their_number_is_exact(
    seed: int, inputs: int, outputs: int, block: int, density: float
) -> None:
    scores = np.random.default_rng(seed).random((1, 1, inputs, outputs))

    mask = block_mask(scores, density, block)

    groups = [mask[0, 0, :, at : at + block] for at in range(0, outputs, block)]
    assert all(np.array_equal(group.all(axis=1), group.any(axis=1)) for group in groups)
    live = sum(int(group.any(axis=1).sum()) for group in groups)
    assert live == max(1, round(density * inputs * len(groups)))


def test_the_strongest_blocks_live() -> None:
    scores = np.zeros((1, 1, 2, 8))
    scores[0, 0, 1, 4:] = 1.0
    wanted = np.zeros((1, 1, 2, 8), bool)
    wanted[0, 0, 1, 4:] = True
    assert np.array_equal(block_mask(scores, 0.25, 4), wanted)


@pytest.mark.parametrize(("density", "outputs"), [(0.0, 4), (1.2, 4), (0.5, 0)])
def test_no_blocks_at_all_are_refused(density: float, outputs: int) -> None:
    with pytest.raises(ConfigError, match="0 < density"):
        block_mask(np.ones((1, 1, 4, 4)), density, outputs)


@given(seed=st.integers(0, 999), rows=st.integers(1, 9), columns=st.integers(1, 9), density=st.floats(0, 1))
def test_rows_of_non_zero_values_hold_the_matrix(seed: int, rows: int, columns: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < density)

    values, starts, places = csr(matrix)

    back = np.zeros_like(matrix)
    for row in range(rows):
        span = slice(starts[row], starts[row + 1])
        back[row, places[span]] = values[span]
    assert np.array_equal(back, matrix) and starts[-1] == values.size


def drawn(padded: bool, stride: int = 2) -> Any:
    """A small MobileNet whose strided layers are padded alike on all sides, or as Keras' SAME does it."""
    keras = pytest.importorskip("keras", reason="the workshop's networks need keras")
    from keras import layers

    from host_trainer.backbones.networks import initialise

    def strided(maps: Any, layer: Any) -> Any:
        return (
            layer(padding="valid")(layers.ZeroPadding2D(1)(maps)) if padded else layer(padding="same")(maps)
        )

    image = keras.Input((32, 32, 3), name="image")
    maps = strided(image, lambda padding: layers.Conv2D(16, 3, stride, padding, name="stem"))
    for channels in (32, 64):
        maps = layers.Conv2D(channels, 1)(layers.ReLU(6.0)(maps))
        maps = strided(layers.ReLU(6.0)(maps), lambda padding: layers.DepthwiseConv2D(3, 2, padding))
    maps = layers.ReLU(6.0)(layers.Conv2D(128, 1)(layers.DepthwiseConv2D(3, 1, "same")(maps)))
    model = keras.Model(image, layers.GlobalAveragePooling2D(name="feature")(maps))
    initialise(model, 0)
    return model


def file_of(model: Any) -> bytes:
    from host_trainer.export.litert import Scheme, convert

    pytest.importorskip("tensorflow", reason="the TFLite converter is TensorFlow's")
    return convert(model, Scheme.FLOAT)


def answer(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Return what LiteRT answers, and the operations it runs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    noise = np.random.default_rng(3).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], noise)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found, [detail["op_name"] for detail in interpreter._get_ops_details()]


def test_a_sparse_file_is_smaller_answers_the_same_and_its_unpacking_is_xnnpacks() -> None:
    dense = file_of(compress(Network(drawn(padded=True)), 0.2).model)

    sparse = encode(dense)

    assert zeros_of(dense) == pytest.approx(0.8, abs=0.01) and obstacles(dense) == []
    assert len(sparse) < 0.75 * len(dense)
    wanted, _ = answer(dense)
    found, operations = answer(sparse)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)  # ARM's sparse kernels may round anew
    assert operations.count("DENSIFY") == 3 and "DELEGATE" in operations
    assert encode(dense) == sparse


def test_a_dense_file_stays_as_it_is_and_is_told_to_have_too_few_zeros() -> None:
    dense = file_of(drawn(padded=True))
    assert answer(encode(dense))[1].count("DENSIFY") == 0
    assert obstacles(dense) == ["0% of its pointwise weights are zero: less than two thirds"]


def test_what_keeps_sparse_kernels_away_is_named_step_by_step() -> None:
    found = obstacles(file_of(compress(Network(drawn(padded=False)), 0.2).model))
    assert [reason.split()[0] for reason in found] == ["conv1", "depthwise3", "depthwise5"]
    assert "padded by 1 all around" in found[0] and "SAME stride of 2" in found[1]


def test_a_quantised_file_has_no_sparse_kernels(models_dir: Any) -> None:
    data = (models_dir / "mlperf_tiny" / "vww_96_int8.tflite").read_bytes()
    assert obstacles(data) == ["its input is int8: sparse kernels are for float networks only"]
