"""Runs Google's `edgetpu_compiler` where it is installed, and reads what it prints.

The form of its output is documented at coral.ai/docs/edgetpu/compiler and the same in versions 2 to 16. The
compiler is x86-64 only, has its own terms, and comes from Google's Debian repository, never from the Python
index.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from edge_cl.errors import EngineError, StoreError
from edge_cl.vision.files import one_line

NAME = "edgetpu_compiler"
TIMEOUT_S = 200.0  # its own timer stops it after 180
GRACE_S = 5.0  # for a killed process to be gone
MAX_LOG_BYTES = 1 << 20  # a line for each operation; real logs have kilobytes
INSTALL_HINT = "install it as docs/hardware.md says, or go by the static check"

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
ON_CHIP = "On-chip memory used for caching model parameters"
ON_CHIP_LEFT = "On-chip memory remaining for caching model parameters"
OFF_CHIP = "Off-chip memory used for streaming uncached model parameters"
VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
COUNTED = re.compile(r"^Number of Edge TPU subgraphs: (\d{1,9})\s*$", re.MULTILINE)
ROW = re.compile(r"^([A-Za-z][\w-]*) {2,}(\d{1,9}) {2,}(\S.*?)\s*$", re.MULTILINE)
COMPLAINT = re.compile(
    r"^(?:ERROR: .+|Invalid model: .+|Model not quantized.*|.*could not be parsed.*|Internal compiler error.*"
    r"|Compilation failed.*)$",
    re.MULTILINE,
)


class Report(NamedTuple):
    """What the compiler said.

    Attributes:
        version: of the compiler.
        on_chip_bytes: of parameters that stay on the chip.
        on_chip_left_bytes: room that is left for more.
        off_chip_bytes: of parameters that are streamed at each inference.
        subgraphs: parts for the Edge TPU; 0 when nothing was mapped.
        rows: how often each (operation, status) occurs.
    """

    version: str
    on_chip_bytes: int
    on_chip_left_bytes: int
    off_chip_bytes: int
    subgraphs: int
    rows: dict[tuple[str, str], int]


class Compilation(NamedTuple):
    """The compiler's report, and the compiled file."""

    report: Report
    model: bytes


def find_compiler() -> Path:
    """Return the compiler on the PATH.

    Raises:
        EngineError: there is none.
    """
    found = shutil.which(NAME)
    if found is None:
        raise EngineError(f"{NAME} is not on the PATH: {INSTALL_HINT}")
    return Path(found)


def compile_model(data: bytes, timeout_s: float = TIMEOUT_S) -> Compilation:
    """Compile a quantised TFLite file for the Edge TPU.

    Raises:
        EngineError: no compiler here, it refused the file, took too long, crashed, or said nothing readable.
        StoreError: no room for temporary files.
    """
    program = find_compiler()
    try:
        with TemporaryDirectory(prefix="edgetpu-") as folder:
            return _compiled(program, data, Path(folder), timeout_s)
    except OSError as error:
        raise StoreError(f"no room to compile in ({one_line(error)}): free some space") from error


def _compiled(program: Path, data: bytes, folder: Path, timeout_s: float) -> Compilation:
    source, out = folder / "model.tflite", folder / "out"
    out.mkdir()
    source.write_bytes(data)
    said = _run([str(program), "-s", "-o", str(out), str(source)], folder, timeout_s)
    compiled, log = out / "model_edgetpu.tflite", out / "model_edgetpu.log"
    report = read_log(said if ROW.search(said) else said + "\n" + _start_of(log))
    if not compiled.is_file():
        raise EngineError(f"{NAME} left no compiled file: {_complaint(said)}")
    return Compilation(report, compiled.read_bytes())


def read_log(text: str) -> Report:
    """Read what the compiler printed, with or without the table of operations.

    Raises:
        EngineError: it says that the compilation failed, or is not the output of this compiler.
    """
    version = VERSION.search(text)
    if version is None:
        raise EngineError(f"{NAME} printed nothing that can be read ({one_line(text[:200]) or 'nothing'})")
    on_chip, left, off_chip = (_size(text, words) for words in (ON_CHIP, ON_CHIP_LEFT, OFF_CHIP))
    counted = COUNTED.search(text)
    if counted is None or on_chip is None or left is None or off_chip is None:
        raise EngineError(f"{NAME} refused the file: {_complaint(text)}")
    return Report(version[1], on_chip, left, off_chip, int(counted[1]), _rows(text))


def _rows(text: str) -> dict[tuple[str, str], int]:
    rows: dict[tuple[str, str], int] = {}
    for name, count, status in ROW.findall(text):
        rows[name, status] = rows.get((name, status), 0) + int(count)
    return rows


def _run(command: list[str], folder: Path, timeout_s: float) -> str:
    """Run to the end or to the time limit; the compiler's own children end with it."""
    with (folder / "said").open("w+b") as said:  # a file: a child that lives on cannot hold a pipe open
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, cwd=folder,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EngineError(f"{NAME} does not start ({one_line(error)}): {INSTALL_HINT}") from error
        status = _wait(process, timeout_s)
        text = _text(said)
    if status < 0:
        raise EngineError(f"{NAME} was ended by signal {-status}: {_complaint(text)}")
    return text


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"{NAME} took more than {timeout_s:g} s and was stopped: try a smaller model"
        ) from error
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # its session: nothing else is in that group
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


def _start_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _text(file)
    except OSError:
        return ""


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(MAX_LOG_BYTES).decode("utf-8", "replace")


def _size(text: str, words: str) -> int | None:
    found = re.search(rf"^{words}: (\d{{1,9}}(?:\.\d{{1,9}})?)([KMG]i)?B\s*$", text, re.MULTILINE)
    return round(float(found[1]) * UNITS[f"{found[2] or ''}B"]) if found else None


def _complaint(text: str) -> str:
    lines = COMPLAINT.findall(text)
    return (
        one_line("; ".join(dict.fromkeys(line.strip() for line in lines))) if lines else "it gave no reason"
    )
