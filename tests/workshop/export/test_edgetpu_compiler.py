"""The Edge TPU compiler's program and its log; a stand-in prints what the real one prints.

The real compiler is not on this machine: what is proven here is the reading of its documented output, the
time limit, and that nothing of a failing program gets past one line.
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import EngineError, StoreError
from host_trainer.export.edgetpu import compiler
from host_trainer.export.edgetpu.compiler import compile_model, find_compiler, read_log
from host_trainer.export.edgetpu.mapping import MAPPED, ONE_PART

SAID = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1354 ms.

Input model: model.tflite
Input size: 5.10MiB
Output model: out/model_edgetpu.tflite
Output size: 6.28MiB
On-chip memory used for caching model parameters: 6.03MiB
On-chip memory remaining for caching model parameters: 21.75KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 33
Operation log: out/model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model \
will instead run on the CPU, which is slower. If possible, consider updating your model to use only \
operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 30
Number of operations that will run on CPU: 3
"""
TABLE = """
Operator                       Count      Status

CONV_2D                        29         Mapped to Edge TPU
CONV_2D                        1          More than one subgraph is not supported
DEQUANTIZE                     2          Operation is working on an unsupported data type
QUANTIZE                       1          Mapped to Edge TPU
"""
DONE = "Compilation child process completed within timeout period.\nCompilation succeeded! \n"
FAILED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has \
dynamic-sized tensors.
Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite \
interpreter.
Compilation child process completed within timeout period.
Compilation failed!
"""
REFUSED = "Edge TPU Compiler version 15.0.340273435\nInvalid model: model.tflite\nModel not quantized\n"
CRASHED = "Edge TPU Compiler version 14.1.317412892\n\nInternal compiler error. Aborting!\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program of that name on the PATH, with the given lines of shell as its body."""

    def put(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "edgetpu_compiler"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return program

    return put


def prints(text: str, folder: Path, name: str) -> str:
    """Return the line of shell that prints a text."""
    (folder / name).write_text(text)
    return f"cat {folder / name}"


def makes_the_file(content: str = "compiled") -> str:
    """Return the line of shell that writes the compiled file where `-s -o OUT MODEL` says."""
    return f'[ "$1" = -s ] && [ "$2" = -o ] && [ -f "$4" ] && printf {content} > "$3/model_edgetpu.tflite"'


def test_the_documented_output_is_read_whole() -> None:
    report = read_log(SAID + TABLE + DONE)
    assert report.version == "16.0.384591198"
    assert report.on_chip_bytes == round(6.03 * 2**20)
    assert report.on_chip_left_bytes == round(21.75 * 2**10)
    assert (report.off_chip_bytes, report.subgraphs) == (0, 1)
    assert report.rows == {
        ("CONV_2D", MAPPED): 29,
        ("CONV_2D", ONE_PART): 1,
        ("DEQUANTIZE", "Operation is working on an unsupported data type"): 2,
        ("QUANTIZE", MAPPED): 1,
    }


def test_without_its_table_the_rest_is_read() -> None:
    assert read_log(SAID).rows == {}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (FAILED, "dynamic-sized tensors"),
        (REFUSED, "Model not quantized"),
        (CRASHED, "Internal compiler error"),
        ("Edge TPU Compiler version 16.0\n", "no reason"),
        ("usage: something else", "nothing that can be read"),
        ("", "nothing that can be read"),
    ],
)
def test_a_failure_is_one_line_with_the_compilers_reason(said: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason) as caught:
        read_log(said)
    assert "\n" not in str(caught.value)


@settings(max_examples=40)
@given(st.text(max_size=300), st.integers(0, len(SAID)))
def test_any_text_is_a_report_or_an_engine_error(text: str, cut: int) -> None:
    for said in (text, SAID[:cut] + text + SAID[cut:], SAID[:cut]):
        try:
            read_log(said)
        except EngineError as error:
            assert "\n" not in str(error)


def test_the_program_is_run_and_its_file_brought_back(install, tmp_path: Path) -> None:
    install(f"{prints(SAID + TABLE, tmp_path, 'said')}; {makes_the_file()}")
    report, model = compile_model(b"anything")
    assert model == b"compiled"
    assert report.rows[("CONV_2D", MAPPED)] == 29


def test_a_table_that_is_only_in_the_log_file_is_found(install, tmp_path: Path) -> None:
    log = f'{prints(TABLE, tmp_path, "table")} > "$3/model_edgetpu.log"'
    install(f"{prints(SAID, tmp_path, 'said')}; {log}; {makes_the_file()}")
    assert compile_model(b"anything").report.rows[("QUANTIZE", MAPPED)] == 1


def test_a_refused_model_is_an_engine_error_with_the_reason(install, tmp_path: Path) -> None:
    install(f"{prints(FAILED, tmp_path, 'said')} >&2; exit 1")
    with pytest.raises(EngineError, match="static-sized"):
        compile_model(b"anything")


def test_a_compiler_that_says_success_but_leaves_no_file_is_not_believed(install, tmp_path: Path) -> None:
    install(prints(SAID + TABLE, tmp_path, "said"))
    with pytest.raises(EngineError, match="no compiled file"):
        compile_model(b"anything")


def test_a_compiler_that_hangs_is_stopped_with_its_children(install, tmp_path: Path) -> None:
    install(f"sleep 600 & echo $! > {tmp_path / 'child'}; wait")
    with pytest.raises(EngineError, match="took more than 1 s"):
        compile_model(b"anything", timeout_s=1.0)
    child = int((tmp_path / "child").read_text())
    assert _is_gone(child)


def test_a_child_that_outlives_the_compiler_holds_nobody_up(install, tmp_path: Path) -> None:
    install(f"{prints(SAID + TABLE, tmp_path, 'said')}; {makes_the_file()}; sleep 600 &")
    assert compile_model(b"anything", timeout_s=60.0).model == b"compiled"


def test_a_compiler_that_dies_by_a_signal_is_one_line(install) -> None:
    install("kill -SEGV $$")
    with pytest.raises(EngineError, match=f"signal {int(signal.SIGSEGV)}"):
        compile_model(b"anything")


def test_a_full_disk_is_one_line(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("exit 0")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full")
    with pytest.raises(StoreError, match="no room"):
        compile_model(b"anything")


def test_a_program_that_cannot_start_is_one_line(install) -> None:
    install("").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(EngineError, match="does not start"):
        compile_model(b"anything")


def test_a_flood_of_words_is_cut(install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MAX_LOG_BYTES", 1000)
    install("yes nonsense | head -c 1000000")
    with pytest.raises(EngineError, match="nothing that can be read"):
        compile_model(b"anything")


def test_without_a_compiler_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (find_compiler, lambda: compile_model(b"anything")):
        with pytest.raises(EngineError, match="not on the PATH"):
            ask()


def _is_gone(process: int) -> bool:
    """Tell whether a process has ended; the kernel may need a moment to take it away."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
