"""`host-trainer export` on real photographs: published whole when it is as good, and not at all otherwise."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_cl.errors import ConfigError, ModelError, StoreError
from edge_cl.vision.backbone import Manifest, open_backbone
from host_trainer.export import golden
from host_trainer.export.parity import Gate
from host_trainer.export.targets import Order, Quantise, Target, export
from host_trainer.quantisation.tuning import Tuning

pytest.importorskip("tensorflow", reason="the exports need tensorflow")
ROOT = Path(__file__).parents[3]
LENIENT = Gate(cosine_min=0.9, accuracy_drop=1.0)  # a random network: its probe's accuracy says nothing


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of two classes, coarse and fine, in the layout that --data takes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(40):
        name, grain = ("coarse", 16) if number % 2 else ("fine", 2)
        side = 64 // grain
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8).repeat(grain, 0).repeat(grain, 1)
        place = folder / ("test" if number >= 30 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from host_trainer.checkpoints import save_network
    from host_trainer.network import Network

    folder = tmp_path_factory.mktemp("network") / "checkpoint"
    save_network(folder, Network(small, name="separable:0.25/32", origin={"weights": "random"}))
    return folder


@pytest.fixture
def order(checkpoint: Path, pictures: Path, tmp_path: Path) -> Callable[..., Order]:
    def make(**changes: Any) -> Order:
        usual = {"model": checkpoint, "target": Target.LITERT, "data": pictures, "gate": LENIENT}
        return Order(**{**usual, "out": tmp_path / "out", **changes})

    return make


def host_trainer(*arguments: str, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from host_trainer.cli import main; main()"

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=300, check=False, preexec_fn=limit,
    )  # fmt: skip


def test_what_is_published_opens_on_a_device_and_proves_itself(order: Callable[..., Order]) -> None:
    outcome = export(order())
    out = order().out
    assert outcome.published
    assert {path.name for path in out.iterdir()} == {
        "backbone.tflite", "backbone.json", "golden.safetensors", "parity.json", "README.md"
    }  # fmt: skip
    manifest = Manifest.from_json((out / "backbone.json").read_text())
    with open_backbone(out / "backbone.tflite", manifest=manifest) as backbone:
        assert backbone.input_range == (-1.0, 1.0)
        assert golden.compare((out / golden.FILE).read_bytes(), backbone).equal == 1.0
    report = json.loads((out / "parity.json").read_text())
    assert report["passed"] and report["latency_ms"] > 0 and report["size_bytes"] > 10_000
    assert 20e6 < report["peak_bytes"] < 300e6  # a process without TensorFlow
    card = (out / "README.md").read_text()
    assert outcome.files["backbone.tflite"][0] in card and "separable:0.25/32" in card


def test_under_the_gate_nothing_is_published(order: Callable[..., Order], tmp_path: Path) -> None:
    outcome = export(order(gate=Gate(cosine_min=1.0)))
    assert not outcome.published
    assert "cosine" in outcome.reasons[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_unless_it_was_asked_for(order: Callable[..., Order]) -> None:
    outcome = export(order(gate=Gate(cosine_min=1.0), keep_failed=True))
    assert outcome.published and outcome.reasons
    assert "FAILED the parity gate" in (order().out / "README.md").read_text()


@pytest.mark.slow
def test_training_with_the_rounding_goes_the_same_way(order: Callable[..., Order]) -> None:
    outcome = export(order(quantise=Quantise.QAT, tuning=Tuning(steps=2, batch=8)))
    assert outcome.published
    with open_backbone(order().out / "backbone.tflite") as backbone:
        assert (backbone.space.dtype, backbone.input_range) == ("int8", (-1.0, 1.0))


def test_an_export_for_the_edge_tpu_says_what_maps(order: Callable[..., Order]) -> None:
    outcome = export(order(target=Target.EDGETPU))
    assert outcome.published
    assert "operations map to the Edge TPU" in outcome.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "quantise", "board", "precision"),
    [
        (Target.ONNX, Quantise.NONE, "orin", "fp32"),
        (Target.ONNX, Quantise.FLOAT16, "orin", "fp16"),
        (Target.TENSORRT, None, "nano", "fp16"),
        (Target.TENSORRT, None, "orin", "int8"),
    ],
)
def test_onnx_files_are_made_and_judged_too(
    target: Target, quantise: Quantise | None, board: str, precision: str, order: Callable[..., Order]
) -> None:
    pytest.importorskip("onnxruntime", reason="the ONNX exports are checked by onnxruntime")
    tuning = Tuning(steps=2, batch=8)
    outcome = export(order(target=target, quantise=quantise, board=board, tuning=tuning))
    assert outcome.published
    assert [path for path in order().out.glob("*.onnx") if precision in path.name]
    assert outcome.parity.latency_ms > 0


@pytest.mark.slow
def test_a_tflite_file_goes_in_as_well(order: Callable[..., Order], models_dir: Path) -> None:
    outcome = export(order(model=models_dir / "coral" / "mobilenet_v1_0.25_128_quant.tflite"))
    assert outcome.published
    with open_backbone(order().out / "backbone.tflite") as backbone:
        assert backbone.space.size == 256


def test_bad_input_is_refused_before_anything_is_written(order: Callable[..., Order], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="onnx takes no qat"):
        export(order(target=Target.ONNX, quantise=Quantise.QAT))
    with pytest.raises(ConfigError, match="tensorrt for nano takes no qat: give --quantise float16"):
        export(order(target=Target.TENSORRT, quantise=Quantise.QAT, board="nano"))
    with pytest.raises(ConfigError, match="'pi' is no board"):
        export(order(target=Target.TENSORRT, board="pi"))
    with pytest.raises(ModelError, match="is no network"):
        export(order(model=tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no folder"):
        export(order(data=tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(order: Callable[..., Order]) -> None:
    order().out.mkdir()
    (order().out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="choose another --out"):
        export(order())
    assert [path.name for path in order().out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("allowed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_a_disk_that_fills_leaves_nothing_behind(
    allowed: int, order: Callable[..., Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the first write into the folder, the second, and so on."""
    written = [0]

    def full(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(path: Path, *arguments: Any, **options: Any) -> Any:
            if ".part-out" not in str(path):
                return real(path, *arguments, **options)
            written[0] += 1
            if written[0] > allowed:
                raise OSError(28, "No space left on device")
            return real(path, *arguments, **options)

        return write

    monkeypatch.setattr(Path, "write_bytes", full(Path.write_bytes))
    monkeypatch.setattr(Path, "write_text", full(Path.write_text))
    with pytest.raises(StoreError, match="No space left"):
        export(order())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_says_in_one_line_that_the_disk_is_full(
    checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    """A real limit of the system on the size of files: the model does not fit."""
    done = host_trainer(
        "export", str(checkpoint), "--target", "litert", "--data", str(pictures),
        "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), limit_bytes=200_000,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("host-trainer:")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_prints_one_json_object(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    done = host_trainer(
        "export", str(checkpoint), "--target", "litert", "--data", str(pictures),
        "--out", str(tmp_path / "out"), "--gate-cosine", "0.9", "--gate-drop", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["published"] and result["parity"]["gate"] == {"cosine_min": 0.9, "accuracy_drop": 1.0}
    assert sorted(result["files"]) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_unknown_words_are_bad_usage(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    done = host_trainer(
        "export",
        str(checkpoint),
        "--target",
        "toaster",
        "--data",
        str(pictures),
        "--out",
        str(tmp_path / "out"),
    )
    assert done.returncode == 2
    assert "toaster" in done.stderr and "litert" in done.stderr
