"""A network gets its weights from chance, a file, a checkpoint or the net, whole or not at all."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("keras", reason="the workshop's networks need keras")

from edge_cl.errors import ConfigError, MismatchError, ModelError
from host_trainer.backbones import weights
from host_trainer.backbones.networks import LOGITS, build, parse_spec, with_head
from host_trainer.backbones.weights import imagenet_weights, load_weights, read_npz
from host_trainer.checkpoints import save_network, weights_of
from host_trainer.network import Network

SMALL = parse_spec("separable:0.25/32")
NPZ = "float/mobilenet_v2_0.35_224_imagenet_notop_float32.npz"
OFFLINE = """
import sys
from edge_cl.errors import EdgeError
from host_trainer.backbones.networks import Spec
from host_trainer.backbones.weights import imagenet_weights
try:
    imagenet_weights(Spec("mobilenetv2", 0.35, 96))
except EdgeError as error:
    print(type(error).__name__, error.exit_status, error)
"""


def packed(**tensors: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **tensors)
    return file.getvalue()


def test_the_imagenet_npz_fills_our_network(models_dir: Path) -> None:
    spec = parse_spec("mobilenetv2:0.35/96")
    model = build(spec)
    tensors = read_npz(models_dir / NPZ)

    load_weights(model, spec, str(models_dir / NPZ))

    found = weights_of(model)
    assert len(found) == len(tensors) == 260
    assert np.array_equal(found["Conv1/kernel"], tensors["Conv1/kernel"])
    assert np.array_equal(found["block_3_depthwise/kernel"], tensors["block_3_depthwise/depthwise_kernel"])


def test_a_npz_of_another_width_names_the_first_tensor_that_differs(models_dir: Path) -> None:
    spec = parse_spec("mobilenetv2:0.5/96")
    model = build(spec)
    before = weights_of(model)

    with pytest.raises(MismatchError, match=r"block_1_project/kernel is \(1, 1, 48, 8\)"):
        load_weights(model, spec, str(models_dir / NPZ))

    assert all(np.array_equal(values, before[path]) for path, values in weights_of(model).items())


def test_a_checkpoint_fills_a_network_and_leaves_its_new_head(tmp_path: Path) -> None:
    taught = with_head(build(SMALL, seed=1), 4)
    save_network(tmp_path / "taught", Network(taught, classes=("a", "b", "c", "d")))
    model = with_head(build(SMALL, seed=2), 9)
    head = model.get_layer(LOGITS).get_weights()

    load_weights(model, SMALL, str(tmp_path / "taught"))

    found, wanted = weights_of(model), weights_of(taught)
    assert all(np.array_equal(found[path], wanted[path]) for path in wanted if not path.startswith(LOGITS))
    assert all(
        np.array_equal(one, other)
        for one, other in zip(model.get_layer(LOGITS).get_weights(), head, strict=True)
    )


def test_a_checkpoint_of_another_network_is_a_mismatch(tmp_path: Path) -> None:
    save_network(tmp_path / "other", Network(build(parse_spec("separable:0.5/32"))))
    with pytest.raises(MismatchError, match="stem/kernel"):
        load_weights(build(SMALL), SMALL, str(tmp_path / "other"))


def test_random_weights_come_from_the_seed() -> None:
    model = build(SMALL, seed=5)
    wanted = weights_of(model)["stem/kernel"]

    load_weights(model, SMALL, "random", seed=6)
    assert not np.array_equal(weights_of(model)["stem/kernel"], wanted)
    load_weights(model, SMALL, "random", seed=5)
    assert np.array_equal(weights_of(model)["stem/kernel"], wanted)


@pytest.mark.parametrize("source", ["", "nonsense", "image-net", "weights.h5", "/"])
def test_another_source_is_refused_with_those_that_serve(source: str) -> None:
    with pytest.raises(ConfigError, match=r"give random, imagenet, a \.npz file"):
        load_weights(build(SMALL), SMALL, source)


@pytest.mark.parametrize(
    "text",
    [
        "resnet18:1/32",
        "separable:1/64",
        "mobilenetv2:0.4/96",
        "mobilenetv1:0.3/96",
        "mobilenetv2:0.35/96+haar",
    ],
)
def test_a_network_without_imagenet_weights_is_told_which_have_some(text: str) -> None:
    with pytest.raises(ConfigError, match=r"mobilenetv2:0\.35"):
        imagenet_weights(parse_spec(text))


@pytest.mark.slow
def test_without_a_network_imagenet_weights_fail_with_one_line(tmp_path: Path) -> None:
    # A network namespace of its own has no interface at all: really offline, wherever this runs.
    alone = [shutil.which("unshare") or "unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no network namespace (unshare --net)")
    world = {**os.environ, "KERAS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}

    done = subprocess.run(
        [*alone, sys.executable, "-c", OFFLINE], capture_output=True, text=True, env=world, timeout=300
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # Keras' own announcement went to standard error
    assert done.stdout.startswith(
        "TransportError 1 ImageNet's weights for mobilenetv2:0.35/96 cannot be fetched"
    )
    assert "go online once" in done.stdout and "https://" not in done.stdout


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 no zip",
        packed(a=np.arange(3)),
        packed(a=np.array(["text"])),
        packed(a=np.array([1.0, np.nan])),
        packed(a=np.ones(3, np.complex64)),
    ],
    ids=["empty", "no zip", "integers", "text", "not a number", "complex"],
)
def test_a_npz_of_anything_else_than_finite_floats_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "weights.npz").write_bytes(data)
    with pytest.raises(ModelError, match=r"^weights\.npz"):
        read_npz(tmp_path / "weights.npz")


def test_objects_in_a_npz_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError):
        read_npz(tmp_path / "weights.npz")


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_NPZ_BYTES", 64 << 20)
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(1 << 20, np.float32))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(17):
            file.writestr(f"t{i}.npy", zeros.getvalue())
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20

    with pytest.raises(ModelError, match="too much"):
        read_npz(tmp_path / "bomb.npz")


def test_a_shape_that_its_bytes_do_not_fill_reserves_no_memory(tmp_path: Path) -> None:
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("a.npy", file.getvalue() + b"\0" * 16)

    with pytest.raises(ModelError, match="has not its shape's size"):
        read_npz(tmp_path / "huge.npz")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_tensors_or_a_model_error(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(packed(kernel=np.ones((2, 3), np.float32), bias=np.zeros(3, np.float32)))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "weights.npz"
    path.write_bytes(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    try:
        read_npz(path)
    except ModelError as error:
        assert "\n" not in str(error)
