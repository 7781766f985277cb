"""An ONNX file runs through TensorRT, old and new, in this process and in a worker under Python 3.6.

No GPU is needed: `tensorrt_standin.py` and `cudart.c` have the names and the strictness of the real ones, and
really compute, by onnxruntime. What only a real board can tell is in docs/hardware.md.
"""

import ctypes
import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from simulators.killer import process_environment

from edge_cl.cli import main
from edge_cl.device.staged import open_staged, settings_of
from edge_cl.errors import ConfigError, EngineError, MismatchError, ModelError
from edge_cl.vision.backbone import Backbone, Manifest, open_backbone, read_model_file
from edge_cl.vision.engines import tensorrt, tensorrt_worker
from edge_cl.vision.engines.isolated import MAX_RESTARTS, IsolatedEngine, Worker
from edge_cl.vision.engines.tensorrt_worker import pack_plan, unpack_plan

onnx = pytest.importorskip("onnx", reason="the tests write an ONNX file")
onnxruntime = pytest.importorskip("onnxruntime", reason="the stand-in for TensorRT computes by onnxruntime")

HERE = Path(__file__).parent
WORKER = Path(tensorrt_worker.__file__)


class Board(NamedTuple):
    """A machine with a stand-in TensorRT: what its Pythons find, and what is to go wrong next."""

    python36: Path | None
    faults: Path
    told: Path
    cache: Path
    cudart: ctypes.CDLL

    def fails(self, *faults: str) -> None:
        self.faults.write_text(" ".join(faults))

    def builds(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.told.read_text().splitlines()] if self.told.exists() else []

    def plans(self) -> list[Path]:
        return sorted(self.cache.glob("*.plan"))


@pytest.fixture(scope="session")
def cudart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here: the stand-in for libcudart cannot be built")
    library = tmp_path_factory.mktemp("cudart") / "libcudart.so"
    source = str(HERE / "cudart.c")
    subprocess.run([compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), source], check=True)
    return library


