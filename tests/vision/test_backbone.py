"""Real files become backbones with the right numbers; all others get one clear line."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import rewritten
from PIL import Image

from edge_cl.errors import ConfigError, MismatchError, ModelError
from edge_cl.vision.backbone import MAX_MODEL_BYTES, Manifest, open_backbone
from edge_cl.vision.frames import read_image
from edge_cl.vision.preprocess import Resize, prepare, views


def raw_output(path: Path, stored: np.ndarray) -> np.ndarray:
    """What LiteRT itself gives for a quantised input."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], stored[np.newaxis])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).reshape(-1)


def refuses(path: Path, *words: str, **options: object) -> None:
    with pytest.raises(ModelError) as refusal:
        open_backbone(path, **options).close()  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_the_extractor_gives_what_its_interpreter_gives(extractor_path: Path, noise: np.ndarray) -> None:
    with open_backbone(extractor_path) as backbone:
        assert backbone.input_size == (224, 224) and backbone.kernels == "xnnpack" and not backbone.assumption
        space = backbone.space
        assert (space.size, space.dtype, space.zero_point) == (1024, "uint8", 0)
        assert space.scale == pytest.approx(0.0235284, rel=1e-5)
        feature = backbone.embed(noise)
    assert feature.shape == (1024,) and feature.dtype == np.uint8
    assert np.array_equal(feature, raw_output(extractor_path, noise))


def test_embed_many_is_embed_of_each(extractor_path: Path, parrot: Image.Image) -> None:
    with open_backbone(extractor_path) as backbone:
        pixels = views(parrot, 4, backbone.input_size)
        together = backbone.embed_many(pixels)
        assert together.shape == (4, 1024)
        assert np.array_equal(together, np.stack([backbone.embed(view) for view in pixels]))


def test_a_returned_feature_stays_when_the_next_is_computed(small_path: Path) -> None:
    with open_backbone(small_path) as backbone:
        first = backbone.embed(np.zeros((32, 32, 3), np.uint8))
        before = first.copy()
        backbone.embed(np.full((32, 32, 3), 255, np.uint8))
        assert np.array_equal(first, before)


