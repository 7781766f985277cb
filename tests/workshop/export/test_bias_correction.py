"""Correcting biases takes back the mean error of rounded weights, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_trainer.export.bias_correction import corrected, mean_error


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_mean_error_is_that_of_the_rounded_convolution(
    groups: int, inputs: int, outputs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, 1, (groups * outputs, inputs, 2, 3)).astype(np.float32)
    patches = rng.uniform(0, 6, (50, groups * inputs, 2, 3))
    patches[:] = patches.mean(axis=(2, 3), keepdims=True)  # the same everywhere, so the mean is exact
    steps = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True).astype(np.float64) / 127
    rounded = np.round(kernel / steps) * steps
    shifts = []
    for channel in range(groups * outputs):
        group = channel // outputs
        seen = patches[:, group * inputs : (group + 1) * inputs]
        shifts.append((seen * (rounded[channel] - kernel[channel])).sum(axis=(1, 2, 3)).mean())
    found = mean_error(kernel, patches.mean(axis=(0, 2, 3)))
    assert np.allclose(found, shifts, atol=1e-9)


def test_weights_that_round_to_themselves_are_not_corrected() -> None:
    whole = np.array([[[[127.0, -3.0]]], [[[0.0, 0.0]]]], np.float32)
    assert np.array_equal(mean_error(whole, np.array([5.0])), [0.0, 0.0])


def test_only_biases_change(small: object) -> None:
    onnx = pytest.importorskip("onnx", reason="the correction works on ONNX graphs")
    pytest.importorskip("onnxruntime", reason="onnxruntime measures the means")
    from host_trainer.export.onnx_graph import translate

    before = translate(small)
    images = np.random.default_rng(4).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    after = corrected(before, images)
    changed = {
        one.name
        for one, other in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if one != other
    }
    assert changed == {name for name in (each.name for each in after.graph.initializer) if "bias" in name}
    assert before == translate(small)
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    assert onnx.checker.check_model(after) is None
