"""Opens an ONNX file through TensorRT: in this process, or in a worker under a Python that has TensorRT.

The rules, the cache and the calls are those of `tensorrt_worker.py`, which this module imports where it can
and starts as a worker where it cannot (docs/adr/0006). Engines are built on the board they run on.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, EdgeError, EngineError, ModelError
from edge_cl.vision.engines import tensorrt_worker
from edge_cl.vision.engines.isolated import IsolatedEngine, MissingEngineError, Worker
from edge_cl.vision.engines.litert import Engine
from edge_cl.vision.engines.tensorrt_worker import MissingError, Opened, Order, Refusal
from edge_cl.vision.ports import Port

NAME = "tensorrt"
SYSTEM_PYTHON = Path("/usr/bin/python3")  # JetPack's own, the only one that its TensorRT is made for
BUILD_TIMEOUT_S = 3600.0  # minutes on a Jetson Nano; its GPU times every kernel that might serve
START_TIMEOUT_S = 120.0  # libraries of 500 MB from an SD card
LOG = logging.getLogger(__name__)


class TensorrtEngine:
    """An engine in this process, from TensorRT 8 to 11; `kernels` names precision, version and GPU."""

    def __init__(self, opened: Opened) -> None:
        self.kernels = opened.kernels
        self._opened: Opened | None = opened
        self.inputs, self.outputs = (
            tuple(Port(*facts) for facts in side) for side in (opened.session.inputs, opened.session.outputs)
        )

    def run(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the output, flattened, for one input without its batch dimension."""
        if self._opened is None:
            raise RuntimeError("run: the engine is closed")
        image, answer = self.inputs[0], self.outputs[0]
        if pixels.shape != image.shape[1:]:
            raise ValueError(f"run takes {image.shape[1:]}, not {pixels.shape}")
        frame = np.ascontiguousarray(pixels, image.dtype)
        feature = np.empty(int(np.prod(answer.shape)), answer.dtype)
        try:
            self._opened.session.run(frame.ctypes.data, feature.ctypes.data)
        except Refusal as refusal:
            raise EngineError(f"TensorRT failed while running the backbone: {refusal}") from refusal
        return feature

    def close(self) -> None:
        """Let go of the engine and its memory on the GPU."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


def open_engine(
    path: Path, sha256: str, precision: str, cache: Path, isolate: bool = False, where: str | None = None
) -> Engine:
    """Open an ONNX file; the first time on a board builds its engine, which takes minutes on a small one.

    Arguments:
        path: of the ONNX file.
        sha256: that it must have, hex.
        precision: `fp32`, `fp16` or `int8`, as the file says.
        cache: folder of built engines; made if it is not there.
        isolate: in a child process even where this Python has TensorRT.
        where: `tensorrt`, or `tensorrt:PYTHON` for a worker under that Python.

    Raises:
        ConfigError: `where` is something else.
        ModelError: TensorRT cannot build the file.
        EngineError: TensorRT is not here, or failed.
    """
    order = Order(str(path.absolute()), sha256, precision, str(cache.absolute()))
    python = _named_python(where)
    tries = [_worker_engine(python)] if python else _usual_tries(isolate)
    missing: list[str] = []
    for attempt in tries:
        try:
            return attempt(order)
        except (MissingError, MissingEngineError) as error:
            missing.append(str(error))
        except (EngineError, ModelError, Refusal) as error:
            raise _ours(path, error) from error
    raise EngineError(f"{path.name} needs TensorRT, which is not here: {missing[0]}")


def _named_python(where: str | None) -> str | None:
    if where in (None, NAME):
        return None
    name, _, python = str(where).partition(":")
    if name != NAME or not python:
        raise ConfigError(f"an ONNX file runs through TensorRT, not {where!r}: give no delegate, or tensorrt")
    return python


def _usual_tries(isolate: bool) -> list[Callable[[Order], Engine]]:
    """Return where TensorRT may be: in this Python, then in the system's."""
    here = _worker_engine(sys.executable) if isolate else _engine_here
    others = [_worker_engine(str(SYSTEM_PYTHON))] if _is_another(SYSTEM_PYTHON) else []
    return [here, *others]


def _is_another(python: Path) -> bool:
    return python.exists() and python.resolve() != Path(sys.executable).resolve()


def _engine_here(order: Order) -> Engine:
    opened = tensorrt_worker.open_session(order, _announce)
    if opened.note:
        LOG.warning("%s", opened.note)
    return TensorrtEngine(opened)


def _announce(line: str) -> None:
    LOG.info("TensorRT is %s the engine; this takes minutes on a small board", line)


def _worker_engine(python: str) -> Callable[[Order], Engine]:
    def start(order: Order) -> Engine:
        # This Python's worker finds what this process finds; another one has its own places.
        search = sys.path if python == sys.executable else None
        settings = {"open": list(order), "sys_path": search}
        command = (python, "-I", str(Path(tensorrt_worker.__file__).absolute()))
        worker = Worker(command, settings, BUILD_TIMEOUT_S)
        return IsolatedEngine(Path(order.path), start_timeout_s=START_TIMEOUT_S, worker=worker)

    return start


def _ours(path: Path, error: EdgeError | Refusal) -> EdgeError:
    is_model = isinstance(error, ModelError) or getattr(error, "kind", "") == "ModelError"
    text = f"{path.name}: {error}"
    return ModelError(text) if is_model else EngineError(text)
