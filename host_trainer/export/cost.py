"""Measures what one exported file costs here: latency on one thread and peak memory, in a process of its own.

Run as `python -m host_trainer.export.cost FILE`, it prints the figures as JSON. The process has loaded what a
device loads (numpy, the interpreter, the file) and not TensorFlow, so that its memory is the device's.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import EngineError
from edge_cl.resident import peak_resident_bytes
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.files import one_line

WARM_UP, RUNS = 5, 60  # inferences; the median of 60 moves by some per cent on a busy machine
TIMEOUT_S = 300
PACKAGES = Path(__file__).parents[2]  # where this package lies, for a child that starts elsewhere


class Cost(NamedTuple):
    """Latency of one picture in milliseconds (median), and the peak resident memory of the process."""

    latency_ms: float
    peak_bytes: int


def measure(path: Path) -> Cost:
    """Return what the file costs on this machine.

    Raises:
        EngineError: the file does not run here.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); from {__name__} import main; main(sys.argv[1])"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        figures = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        raise EngineError(f"{path.name} does not run here: {one_line(error.stderr[-200:])}") from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise EngineError(f"{path.name} cannot be measured here: {one_line(error)}") from error
    return Cost(float(figures["latency_ms"]), int(figures["peak_bytes"]))


def main(path: str) -> None:
    """Print the figures of one file as JSON."""
    run, shape = _onnx(path) if path.endswith(".onnx") else _tflite(path)
    pixels = np.random.default_rng(0).integers(0, 256, (WARM_UP + RUNS, *shape), dtype=np.uint8)
    print(json.dumps({"latency_ms": 1e3 * _median(run, pixels), "peak_bytes": peak_resident_bytes()}))


def _median(run: Callable[[Any], Any], pixels: np.ndarray) -> float:
    taken = []
    for image in pixels:
        start = time.perf_counter()
        run(image)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[WARM_UP:]))


def _tflite(path: str) -> tuple[Callable[[Any], Any], tuple[int, ...]]:
    backbone = open_backbone(path, num_threads=1)
    return backbone.embed, (*backbone.input_size, 3)


def _onnx(path: str) -> tuple[Callable[[Any], Any], tuple[int, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    low, width = np.float32(-1), np.float32(2 / 255)
    return lambda image: session.run(None, {port.name: image[None] * width + low}), tuple(port.shape[1:])
