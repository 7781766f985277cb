"""The command `host-trainer`, run as people run it."""

import json
import subprocess
import sys
from pathlib import Path

from edge_cl import __version__
from host_trainer.doctor import PARTS, Finding, advice

ROOT = Path(__file__).parents[1]
MAIN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from host_trainer.cli import main; main()"


def host_trainer(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", MAIN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_says_its_version() -> None:
    done = host_trainer("--version")
    assert (done.returncode, done.stdout) == (0, f"host-trainer {__version__}\n")


def test_doctor_prints_one_json_object_naming_every_part() -> None:
    done = host_trainer("doctor", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["parts"]) == [part.module for part in PARTS]
    missing = [name for name, version in report["parts"].items() if version is None]
    assert all(any(name.replace("_", "-") in line for line in report["advice"]) for name in missing)


def test_doctor_says_the_versions_that_are_installed() -> None:
    report = json.loads(host_trainer("doctor", "--json").stdout)
    code = "from importlib.metadata import version; print(version('ai-edge-litert'))"
    installed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert report["parts"]["ai_edge_litert"] == installed.stdout.strip()


def test_doctor_speaks_to_people_too() -> None:
    done = host_trainer("doctor")
    assert done.returncode == 0
    assert all(part.module in done.stdout for part in PARTS)
    assert "GPU:" in done.stdout


def test_an_unknown_command_is_bad_usage() -> None:
    done = host_trainer("bogus")
    assert done.returncode == 2
    assert "bogus" in done.stderr


def test_without_the_host_extra_one_line_says_what_to_install() -> None:
    done = host_trainer("doctor", options=("-S",))  # -S: Python without what is installed beside it
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'edge-cl[host]'" in done.stderr


def test_advice_names_what_is_missing_and_only_that() -> None:
    findings = [Finding(part, None if part.module == "onnx" else "1.0") for part in PARTS]
    assert advice(findings, ["a GPU"]) == ["pip install onnx  # the export for Jetson boards"]


def test_a_workshop_without_gpu_is_told_what_that_means() -> None:
    complete = [Finding(part, "1.0") for part in PARTS]
    assert advice(complete, ["a GPU"]) == []
    assert "CPU" in advice(complete, [])[0]
