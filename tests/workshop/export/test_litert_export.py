"""The TFLite export: every scheme opens on a device, int8 takes bytes, equal networks give equal files."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cl.errors import ConfigError, MismatchError, ModelError, ProtocolError
from edge_cl.evaluation.agreement import cosines
from edge_cl.vision.backbone import Backbone, open_backbone
from host_trainer.datasets.splits import spread
from host_trainer.export import golden
from host_trainer.export.litert import Scheme, convert
from host_trainer.network import to_input
from host_trainer.quantisation.folding import fold

pytest.importorskip("tensorflow", reason="the TFLite export needs tensorflow")
ROOT = Path(__file__).parents[3]


def opened(data: bytes, folder: Path) -> Backbone:
    path = folder / "backbone.tflite"
    path.write_bytes(data)
    return open_backbone(path)


def real(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    space = backbone.space
    return (backbone.embed_many(pixels).astype(np.float64) - space.zero_point) * space.scale


@pytest.fixture
def pixels() -> np.ndarray:
    coarse = np.random.default_rng(5).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def exported(imagenet: Any, photographs: np.ndarray) -> bytes:
    return convert(imagenet, "ptq", photographs)


def test_a_real_network_keeps_its_features_in_eight_bits(
    exported: bytes, imagenet: Any, photographs: np.ndarray, tmp_path: Path
) -> None:
    expected = np.asarray(imagenet(to_input(photographs, (-1.0, 1.0)), training=False))
    with opened(exported, tmp_path) as backbone:
        alike = cosines(expected, real(backbone, photographs))
    assert alike.min() >= 0.95 and alike.mean() >= 0.99


def test_folding_keeps_the_features_of_the_real_network(imagenet: Any, photographs: np.ndarray) -> None:
    images = to_input(photographs[:8], (-1.0, 1.0))
    before, after = (np.asarray(each(images, training=False)) for each in (imagenet, fold(imagenet)))
    # Fifty layers of float32 sums in another order: up to 1.3e-5, by processor. A forgotten epsilon: 0.2.
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()


def test_pixels_enter_an_int8_file_as_their_bytes(exported: bytes, tmp_path: Path) -> None:
    """Pixel p is stored as p - 128, and the device knows the range without being told."""
    with opened(exported, tmp_path) as backbone:
        assert (backbone.input_range, backbone.assumption) == ((-1.0, 1.0), "")
        assert np.array_equal(backbone._table, np.arange(256) - 128)
        assert (backbone.space.dtype, backbone.space.size) == ("int8", 1280)


def test_the_batch_is_static_and_nothing_stays_float(exported: bytes) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(exported, 0)).subgraphs[0]
    assert all(tensor.shapeSignature is None or -1 not in tensor.shapeSignature for tensor in graph.tensors)
    assert {tensor.type for tensor in graph.tensors} <= {schema.TensorType.INT8, schema.TensorType.INT32}


@pytest.mark.parametrize(("scheme", "lowest"), [("float", 0.999999), ("float16", 0.9999), ("dynamic", 0.99)])
def test_the_other_schemes_answer_as_the_network_does(
    scheme: str, lowest: float, small: Any, pixels: np.ndarray, tmp_path: Path
) -> None:
    expected = np.asarray(small(to_input(pixels, (-1.0, 1.0)), training=False))
    with opened(convert(small, scheme), tmp_path) as backbone:
        assert backbone.space.dtype == "float32"
        assert cosines(expected, real(backbone, pixels)).min() >= lowest


def test_half_the_bits_take_half_the_space(small: Any, pixels: np.ndarray) -> None:
    sizes = {scheme: len(convert(small, scheme, pixels)) for scheme in (Scheme.FLOAT, Scheme.FLOAT16)}
    assert sizes[Scheme.FLOAT16] < 0.65 * sizes[Scheme.FLOAT]


def test_the_same_network_gives_the_same_bytes_twice(small: Any, pixels: np.ndarray) -> None:
    assert convert(small, "ptq", pixels) == convert(small, "ptq", pixels)


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes_in_another_process(small: Any, pixels: np.ndarray) -> None:
    code = f"""
import sys, hashlib; sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from host_trainer.backbones.networks import build, parse_spec
from host_trainer.export.litert import convert
coarse = np.random.default_rng(5).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
pixels = coarse.repeat(4, axis=1).repeat(4, axis=2)
print(hashlib.sha256(convert(build(parse_spec("separable:0.25/32")), "ptq", pixels)).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == hashlib.sha256(convert(small, "ptq", pixels)).hexdigest()


def test_converting_says_nothing(small: Any, pixels: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    convert(small, "ptq", pixels)
    assert capfd.readouterr() == ("", "")


def test_the_representative_pictures_are_left_as_they_were(small: Any, pixels: np.ndarray) -> None:
    before = pixels.copy()
    convert(small, "ptq", pixels)
    assert np.array_equal(before, pixels)


def test_ranges_need_pictures_of_the_right_size(small: Any, pixels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="0 pictures"):
        convert(small, "ptq")
    with pytest.raises(ConfigError, match="3 pictures"):
        convert(small, "ptq", pixels[:3])
    with pytest.raises(ConfigError, match="resize"):
        convert(small, "ptq", pixels[:, :16])


def test_a_network_that_no_device_runs_is_refused_in_one_line() -> None:
    import keras

    image = keras.Input((32, 32, 3), name="image")
    values = keras.ops.erfinv(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(ModelError, match="cannot become a TFLite file") as refused:
        convert(keras.Model(image, values), "float")
    assert "\n" not in str(refused.value)


def test_golden_answers_prove_a_file_and_only_that_file(
    small: Any, pixels: np.ndarray, tmp_path: Path
) -> None:
    with opened(convert(small, "ptq", pixels), tmp_path) as backbone:
        kept = golden.record(backbone, pixels)
        assert kept == golden.record(backbone, pixels)
        assert golden.compare(kept, backbone) == (1.0, 0.0, pytest.approx(1.0))
    with (
        opened(convert(small, "ptq", pixels[:8] // 2), tmp_path) as other,
        pytest.raises(MismatchError, match="another model file"),
    ):
        golden.compare(kept, other)


def test_a_damaged_golden_file_is_refused(small: Any, pixels: np.ndarray, tmp_path: Path) -> None:
    with opened(convert(small, "ptq", pixels), tmp_path) as backbone:
        kept = golden.record(backbone, pixels)
        with pytest.raises(ProtocolError):
            golden.compare(kept[:-5], backbone)


@pytest.mark.parametrize(("count", "wanted"), [(1, 64), (10, 64), (64, 64), (1000, 64), (7, 3)])
def test_golden_pictures_are_spread_over_all_of_them(count: int, wanted: int) -> None:
    places = spread(count, wanted)
    assert len(places) == min(count, wanted)
    assert places[0] == 0
    assert len(places) == 1 or places[-1] == count - 1