@pytest.fixture(scope="session")
def python36(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A real Python 3.6 whose packages hold the stand-in; None where there is no Python 3.6."""
    found = [*Path.home().glob(".pyenv/versions/3.6.*/bin/python3.6"), Path("/usr/bin/python3.6")]
    original = next((path for path in found if path.exists()), None)
    if original is None:
        return None
    folder = tmp_path_factory.mktemp("python36")
    subprocess.run([str(original), "-m", "venv", "--without-pip", str(folder)], check=True)
    shutil.copy(HERE / "tensorrt_standin.py", folder / "lib/python3.6/site-packages/tensorrt.py")
    return folder / "bin" / "python3"


@pytest.fixture
def board(
    cudart: Path, python36: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Board]:
    """TensorRT 10 in this Python; the system's Python is out of sight."""
    packages = tmp_path / "packages"
    packages.mkdir()
    shutil.copy(HERE / "tensorrt_standin.py", packages / "tensorrt.py")
    monkeypatch.syspath_prepend(str(packages))
    made = Board(
        python36, tmp_path / "faults", tmp_path / "told", tmp_path / "cache", ctypes.CDLL(str(cudart))
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(cudart.parent))
    monkeypatch.setenv("STANDIN_CUDART", str(cudart))
    monkeypatch.setenv("STANDIN_PYTHON", sys.executable)
    monkeypatch.setenv("STANDIN_TENSORRT", "10.3.0")
    monkeypatch.setenv("STANDIN_FAULTS", str(made.faults))
    monkeypatch.setenv("STANDIN_TOLD", str(made.told))
    monkeypatch.setattr(tensorrt_worker, "CUDART", (str(cudart),))
    monkeypatch.setattr(tensorrt, "SYSTEM_PYTHON", Path("/nowhere/python3"))
    yield made
    sys.modules.pop("tensorrt", None)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolution network, as `host-trainer export` names its parts."""
    path = tmp_path_factory.mktemp("network") / "backbone.onnx"
    return write_network(path, "fp16")


def write_network(path: Path, precision: str, seed: int = 0, size: tuple[int, int] = (16, 12)) -> Path:
    helper, rng = onnx.helper, np.random.default_rng(seed)
    kernel = rng.normal(0, 1, (6, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["maps"], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["lit"]),
        helper.make_node("GlobalAveragePool", ["lit"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["feature"]),
    ]
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [port("image", 1, [1, *size, 3])], [port("feature", 1, [1, 6])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    helper.set_model_props(model, {"edge_cl.precision": precision})
    path.write_bytes(model.SerializeToString())
    return path


def opened(path: Path, board: Board, **options: object) -> Backbone:
    return open_backbone(path, engine_cache=board.cache, **options)  # type: ignore[arg-type]


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, 16, 12, 3), dtype=np.uint8)


def expected(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    real = (-1 + 2 * np.arange(256) / 255.0).astype(np.float32)[pixels]
    return np.concatenate([session.run(None, {"image": picture[np.newaxis]})[0] for picture in real])


def needs_python36(board: Board) -> str:
    if board.python36 is None:
        pytest.skip("no Python 3.6 here: the worker for JetPack 4 is not run")
    return f"tensorrt:{board.python36}"


# --- running


@pytest.mark.parametrize("version", ["8.2.1.9", "8.4.0.6", "10.3.0", "11.4.0"])
@pytest.mark.parametrize("isolate", [False, True])
def test_every_tensorrt_gives_the_features_of_the_file(
    board: Board, network: Path, version: str, isolate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_TENSORRT", version)
    pixels = pictures()
    with opened(network, board, isolate=isolate) as backbone:
        assert np.array_equal(backbone.embed_many(pixels), expected(network, pixels))
        assert backbone.kernels == f"tensorrt:fp16:{version}:NVIDIA-Tegra-X1-5.3"
        assert backbone.space.dtype == "float32" and backbone.space.size == 6
    [told] = board.builds()
    assert told["workspace"] == 512 * 1024 * 1024
    assert told["flags"] == ([] if version.startswith("11") else ["FP16"])


def test_the_worker_of_jetpack_4_runs_under_a_real_python_36(
    board: Board, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = needs_python36(board)
    monkeypatch.setenv("STANDIN_TENSORRT", "8.2.1.9")
    pixels = pictures(20)
    with opened(network, board, delegate=where) as backbone:
        assert np.array_equal(backbone.embed_many(pixels), expected(network, pixels))
        assert backbone.kernels.startswith("tensorrt:fp16:8.2.1.9:")
    with opened(network, board, delegate=where) as backbone:
        assert np.array_equal(backbone.embed_many(pixels), expected(network, pixels))
    assert len(board.builds()) == 1 and len(board.plans()) == 1


def test_the_system_python_is_asked_when_this_one_has_no_tensorrt(
    board: Board, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_python36(board)
    monkeypatch.setenv("STANDIN_TENSORRT", "8.2.1.9")
    (tmp_path / "packages" / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.8 is not here')\n")
    monkeypatch.setattr(tensorrt, "SYSTEM_PYTHON", board.python36)
    with opened(network, board) as backbone:
        assert np.array_equal(backbone.embed(pictures()[0]), expected(network, pictures())[0])


def test_int8_is_built_with_int8_where_the_gpu_has_it(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_network(tmp_path / "int8.onnx", "int8")
    with pytest.raises(ModelError, match="this GPU has no int8: export the fp16 file"):
        opened(path, board)
    sys.modules.pop("tensorrt", None)
    monkeypatch.setenv("STANDIN_GPU", "Orin")
    with opened(path, board) as backbone:
        assert backbone.kernels == "tensorrt:int8:10.3.0:Orin-5.3"
    assert board.builds()[0]["flags"] == ["FP16", "INT8"]


def test_closing_gives_all_memory_back(board: Board, network: Path) -> None:
    before = board.cudart.standin_live()
    for _ in range(3):
        backbone = opened(network, board)
        assert board.cudart.standin_live() > before
        backbone.close()
        backbone.close()
    assert board.cudart.standin_live() == before
    with pytest.raises(RuntimeError, match="closed"):
        backbone.embed(pictures()[0])


# --- the cache


def test_an_engine_is_built_once(board: Board, network: Path) -> None:
    for _ in range(3):
        opened(network, board).close()
    assert len(board.builds()) == 1 and len(board.plans()) == 1


def test_each_file_gpu_and_tensorrt_has_its_own_engine(
    board: Board, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_network(tmp_path / "other.onnx", "fp16", seed=1)
    opened(network, board).close()
    opened(other, board).close()
    monkeypatch.setenv("STANDIN_GPU", "Orin")
    opened(network, board).close()
    sys.modules.pop("tensorrt")
    monkeypatch.setenv("STANDIN_TENSORRT", "10.7.0")
    opened(network, board).close()
    assert len(board.builds()) == 4 and len(board.plans()) == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another layout"])
def test_a_damaged_engine_is_built_anew(board: Board, network: Path, damage: str) -> None:
    opened(network, board).close()
    [path] = board.plans()
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[:-9], "flipped": whole[:-1] + bytes([whole[-1] ^ 1]), "empty": b"",
         "another layout": whole.replace(b'"format": 1', b'"format": 2')}[damage]
    )  # fmt: skip
    with opened(network, board) as backbone:
        assert np.array_equal(backbone.embed(pictures()[0]), expected(network, pictures())[0])
    assert len(board.builds()) == 2 and path.read_bytes() == whole


def test_an_engine_that_tensorrt_does_not_take_is_built_anew(board: Board, network: Path) -> None:
    opened(network, board).close()
    [path] = board.plans()
    kept = unpack_plan(path.read_bytes())
    assert kept is not None
    path.write_bytes(pack_plan(kept._replace(data=b"9.0.0\0nonsense")))
    opened(network, board).close()
    assert len(board.builds()) == 2


def test_the_last_engine_is_used_when_an_upgraded_tensorrt_cannot_build(
    board: Board, network: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(network, board) as backbone:
        before = backbone.space
    sys.modules.pop("tensorrt")
    monkeypatch.setenv("STANDIN_TENSORRT", "10.7.0")
    board.fails("build", "takes", "10.3.0")
    with caplog.at_level(logging.WARNING), opened(network, board) as backbone:
        assert backbone.space == before  # the same engine gives the same features
        assert np.array_equal(backbone.embed(pictures()[0]), expected(network, pictures())[0])
    assert "an earlier engine is used (TensorRT could not build the engine" in caplog.text
    assert len(board.plans()) == 1
    board.fails()
    with opened(network, board) as backbone:
        assert ":10.7.0:" in backbone.kernels
    assert len(board.plans()) == 2


def test_a_failed_build_leaves_the_kept_engines_alone(board: Board, network: Path, tmp_path: Path) -> None:
    opened(network, board).close()
    kept = [path.read_bytes() for path in board.plans()]
    board.fails("build")
    with pytest.raises(EngineError, match=r"Could not find any implementation for node conv") as refusal:
        opened(write_network(tmp_path / "other.onnx", "fp16", seed=1), board)
    assert "\n" not in str(refusal.value)
    assert [path.read_bytes() for path in board.plans()] == kept
    board.fails()
    opened(network, board).close()
    assert len(board.builds()) == 1


def test_old_engines_go_and_the_newest_stay(board: Board, tmp_path: Path) -> None:
    for seed in range(6):
        opened(write_network(tmp_path / "net.onnx", "fp16", seed), board).close()
    numbers = [unpack_plan(path.read_bytes()) for path in board.plans()]
    assert sorted(each.number for each in numbers if each) == [3, 4, 5, 6]
    assert [path.name for path in board.cache.iterdir() if path.suffix == ".part"] == []


def test_two_processes_build_one_engine(board: Board, network: Path) -> None:
    script = (
        "from edge_cl.vision.backbone import open_backbone\n"
        f"open_backbone({str(network)!r}, engine_cache={str(board.cache)!r}).close()"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], env=process_environment()) for _ in range(2)]
    assert [each.wait(timeout=120) for each in both] == [0, 0]
    assert len(board.builds()) == 1


def test_a_cache_that_cannot_be_written_still_gives_an_engine(
    board: Board, network: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorrt_worker.os, "fsync", full)
    with caplog.at_level(logging.WARNING), opened(network, board) as backbone:
        assert np.array_equal(backbone.embed(pictures()[0]), expected(network, pictures())[0])
    assert "No space left on device" in caplog.text and not board.plans()
    assert [path.name for path in board.cache.iterdir()] == [".lock"]


def test_a_cache_folder_that_is_a_file_is_one_line(board: Board, network: Path) -> None:
    board.cache.touch()
    with pytest.raises(EngineError, match="cannot be kept in .*: free space, or look at its rights"):
        opened(network, board)


# --- bad days


def test_a_machine_without_tensorrt_is_told_in_one_line(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("this machine has TensorRT")
    monkeypatch.setattr(tensorrt, "SYSTEM_PYTHON", Path("/nowhere/python3"))
    with pytest.raises(EngineError, match="needs TensorRT, which is not here.*or use the .tflite") as refusal:
        open_backbone(network, engine_cache=tmp_path / "cache")
    assert "\n" not in str(refusal.value) and not (tmp_path / "cache").exists()


def test_a_gpu_without_memory_is_an_engine_error(
    board: Board, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_NO_MEMORY", "1")
    with pytest.raises(EngineError, match=r"backbone.onnx: CUDA failed in cudaMalloc \(2, out of memory\)"):
        opened(network, board, isolate=True)


def test_a_file_that_the_parser_refuses_is_a_model_error(board: Board, network: Path) -> None:
    board.fails("parse")
    for isolate in (False, True):
        with pytest.raises(ModelError, match="backbone.onnx: .*No importer registered for op: Swish"):
            opened(network, board, isolate=isolate)


def test_a_child_killed_between_two_pictures_is_replaced(board: Board, network: Path) -> None:
    engine = engine_of(network, board)
    frame = np.zeros((16, 12, 3), np.float32)
    before = engine.run(frame)
    os.kill(engine.pid, signal.SIGKILL)
    assert np.array_equal(engine.run(frame), before) and len(engine.restarts) == 1
    assert len(board.builds()) == 1  # the new child found the engine in the cache
    engine.close()


def test_children_that_die_while_they_run_end_in_an_engine_error(board: Board, network: Path) -> None:
    engine = engine_of(network, board)
    board.fails("kill-run")
    with pytest.raises(EngineError, match="died of SIGKILL"):
        engine.run(np.zeros((16, 12, 3), np.float32))
    engine.close()


def test_a_child_that_dies_while_it_builds_leaves_no_half_engine(board: Board, network: Path) -> None:
    board.fails("kill-build")
    with pytest.raises(EngineError, match="died of SIGKILL while it loaded"):
        opened(network, board, isolate=True)
    assert not board.plans()
    board.fails()
    opened(network, board, isolate=True).close()  # its lock died with it


class Awaited(subprocess.Popen):
    """A process that has ended when its parent first speaks to it."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.wait()


@pytest.mark.parametrize("kind", [subprocess.Popen, Awaited])
def test_two_lines_that_come_at_once_are_two_lines(
    kind: type[subprocess.Popen], network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import json, os, sys\n"
        "said = [{'progress': 'building'}, {'error': 'ModelError', 'message': 'no such operation'}]\n"
        "lines = ''.join(json.dumps(each) + chr(10) for each in said)\n"
        "os.write(json.loads(sys.argv[1])['socket_fd'], lines.encode())"
    )
    monkeypatch.setattr(subprocess, "Popen", kind)
    with pytest.raises(ModelError, match="^no such operation$"):
        IsolatedEngine(network, worker=Worker((sys.executable, "-c", script), {}))


@pytest.mark.slow
def test_a_gpu_that_hangs_is_noticed(board: Board, network: Path) -> None:
    engine = engine_of(network, board, run_timeout_s=0.5)
    board.fails("hang")
    timer = threading.Timer(1.0, board.fails)  # the restarted child finds a GPU that works again
    timer.start()
    try:
        engine.run(np.zeros((16, 12, 3), np.float32))
    except EngineError as error:
        assert "did not answer within 0.5 s" in str(error)
    assert 1 <= len(engine.restarts) <= MAX_RESTARTS
    timer.join()
    engine.close()


def test_a_run_that_tensorrt_refuses_costs_no_restart(board: Board, network: Path) -> None:
    for isolate in (False, True):
        with opened(network, board, isolate=isolate) as backbone:
            board.fails("refuse")
            with pytest.raises(EngineError, match="could not start the engine"):
                backbone.embed(pictures()[0])
            board.fails()
            assert np.array_equal(backbone.embed(pictures()[0]), expected(network, pictures())[0])


def test_beyond_saving_the_tflite_file_beside_it_takes_over(
    board: Board, tmp_path: Path, small_path: Path
) -> None:
    path = write_network(tmp_path / "net.onnx", "fp16", size=(32, 32))
    shutil.copy(small_path, tmp_path / "net.tflite")
    pixels = np.zeros((32, 32, 3), np.uint8)
    with opened(path, board, isolate=True) as backbone, open_backbone(small_path) as cpu:
        assert np.array_equal(backbone.embed(pixels), expected(path, pixels[np.newaxis])[0])
        before = backbone.space
        board.fails("kill-run")
        assert np.array_equal(backbone.embed(pixels), cpu.embed(pixels))
        assert "SIGKILL" in (backbone.fallback_reason or "") and backbone.space == cpu.space != before


def test_a_file_that_changes_between_check_and_build_is_refused(board: Board, tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.onnx", "fp16")
    facts = read_model_file(path)
    write_network(path, "fp16", seed=1)
    with pytest.raises(ModelError, match="the file changed while it was opened"):
        tensorrt.open_engine(path, facts.sha256, facts.precision, board.cache)


def engine_of(network: Path, board: Board, run_timeout_s: float = 20.0) -> IsolatedEngine:
    facts = read_model_file(network)
    engine = tensorrt.open_engine(network, facts.sha256, facts.precision, board.cache, isolate=True)
    assert isinstance(engine, IsolatedEngine)
    engine._run_timeout_s = run_timeout_s
    return engine


# --- opening


def test_a_manifest_brings_the_same_space_back_and_refuses_another_file(
    board: Board, network: Path, tmp_path: Path
) -> None:
    with opened(network, board, input_range=(0.0, 1.0)) as backbone:
        manifest, space = backbone.manifest(), backbone.space
    assert manifest.format == "onnx" and Manifest.from_json(manifest.to_json()) == manifest
    with opened(network, board, manifest=manifest) as backbone:
        assert backbone.space == space
    with pytest.raises(MismatchError, match="not the file of its manifest"):
        opened(write_network(tmp_path / "other.onnx", "fp16", seed=1), board, manifest=manifest)


def test_an_onnx_file_needs_a_cache_and_takes_no_other_delegate(board: Board, network: Path) -> None:
    with pytest.raises(ConfigError, match="give a folder for the engine"):
        open_backbone(network)
    for delegate in ("edgetpu", "tensorrt:", "libother.so"):
        with pytest.raises(ConfigError, match="an ONNX file runs through TensorRT"):
            opened(network, board, delegate=delegate)


def test_a_python_that_is_not_there_is_one_line(board: Board, network: Path) -> None:
    with pytest.raises(EngineError, match="cannot be started: No such file"):
        opened(network, board, delegate="tensorrt:/nowhere/python3.6")


def test_a_learner_is_made_from_an_onnx_file_and_keeps_its_engine(
    board: Board, network: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    assert main(["init", "--state", str(state), "--backbone", str(network), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["backbone"]["kernels"].startswith("tensorrt:fp16:10.3.0:")
    settings = settings_of(state)
    for _ in range(2):
        with open_staged(state, settings) as backbone:
            assert np.array_equal(backbone.embed(pictures()[0]), expected(network, pictures())[0])
    assert len(board.builds()) == 1 and len(list((state / "engines").glob("*.plan"))) == 1


@pytest.mark.slow
def test_what_the_workshop_exports_runs_with_the_features_of_keras(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras", reason="the workshop's networks need keras")
    from host_trainer.backbones.networks import build, parse_spec
    from host_trainer.export.onnx import export_tensorrt

    model = build(parse_spec("separable:0.25/32"))
    pixels = np.random.default_rng(2).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    monkeypatch.setenv("STANDIN_GPU", "Orin")
    for name, cosine in (("nano", 0.9999), ("orin", 0.99)):
        made = export_tensorrt(model, pixels, tmp_path / name, board=name)
        manifest = Manifest.from_json(made.path.with_suffix(".json").read_text())
        with opened(made.path, board, manifest=manifest) as backbone:
            found = backbone.embed_many(pixels)
        wanted = np.asarray(model((pixels / 127.5 - 1).astype(np.float32)))
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        assert ((found * wanted).sum(axis=1) / lengths).min() > cosine


# --- the worker file


def test_the_worker_needs_the_standard_library_alone() -> None:
    script = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "import tensorrt_worker\n"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}\n"
        "      - set(sys.stdlib_module_names) - {'tensorrt_worker'}))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", script, str(WORKER.parent)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_its_sibling_does_not_hide_the_real_tensorrt(board: Board, tmp_path: Path) -> None:
    where = needs_python36(board).partition(":")[2]
    order = {"sys_path": None, "socket_fd": 1, "memory_fd": -1, "alarm_s": 1,
             "open": [str(tmp_path / "none.onnx"), "0" * 64, "fp16", str(board.cache)]}  # fmt: skip
    ran = subprocess.run(
        [where, "-I", str(WORKER), json.dumps(order)], capture_output=True, text=True, cwd=WORKER.parent
    )
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert said[0] == {"progress": "building"}  # it found the stand-in, and got as far as the file
    assert said[1]["error"] == "ModelError" and "No such file" in said[1]["message"]
    assert ran.stderr == ""