@pytest.mark.parametrize(
    ("name", "size", "dtype", "outputs"),
    [
        ("coral/mobilenet_v1_0.25_128_quant.tflite", (128, 128), "uint8", 1001),
        ("coral/mobilenet_v1_0.5_160_quant.tflite", (160, 160), "uint8", 1001),
        ("coral/mobilenet_v2_1.0_224_quant.tflite", (224, 224), "uint8", 1001),
        ("coral/tf2_mobilenet_v2_1.0_224_ptq.tflite", (224, 224), "uint8", 1001),
        ("mlperf_tiny/pretrainedResnet_quant.tflite", (32, 32), "int8", 10),
        ("mlperf_tiny/pretrainedResnet.tflite", (32, 32), "float32", 10),
        ("mlperf_tiny/vww_96_int8.tflite", (96, 96), "int8", 2),
        ("mlperf_tiny/vww_96_float.tflite", (96, 96), "float32", 2),
    ],
)
def test_every_real_image_model_opens(
    models_dir: Path, name: str, size: tuple[int, int], dtype: str, outputs: int, parrot: Image.Image
) -> None:
    with open_backbone(models_dir / name) as backbone:
        assert backbone.input_size == size
        assert (backbone.space.dtype, backbone.space.size) == (dtype, outputs)
        assert backbone.embed(prepare(parrot, size)).shape == (outputs,)


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq"]
)
def test_pixels_reach_the_network_rightly_so_that_it_knows_a_parrot(
    models_dir: Path, name: str, parrot: Image.Image
) -> None:
    labels = (models_dir / "coral" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    with open_backbone(models_dir / "coral" / f"{name}.tflite") as backbone:
        best = int(backbone.embed(prepare(parrot, backbone.input_size)).argmax())
    assert "macaw" in labels[best]


@pytest.mark.parametrize(
    ("stem", "twin", "right", "wrong"),
    [
        ("pretrainedResnet_quant", "pretrainedResnet", (0.0, 255.0), (-1.0, 1.0)),
        ("vww_96_int8", "vww_96_float", (0.0, 1.0), (0.0, 255.0)),
    ],
)
def test_a_float_twin_agrees_with_its_int8_file_when_told_the_range(
    models_dir: Path, stem: str, twin: str, right: tuple[float, float], wrong: tuple[float, float]
) -> None:
    folder = models_dir / "mlperf_tiny"
    photos = [read_image(path) for path in sorted((models_dir / "coral").rglob("*.bmp"))]
    with open_backbone(folder / f"{stem}.tflite") as backbone:
        assert backbone.input_range == right
        pixels = np.stack([prepare(photo, backbone.input_size) for photo in photos])
        space = backbone.space
        quantised = (backbone.embed_many(pixels).astype(float) - space.zero_point) * space.scale
    errors = {}
    for input_range in (right, wrong):
        with open_backbone(folder / f"{twin}.tflite", input_range=input_range) as backbone:
            assert not backbone.assumption
            errors[input_range] = np.abs(backbone.embed_many(pixels) - quantised).mean()
    assert len(photos) >= 8 and errors[right] < 0.05 and errors[wrong] > 2 * errors[right]


def test_a_float_file_says_what_was_assumed(models_dir: Path) -> None:
    with open_backbone(models_dir / "mlperf_tiny" / "vww_96_float.tflite") as backbone:
        assert "give the input range" in backbone.assumption


def test_the_id_follows_the_file_the_policy_and_the_range_and_nothing_else(
    small_path: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "renamed.tflite"
    moved.write_bytes(small_path.read_bytes())
    longer = tmp_path / "longer.tflite"
    longer.write_bytes(small_path.read_bytes() + bytes(16))
    ids = []
    for path, options in (
        (small_path, {}),
        (moved, {"num_threads": 2}),
        (longer, {}),
        (small_path, {"policy": Resize.CROP}),
        (small_path, {"input_range": (0.0, 1.0)}),
    ):
        with open_backbone(path, **options) as backbone:
            ids.append(backbone.space.id)
    assert ids[0] == ids[1] and len(set(ids)) == 4 and all(len(one) == 16 for one in ids)


def test_pixels_of_another_shape_or_dtype_are_misuse(small_path: Path) -> None:
    with open_backbone(small_path) as backbone:
        for pixels in (np.zeros((32, 31, 3), np.uint8), np.zeros((32, 32, 3), np.float32)):
            with pytest.raises(ValueError, match="embed takes"):
                backbone.embed(pixels)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="embed_many"):
            backbone.embed_many(np.zeros((0, 32, 32, 3), np.uint8))


def test_a_closed_backbone_is_misuse(small_path: Path) -> None:
    backbone = open_backbone(small_path)
    backbone.close()
    backbone.close()
    with pytest.raises(RuntimeError, match="closed"):
        backbone.embed(np.zeros((32, 32, 3), np.uint8))


# ---- manifest


def test_a_manifest_survives_json_and_opens_the_same_space(small_path: Path) -> None:
    with open_backbone(small_path, policy=Resize.PAD, input_range=(0.0, 1.0)) as backbone:
        manifest = backbone.manifest(mirror=False, cut_from="pool")
        space = backbone.space
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest and not again.mirror and again.cut_from == "pool"
    assert again.sha256 == hashlib.sha256(small_path.read_bytes()).hexdigest()
    with open_backbone(small_path, manifest=again) as backbone:
        assert backbone.space == space and backbone.policy is Resize.PAD


def test_a_manifest_of_another_file_is_a_mismatch(small_path: Path, extractor_path: Path) -> None:
    with open_backbone(small_path) as backbone:
        manifest = backbone.manifest()
    with pytest.raises(MismatchError, match="not the file of its manifest"):
        open_backbone(extractor_path, manifest=manifest)


def test_damaged_and_newer_manifests_are_told_apart(small_path: Path) -> None:
    with open_backbone(small_path) as backbone:
        fields = json.loads(backbone.manifest().to_json())
    for damage in (
        "",
        "[]",
        "{}",
        json.dumps({**fields, "resize": "melt"}),
        json.dumps({**fields, "extra": 1}),
    ):
        with pytest.raises(ModelError, match="damaged"):
            Manifest.from_json(damage)
    with pytest.raises(MismatchError, match="update this program"):
        Manifest.from_json(json.dumps({**fields, "version": 99}))


# ---- refusals


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    for name, data in (
        ("empty", b""),
        ("text", b"hello"),
        ("short", b"\0\0\0\0TFL"),
        ("zip", b"PK\3\4" * 99),
    ):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        refuses(path, "is not a TFLite file")
    os.mkfifo(tmp_path / "pipe.tflite")
    refuses(tmp_path / "pipe.tflite", "is not a plain file")
    refuses(tmp_path, "is not a plain file")
    refuses(tmp_path / "absent.tflite", "cannot be opened")


def test_a_file_beyond_the_size_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    refuses(path, "too large")


@pytest.mark.parametrize("isolate", [False, True])
def test_a_file_that_was_cut_off_is_refused(small_path: Path, tmp_path: Path, isolate: bool) -> None:
    data = small_path.read_bytes()
    for part in (9, 200, len(data) // 2, len(data) - 5000):
        path = tmp_path / "cut.tflite"
        path.write_bytes(data[:part])
        refuses(path, "cut.tflite cannot be loaded", isolate=isolate)


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coral/model_invoking_error.tflite", "'fake-op-double'"),
        ("coral/mobilenet_quant_v1_224_head_layers.tflite", "not an RGB picture"),
        ("mlperf_tiny/kws_ref_model.tflite", "not an RGB picture"),
        ("mlperf_tiny/kws_ref_model_float32.tflite", "not an RGB picture"),
    ],
)
def test_real_models_that_cannot_serve_are_refused(
    models_dir: Path, name: str, words: str, isolate: bool
) -> None:
    refuses(models_dir / name, Path(name).name, words, isolate=isolate)


