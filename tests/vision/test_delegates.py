"""Delegates are loaded by the runtime itself; what is absent is said in one line, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_cl.errors import EngineError, ModelError
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.engines.edgetpu import choose_delegate, coral_devices, library_fault, real_pycoral


def expected(pixels: np.ndarray, size: int) -> np.ndarray:
    """What the test plugin computes."""
    return (int(pixels.sum()) + np.arange(size)).astype(np.uint8)


def run_alone(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("isolate", [False, True])
def test_a_plugin_computes_the_features(
    plugin: Path, extractor_path: Path, noise: np.ndarray, isolate: bool
) -> None:
    noise[0, 0, 0] = 0
    with open_backbone(extractor_path, delegate=str(plugin), isolate=isolate) as backbone:
        assert backbone.kernels == "delegate:testplugin"
        assert np.array_equal(backbone.embed(noise), expected(noise, 1024))
        accelerated = backbone.space.id
    with open_backbone(extractor_path) as backbone:
        assert backbone.space.id != accelerated


@pytest.mark.parametrize("isolate", [False, True])
def test_an_edge_tpu_file_runs_where_the_delegate_is(
    edgetpu_library: Path, compiled_path: Path, noise: np.ndarray, isolate: bool
) -> None:
    noise[0, 0, 0] = 0
    with open_backbone(compiled_path, delegate=str(edgetpu_library), isolate=isolate) as backbone:
        assert backbone.kernels == "delegate:edgetpu" and backbone.space.size == 1024
        assert np.array_equal(backbone.embed(noise), expected(noise, 1024))


def test_the_edge_tpu_is_found_by_its_library_name_and_gets_the_device(
    edgetpu_library: Path, compiled_path: Path
) -> None:
    script = (
        "from edge_cl.vision.backbone import open_backbone\n"
        f"with open_backbone({str(compiled_path)!r}, delegate='edgetpu:usb') as backbone:\n"
        "    print(backbone.kernels)"
    )
    ran = run_alone(script, LD_LIBRARY_PATH=str(edgetpu_library.parent))
    assert ran.returncode == 0 and ran.stdout == "delegate:edgetpu\n"
    assert "PLUGIN device=usb" in ran.stderr


def test_a_delegate_that_finds_no_accelerator_says_so(edgetpu_library: Path, compiled_path: Path) -> None:
    script = (
        "from edge_cl.vision.backbone import open_backbone\n"
        "from edge_cl.errors import EngineError\n"
        f"try: open_backbone({str(compiled_path)!r}, delegate='edgetpu:absent')\n"
        "except EngineError as error: print(error)"
    )
    ran = run_alone(script, LD_LIBRARY_PATH=str(edgetpu_library.parent))
    assert "no accelerator is plugged in" in ran.stdout and ran.stdout.count("\n") == 1
    assert "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr


@pytest.mark.parametrize("isolate", [False, True])
def test_an_absent_delegate_is_one_line_and_prints_nothing(
    compiled_path: Path, extractor_path: Path, isolate: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    cases = [(extractor_path, "/nowhere/libmissing.so")]
    if library_fault("libedgetpu.so.1") is not None:
        cases.append((compiled_path, "edgetpu"))
    for path, delegate in cases:
        with pytest.raises(EngineError, match="is not here") as refusal:
            open_backbone(path, delegate=delegate, isolate=isolate)
        assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_library_that_is_no_delegate_is_named() -> None:
    assert "not a TFLite delegate" in (library_fault("libc.so.6") or "")


def test_a_plain_file_is_not_sent_to_the_edge_tpu(extractor_path: Path) -> None:
    with pytest.raises(ModelError, match="not compiled for the Edge TPU"):
        open_backbone(extractor_path, delegate="edgetpu")


def test_a_delegate_that_fails_while_running_is_an_engine_error(
    plugin: Path, extractor_path: Path, noise: np.ndarray
) -> None:
    noise[0, 0, 0] = 0xBE
    with open_backbone(extractor_path, delegate=str(plugin)) as backbone:
        with pytest.raises(EngineError, match="told to fail"):
            backbone.embed(noise)
        noise[0, 0, 0] = 0
        assert np.array_equal(backbone.embed(noise), expected(noise, 1024))


@pytest.mark.parametrize(
    ("text", "name", "options", "is_edgetpu"),
    [
        ("edgetpu", "edgetpu", {}, True),
        ("edgetpu:usb", "edgetpu", {"device": "usb"}, True),
        ("edgetpu:pci:0", "edgetpu", {"device": "pci:0"}, True),
        ("/opt/libedgetpu.so.1.0", "edgetpu", {}, True),
        ("/opt/libvx_delegate.so", "vx_delegate", {}, False),
    ],
)
def test_the_delegate_option_reads_as_written(
    text: str, name: str, options: dict[str, str], is_edgetpu: bool
) -> None:
    choice = choose_delegate(text)
    assert (choice.name, choice.options, choice.is_edgetpu) == (name, options, is_edgetpu)


# ---- pycoral


def write_pycoral(folder: Path, body: str) -> None:
    (folder / "pycoral" / "utils").mkdir(parents=True)
    (folder / "pycoral" / "__init__.py").write_text("")
    (folder / "pycoral" / "utils" / "__init__.py").write_text("")
    (folder / "pycoral" / "utils" / "edgetpu.py").write_text(body)


def test_real_pycoral_opens_the_file_where_it_is_importable(
    tmp_path: Path, edgetpu_library: Path, compiled_path: Path
) -> None:
    # The signature of Google's make_interpreter, over a real interpreter and the test plugin.
    write_pycoral(
        tmp_path,
        "from ai_edge_litert.interpreter import Interpreter, load_delegate\n"
        "def make_interpreter(model_path_or_content, device=None, delegate=None):\n"
        "    print('pycoral', device)\n"
        "    options = {'device': device} if device else {}\n"
        f"    delegate = load_delegate({str(edgetpu_library)!r}, options)\n"
        "    return Interpreter(model_path=model_path_or_content, experimental_delegates=[delegate])\n",
    )
    script = (
        "import numpy as np\n"
        "from edge_cl.vision.backbone import open_backbone\n"
        f"with open_backbone({str(compiled_path)!r}, delegate='edgetpu:pci') as backbone:\n"
        "    print(backbone.kernels, backbone.embed(np.ones((224, 224, 3), np.uint8))[:3])"
    )
    ran = run_alone(script, PYTHONPATH=str(tmp_path))
    assert ran.stdout.splitlines() == ["pycoral pci", "delegate:edgetpu [0 1 2]"]


def test_the_other_project_called_pycoral_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "pycoral").mkdir()
    (tmp_path / "pycoral" / "__init__.py").write_text("")
    script = "from edge_cl.vision.engines.edgetpu import real_pycoral; print(real_pycoral())"
    assert run_alone(script, PYTHONPATH=str(tmp_path)).stdout == "None\n"
    write_pycoral(tmp_path / "broken", "raise ImportError('compiled for another Python')\n")
    assert run_alone(script, PYTHONPATH=str(tmp_path / "broken")).stdout == "None\n"


def test_without_pycoral_nothing_is_pretended() -> None:
    if "pycoral.utils.edgetpu" in sys.modules:
        pytest.skip("pycoral is installed here")
    assert real_pycoral() is None


# ---- devices


def add_device(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_coral_devices_are_told_from_the_kernels_lists(tmp_path: Path) -> None:
    usb, pci = tmp_path / "bus" / "usb" / "devices", tmp_path / "bus" / "pci" / "devices"
    add_device(usb / "1-1", idVendor="1a6e\n", idProduct="089a\n")
    add_device(usb / "2-1", idVendor="18d1\n", idProduct="9302\n")
    add_device(usb / "2-2", idVendor="18d1\n", idProduct="4ee7\n")
    add_device(usb / "usb1")
    add_device(pci / "0000:01:00.0", vendor="0x1ac1\n", device="0x089a\n")
    add_device(pci / "0000:02:00.0", vendor="0x8086\n", device="0x089a\n")
    found = coral_devices(tmp_path)
    assert [(device.bus, device.address) for device in found] == [
        ("usb", "1-1"),
        ("usb", "2-1"),
        ("pci", "0000:01:00.0"),
    ]
    assert "firmware not loaded yet" in found[0].description
    assert coral_devices(tmp_path / "absent") == ()
