"""Runs a TFLite file on the CPU with the first interpreter of this machine that can load it."""

import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import EngineError, ModelError
from edge_cl.vision.chatter import native_chatter_held
from edge_cl.vision.files import one_line
from edge_cl.vision.ports import Port

# Best first: LiteRT hands int8 graphs to XNNPACK, tflite-runtime does not, TensorFlow costs 487 MB of memory.
INTERPRETERS = (
    ("LiteRT", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
    ("TensorFlow", "tensorflow.lite.python.interpreter"),
)
LAST_RESORT = INTERPRETERS[-1][0]
INSTALL_HINT = "install one with `pip install edge-cl[device]` (tflite-runtime needs numpy < 2)"
XNNPACK_NODE = "DELEGATE"  # what XNNPACK's part of a graph is called in the list of nodes


class Engine(Protocol):
    """What runs a model; `run` may be called from one thread at a time."""

    kernels: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def run(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the first output, flattened, for one input without its batch dimension."""

    def close(self) -> None:
        """Let go of the model; `run` may not be called again."""


class LitertEngine:
    """A model loaded by an interpreter of this process; `kernels` names who computes it."""

    def __init__(self, interpreter: Any, kernels: str) -> None:
        self.kernels = kernels
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(_port(detail) for detail in inputs)
        self.outputs = tuple(_port(detail) for detail in outputs)
        self._interpreter = interpreter
        self._input, self._output = (side[0]["index"] if side else None for side in (inputs, outputs))

    def run(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the first output, flattened, for one input without its batch dimension."""
        if self._interpreter is None:
            raise RuntimeError("run: the engine is closed")
        try:
            self._interpreter.set_tensor(self._input, pixels[np.newaxis])
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                f"the interpreter failed while running the backbone: {one_line(error)}"
            ) from error
        return self._interpreter.get_tensor(self._output).reshape(-1)

    def close(self) -> None:
        """Let go of the interpreter and its memory."""
        self._interpreter = None


def open_interpreter(
    path: Path, num_threads: int = 1, delegate: Callable[[Any], Any] | None = None, kernels: str | None = None
) -> LitertEngine:
    """Load a model file with the first interpreter that can, read from disk page by page.

    An interpreter counts as present when it has loaded a model: tflite-runtime beside numpy 2 imports well
    and fails only there. `delegate` turns the interpreter's own `load_delegate` into a delegate.

    Raises:
        ModelError: an interpreter works here, but none takes this file.
        EngineError: no interpreter works here, or the delegate failed.
    """
    refused: list[str] = []
    missing: list[str] = []
    for title, module in INTERPRETERS:
        if refused and title == LAST_RESORT:
            break  # it refuses the same files, for 487 MB, and some that are cut off end the process
        try:
            return _loaded(module, path, num_threads, delegate, kernels)
        except ModuleNotFoundError:
            missing.append(f"{title} is not installed")
        except (ValueError, RuntimeError) as error:
            refused.append(f"{title}: {one_line(error)}")
        except EngineError:
            raise
        except Exception as error:  # a broken install can raise anything
            missing.append(f"{title}: {one_line(error)}")
    if refused:
        raise ModelError(_refusal(path, refused[0]))
    raise EngineError(f"no interpreter works here ({'; '.join(missing)}): {INSTALL_HINT}")


def allocated(interpreter: Any) -> Any:
    """Fix an open batch at 1 and reserve the memory of the graph."""
    for detail in interpreter.get_input_details():
        shape = tuple(int(size) for size in detail["shape"])
        if len(shape) == 4 and shape[0] != 1 and tuple(detail["shape_signature"])[:1] == (-1,):
            interpreter.resize_tensor_input(detail["index"], (1, *shape[1:]))
    interpreter.allocate_tensors()
    return interpreter


def is_announcement(line: bytes) -> bool:
    """Tell whether a native line only says what was loaded, like LiteRT's at every XNNPACK graph."""
    return line.startswith(b"INFO:")


def _loaded(
    module: str, path: Path, num_threads: int, delegate: Callable[[Any], Any] | None, kernels: str | None
) -> LitertEngine:
    with native_chatter_held(is_announcement), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite announces its retirement
        runtime = importlib.import_module(module)
        delegates = [delegate(runtime.load_delegate)] if delegate else None
        interpreter = runtime.Interpreter(
            model_path=str(path), num_threads=num_threads, experimental_delegates=delegates
        )
        allocated(interpreter)
        return LitertEngine(interpreter, kernels or _kernels(interpreter))


def _kernels(interpreter: Any) -> str:
    """Say who computes the graph; results differ by a few units between the two (docs/adr/0001)."""
    # A private method, the only place that tells; without it claim nothing.
    nodes: list[dict[str, Any]] = getattr(interpreter, "_get_ops_details", list)()
    return "xnnpack" if any(node["op_name"] == XNNPACK_NODE for node in nodes) else "plain"


def _port(detail: dict[str, Any]) -> Port:
    scales = tuple(float(s) for s in detail["quantization_parameters"]["scales"])
    return Port(
        name=str(detail["name"]),
        shape=tuple(int(n) for n in detail["shape"]),
        signature=tuple(int(n) for n in detail["shape_signature"]),
        dtype=np.dtype(detail["dtype"]).name,
        scales=scales,
        zero_point=int(detail["quantization_parameters"]["zero_points"][0]) if scales else 0,
    )


def _refusal(path: Path, reason: str) -> str:
    custom = re.search(r"unresolved custom op: ([\w.:-]+?)\.?(\s|$)", reason)
    if custom:
        return f"{path.name} needs the operation {custom[1]!r}, which is not standard: use a file without it"
    return f"{path.name} cannot be loaded ({reason}): download or export it again"