@pytest.mark.parametrize("isolate", [False, True])
def test_an_edge_tpu_file_on_a_cpu_names_the_file_to_use(
    models_dir: Path, tmp_path: Path, isolate: bool
) -> None:
    compiled = models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite"
    refuses(
        compiled,
        "compiled for the Edge TPU: use mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
        isolate=isolate,
    )
    alone = tmp_path / "alone_edgetpu.tflite"
    alone.write_bytes(compiled.read_bytes())
    refuses(alone, "the file without _edgetpu in its name", isolate=isolate)


@pytest.mark.parametrize("isolate", [False, True])
def test_odd_graphs_are_refused(small_path: Path, tmp_path: Path, isolate: bool) -> None:
    def two_outputs(model: Any, graph: Any) -> None:
        graph.outputs = np.array([*graph.outputs, 36], np.int32)

    def three_inputs(model: Any, graph: Any) -> None:
        graph.inputs = np.array([0, 21, 20], np.int32)

    def open_size(model: Any, graph: Any) -> None:
        graph.tensors[0].shapeSignature = np.array([-1, -1, -1, 3], np.int32)

    def unquantised(model: Any, graph: Any) -> None:
        graph.tensors[37].quantization.scale = None

    for change, words in (
        (two_outputs, "has 2 outputs"),
        (three_inputs, "has 3 inputs"),
        (open_size, "leaves its picture size open"),
        (unquantised, "odd.tflite"),
    ):
        path = tmp_path / "odd.tflite"
        path.write_bytes(rewritten(small_path.read_bytes(), change))
        refuses(path, words, isolate=isolate)


def test_an_open_batch_is_fixed_at_one(small_path: Path, tmp_path: Path) -> None:
    def batch_of_four(model: Any, graph: Any) -> None:
        for tensor in graph.tensors:
            if tensor.shapeSignature is not None:
                tensor.shape = np.array([4, *tensor.shape[1:]], np.int32)

    path = tmp_path / "batch.tflite"
    path.write_bytes(rewritten(small_path.read_bytes(), batch_of_four))
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with open_backbone(path) as backbone, open_backbone(small_path) as usual:
        assert backbone.space.size == 10
        assert np.array_equal(backbone.embed(pixels), usual.embed(pixels))


def test_fewer_than_one_thread_is_refused(small_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 threads"):
        open_backbone(small_path, num_threads=0)


def test_a_machine_without_a_working_interpreter_is_told_each_reason(
    small_path: Path, tmp_path: Path
) -> None:
    # An install that imports well and fails when a model is loaded, as tflite-runtime does beside numpy 2.
    for package, body in (
        (
            "ai_edge_litert",
            "def Interpreter(**options): raise SystemError('returned a result with an exception set')",
        ),
        ("tflite_runtime", "raise ImportError('numpy.core.multiarray failed to import')"),
        ("tensorflow", ""),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "interpreter.py").write_text(body)
    script = (
        "from edge_cl.vision.backbone import open_backbone\n"
        "from edge_cl.errors import EngineError\n"
        f"try: open_backbone({str(small_path)!r})\n"
        "except EngineError as error: print(error)"
    )
    said = run_alone(script, PYTHONPATH=str(tmp_path))
    assert "LiteRT: returned a result with an exception set" in said
    assert "tflite-runtime: numpy.core.multiarray failed to import" in said
    assert "pip install edge-cl[device]" in said and said.count("\n") == 1


# ---- what it costs


def run_alone(script: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    assert ran.stderr == ""
    return ran.stdout


def test_importing_the_backbone_loads_no_interpreter() -> None:
    loaded = run_alone("import sys, edge_cl.vision.backbone; print(*sys.modules)").split()
    heavy = {"ai_edge_litert", "tflite_runtime", "tensorflow", "flatbuffers", "multiprocessing", "scipy"}
    assert not heavy & {name.partition(".")[0] for name in loaded}


def test_opening_a_backbone_prints_nothing(extractor_path: Path) -> None:
    script = (
        f"from edge_cl.vision.backbone import open_backbone; open_backbone({str(extractor_path)!r}).close()"
    )
    assert run_alone(script) == ""


def test_the_largest_backbone_leaves_room_for_the_learner(extractor_path: Path) -> None:
    script = (
        "import numpy as np\n"
        "from edge_cl.vision.backbone import open_backbone\n"
        "from edge_cl.vision.frames import read_image\n"
        f"backbone = open_backbone({str(extractor_path)!r})\n"
        "for step in range(5): backbone.embed(np.full((224, 224, 3), step, np.uint8))\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    assert int(run_alone(script)) < 75 * 1024  # kB; 110 MB in all, about 25 MB of it the learner's
