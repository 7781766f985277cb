"""An engine in a child process may crash, hang or be killed: the learner's process goes on."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import EngineError
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.engines.isolated import (
    MAX_RESTARTS,
    RESTART_WINDOW_RUNS,
    IsolatedEngine,
    is_restarting_too_fast,
)

ABORT, HANG = 0xDE, 0xAD  # commands of plugin.c, in the first byte of a picture


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_an_isolated_backbone_gives_the_same_features_in_the_same_space(
    extractor_path: Path, noise: np.ndarray
) -> None:
    with open_backbone(extractor_path) as here, open_backbone(extractor_path, isolate=True) as there:
        assert there.space == here.space and there.kernels == here.kernels
        for shift in range(5):
            pixels = np.roll(noise, shift, axis=0)
            assert np.array_equal(there.embed(pixels), here.embed(pixels))


@pytest.mark.parametrize("name", ["pretrainedResnet.tflite", "vww_96_int8.tflite"])
def test_float_and_int8_pass_through_shared_memory_unchanged(models_dir: Path, name: str) -> None:
    path = models_dir / "mlperf_tiny" / name
    with open_backbone(path) as here, open_backbone(path, isolate=True) as there:
        pixels = np.random.default_rng(3).integers(0, 256, (*here.input_size, 3), dtype=np.uint8)
        assert np.array_equal(there.embed(pixels), here.embed(pixels))


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_child_killed_between_two_pictures_is_replaced(small_path: Path, deadly: signal.Signals) -> None:
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3).view(np.int8)
    engine = IsolatedEngine(small_path)
    first = engine.run(pixels)
    dead = engine.pid
    os.kill(dead, deadly)
    assert np.array_equal(engine.run(pixels), first)
    assert engine.pid != dead and len(engine.restarts) == 1
    engine.close()


def test_children_killed_in_the_middle_of_their_work_cost_no_picture(
    extractor_path: Path, noise: np.ndarray
) -> None:
    engine = IsolatedEngine(extractor_path)
    expected = engine.run(noise)
    timing = random.Random(5)

    def killer() -> None:
        for _ in range(MAX_RESTARTS):
            before = engine.pid
            time.sleep(timing.uniform(0.02, 0.1))
            os.kill(before, signal.SIGKILL)
            while engine.pid == before:
                time.sleep(0.005)

    thread = threading.Thread(target=killer)
    thread.start()
    while thread.is_alive():
        assert np.array_equal(engine.run(noise), expected)
    thread.join()
    assert len(engine.restarts) == MAX_RESTARTS
    engine.close()


def test_a_native_abort_beyond_the_budget_is_an_engine_error(
    plugin: Path, extractor_path: Path, noise: np.ndarray
) -> None:
    engine = IsolatedEngine(extractor_path, delegate=str(plugin))
    noise[0, 0, 0] = ABORT
    with pytest.raises(EngineError, match=rf"died of SIGABRT after {MAX_RESTARTS} restarts"):
        engine.run(noise)
    assert not is_running(engine.pid)
    noise[0, 0, 0] = 0
    with pytest.raises(EngineError, match="open the backbone again"):
        engine.run(noise)
    engine.close()


def test_a_closed_engine_is_misuse(small_path: Path) -> None:
    engine = IsolatedEngine(small_path)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.run(np.zeros((32, 32, 3), np.int8))


def test_a_file_that_vanished_is_said_at_the_next_restart(small_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(small_path.read_bytes())
    engine = IsolatedEngine(path)
    path.unlink()
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="found another model file after 1 restarts"):
        engine.run(np.zeros((32, 32, 3), np.int8))


def test_a_file_that_changed_is_not_used_for_the_same_features(
    small_path: Path, extractor_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(small_path.read_bytes())
    engine = IsolatedEngine(path)
    path.write_bytes(extractor_path.read_bytes())
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="another model file"):
        engine.run(np.zeros((32, 32, 3), np.int8))


def test_a_cpu_file_of_another_picture_size_cannot_take_over(
    edgetpu_library: Path, compiled_path: Path, small_path: Path, noise: np.ndarray
) -> None:
    noise[0, 0, 0] = ABORT
    options = {"delegate": str(edgetpu_library), "isolate": True, "cpu_file": small_path}
    with open_backbone(compiled_path, **options) as backbone:  # type: ignore[arg-type]
        with pytest.raises(EngineError, match="another size"):
            backbone.embed(noise)


def test_a_native_hang_is_noticed(plugin: Path, extractor_path: Path, noise: np.ndarray) -> None:
    engine = IsolatedEngine(extractor_path, delegate=str(plugin), run_timeout_s=0.3)
    noise[0, 0, 0] = HANG
    with pytest.raises(EngineError, match="did not answer within 0.3 s"):
        engine.run(noise)
    assert not is_running(engine.pid)


def test_beyond_the_budget_the_cpu_file_beside_takes_over(
    edgetpu_library: Path, compiled_path: Path, extractor_path: Path, noise: np.ndarray
) -> None:
    with open_backbone(extractor_path) as cpu:
        cpu_space = cpu.space
        noise[0, 0, 0] = ABORT
        expected = cpu.embed(noise)
    with open_backbone(compiled_path, delegate=str(edgetpu_library), isolate=True) as backbone:
        before = backbone.space
        assert backbone.fallback_reason is None
        assert np.array_equal(backbone.embed(noise), expected)
        assert "SIGABRT" in (backbone.fallback_reason or "")
        # Predictions go on, but whoever learns must see that these are other features.
        assert backbone.space == cpu_space != before


def test_a_plain_file_falls_back_to_itself_without_its_delegate(
    plugin: Path, extractor_path: Path, noise: np.ndarray
) -> None:
    noise[0, 0, 0] = ABORT
    with open_backbone(extractor_path, delegate=str(plugin), isolate=True) as backbone:
        backbone.embed(noise)
        assert backbone.kernels == "xnnpack" and backbone.fallback_reason


def test_without_a_cpu_file_the_error_reaches_the_caller(
    edgetpu_library: Path, compiled_path: Path, tmp_path: Path, noise: np.ndarray
) -> None:
    alone = tmp_path / "alone_edgetpu.tflite"
    alone.write_bytes(compiled_path.read_bytes())
    noise[0, 0, 0] = ABORT
    with open_backbone(alone, delegate=str(edgetpu_library), isolate=True) as backbone:
        with pytest.raises(EngineError, match="SIGABRT"):
            backbone.embed(noise)


def test_a_failure_that_the_engine_reports_is_passed_on_and_costs_no_restart(
    plugin: Path, extractor_path: Path, noise: np.ndarray
) -> None:
    engine = IsolatedEngine(extractor_path, delegate=str(plugin))
    noise[0, 0, 0] = 0xBE
    with pytest.raises(EngineError, match="told to fail"):
        engine.run(noise)
    noise[0, 0, 0] = 0
    assert engine.run(noise).shape == (1024,) and not engine.restarts
    engine.close()


def test_an_interrupted_wait_does_not_give_the_old_answer_to_the_next_picture(
    extractor_path: Path, noise: np.ndarray
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    engine = IsolatedEngine(extractor_path)
    other = np.zeros_like(noise)
    expected = engine.run(other)
    earlier = signal.signal(signal.SIGALRM, interrupt)
    try:
        os.kill(engine.pid, signal.SIGSTOP)  # so that the wait is long enough to be interrupted
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            engine.run(noise)
    finally:
        signal.signal(signal.SIGALRM, earlier)
    os.kill(engine.pid, signal.SIGCONT)
    assert np.array_equal(engine.run(other), expected)
    engine.close()


def test_crashes_and_closing_leave_nothing_open(small_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.int8)
    before = open_files()
    for _ in range(3):
        engine = IsolatedEngine(small_path)
        os.kill(engine.pid, signal.SIGKILL)
        engine.run(pixels)
        child = engine.pid
        engine.close()
        engine.close()
        assert not is_running(child)
    assert open_files() == before


def test_a_model_that_is_refused_leaves_nothing_open(models_dir: Path) -> None:
    before = open_files()
    with pytest.raises(Exception, match="fake-op-double"):
        IsolatedEngine(models_dir / "coral" / "model_invoking_error.tflite")
    assert open_files() == before


def test_the_child_ends_when_its_parent_is_killed(small_path: Path) -> None:
    script = (
        "import time\n"
        "from pathlib import Path\n"
        "from edge_cl.vision.engines.isolated import IsolatedEngine\n"
        f"print(IsolatedEngine(Path({str(small_path)!r})).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not is_running(child):
            break
        time.sleep(0.02)
    assert not is_running(child)


def test_the_parent_that_never_closes_ends_without_a_word(small_path: Path) -> None:
    script = (
        "from edge_cl.vision.backbone import open_backbone\n"
        f"backbone = open_backbone({str(small_path)!r}, isolate=True)\n"
        "print('done')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


def test_the_current_folder_cannot_slip_code_into_the_child(small_path: Path, tmp_path: Path) -> None:
    for name in ("json", "numpy", "signal", "edge_cl"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')\n")
    script = tmp_path / "bin" / "run.py"
    script.parent.mkdir()
    script.write_text(
        "from edge_cl.vision.backbone import open_backbone\n"
        f"print(open_backbone({str(small_path)!r}, isolate=True).space.size)"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout == "10\n"


@given(st.lists(st.integers(1, 5000), max_size=8), st.integers(1, 6000))
def test_the_budget_counts_only_recent_restarts(earlier: list[int], run: int) -> None:
    restarts = sorted(one for one in earlier if one <= run)
    recent = [one for one in restarts if run - one < RESTART_WINDOW_RUNS]
    assert is_restarting_too_fast(restarts, run) == (len(recent) >= MAX_RESTARTS)
    assert not is_restarting_too_fast(restarts, run + RESTART_WINDOW_RUNS)
