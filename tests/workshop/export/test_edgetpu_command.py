"""`host-trainer check-edgetpu`, run as people run it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAIN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from host_trainer.cli import main; main()"
EXTRACTOR = "coral/mobilenet_v1_1.0_224_quant_embedding_extractor"


def check(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, "check-edgetpu", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"COLUMNS": "160"} | environment,
    )  # fmt: skip


def report(*arguments: object, **environment: str) -> dict[str, Any]:
    done = check("--json", *arguments, **environment)
    assert done.stdout.count("\n") == 1, done.stderr
    return json.loads(done.stdout)


def test_a_model_that_maps_ends_with_0_and_says_so(models_dir: Path) -> None:
    done = check(models_dir / f"{EXTRACTOR}.tflite")
    assert done.returncode == 0, done.stderr
    assert "Maps fully: all 28 operations" in done.stdout
    assert "they stay on the chip" in done.stdout
    assert done.stdout.count("DEPTHWISE_CONV_2D") == 13


def test_a_model_that_does_not_map_ends_with_1_and_says_how_to_mend_it(models_dir: Path) -> None:
    done = check(models_dir / "mlperf_tiny/vww_96_int8.tflite")
    assert done.returncode == 1
    assert "refuses the whole file" in done.stdout
    assert "batch of 1" in done.stdout


def test_json_is_one_object_with_every_operation(models_dir: Path) -> None:
    said = report(models_dir / "mlperf_tiny/vww_96_float.tflite")
    assert (said["maps_fully"], said["mapped"], said["compiled"]) == (False, 0, False)
    assert [each["number"] for each in said["operations"]] == list(range(31))
    assert said["operations"][0]["refusal"]["constraint"] == "data type"
    assert [fault["constraint"] for fault in said["faults"]] == ["fixed sizes", "quantised"]


def test_a_compiled_file_is_recognised_and_explained(models_dir: Path) -> None:
    done = check(models_dir / f"{EXTRACTOR}_edgetpu.tflite")
    assert done.returncode == 0
    assert "compiled for the Edge TPU already" in done.stdout
    assert "3.21 MiB" in done.stdout
    said = report(models_dir / f"{EXTRACTOR}_edgetpu.tflite")
    assert (said["compiled"], said["cached_bytes"], said["left"]) == (True, 3_363_072, 0)


@pytest.mark.parametrize("content", [None, b"", b"not a model at all", b"\x20\0\0\0TFL3" + b"\xff" * 200])
def test_bad_input_is_one_line_and_2(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    if content is not None:
        file.write_bytes(content)
    done = check(file, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("host-trainer: ") and done.stderr.count("\n") == 1


def test_the_compilers_own_word_is_shown_beside_ours(models_dir: Path, tmp_path: Path) -> None:
    program = tmp_path / "edgetpu_compiler"
    program.write_text(f"#!/bin/sh\ncat {_log(tmp_path)}\nprintf x > $3/model_edgetpu.tflite\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    said = report(models_dir / f"{EXTRACTOR}.tflite", "--compile", PATH=path)
    assert said["compiler"]["as_foreseen"] is True
    assert said["compiler"]["on_chip_bytes"] == 3 * 2**20
    assert "as foreseen" in check(models_dir / f"{EXTRACTOR}.tflite", "--compile", PATH=path).stdout


def test_a_compiler_that_refuses_is_heard_beside_our_own_reason(models_dir: Path, tmp_path: Path) -> None:
    program = tmp_path / "edgetpu_compiler"
    program.write_text("#!/bin/sh\necho Edge TPU Compiler version 15.0\necho Model not quantized\nexit 1\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    said = report(models_dir / "mlperf_tiny/vww_96_float.tflite", "--compile", PATH=path)
    assert said["faults"]
    assert "Model not quantized" in said["compiler"]["error"]


def test_without_the_compiler_compile_is_one_line_and_1(models_dir: Path, tmp_path: Path) -> None:
    done = check(models_dir / f"{EXTRACTOR}.tflite", "--compile", PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "not on the PATH" in done.stderr and done.stderr.count("\n") == 1


def _log(folder: Path) -> Path:
    log = folder / "said"
    log.write_text(
        "Edge TPU Compiler version 16.0.384591198\n"
        "On-chip memory used for caching model parameters: 3.00MiB\n"
        "On-chip memory remaining for caching model parameters: 4.00MiB\n"
        "Off-chip memory used for streaming uncached model parameters: 0.00B\n"
        "Number of Edge TPU subgraphs: 1\n\n"
        "Operator                       Count      Status\n\n"
        "CONV_2D                        14         Mapped to Edge TPU\n"
        "DEPTHWISE_CONV_2D              13         Mapped to Edge TPU\n"
        "AVERAGE_POOL_2D                1          Mapped to Edge TPU\n"
    )
    return log
