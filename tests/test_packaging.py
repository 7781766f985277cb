"""What gets installed: light on every board, never compiled, never TensorFlow, all versions pinned."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import edge_cl
from edge_cl.device import shipped

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
HEAVY = {
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "scipy",
    "scikit-learn",
    "numba",
    "pydantic",
    "torch",
    "pycoral",
}
DEVICE_ALONE = {"numpy", "pillow", "tomli", "ai-edge-litert", "tflite-runtime"}
DEVICE_ALONE |= {"tuf", "urllib3", "securesystemslib"}  # docs/adr/0010
BOARDS = [  # (Python, machine) that the pins must serve
    *(((3, minor), machine) for minor in (10, 11, 12, 13) for machine in ("x86_64", "aarch64")),
    ((3, 11), "armv7l"),
]
# A marker here is one or more simple comparisons joined by `and`; a test holds the files to that.
COMPARISON = re.compile(r"(python_version|platform_machine)\s*(==|!=|<|>=)\s*['\"]([\w.]+)['\"]")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(extra: str | None = None) -> list[str]:
    """Return the requirement lines of the base install, or of an extra with those it is made of."""
    if extra is None:
        return list(project()["dependencies"])
    lines = []
    for line in project()["optional-dependencies"][extra]:
        own = re.fullmatch(r"edge-cl\[([\w,]+)\]", line)
        lines += [found for part in own[1].split(",") for found in requirements(part)] if own else [line]
    return lines


def name_of(line: str) -> str:
    return re.split(r"[\s;<>=!~\[]", line, maxsplit=1)[0].lower().replace("_", "-")


def applies(line: str, python: tuple[int, int], machine: str) -> bool:
    """Tell whether a requirement line counts on a board."""
    marker = line.partition(";")[2]
    return all(_holds(a, b, c, python, machine) for a, b, c in COMPARISON.findall(marker))


def _holds(variable: str, relation: str, value: str, python: tuple[int, int], machine: str) -> bool:
    if variable == "platform_machine":
        return (machine == value) == (relation == "==")
    wanted = tuple(int(part) for part in value.split("."))
    return {"<": python < wanted, ">=": python >= wanted, "==": python == wanted}[relation]


def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_device_asks_for_nothing_heavy() -> None:
    asked = {name_of(line) for line in [*requirements(), *requirements("device")]}
    assert asked <= DEVICE_ALONE
    assert {name_of(line) for extra in ("coral", "jetson") for line in requirements(extra)} <= DEVICE_ALONE


def test_no_extra_names_the_pycoral_that_is_another_project() -> None:
    assert "pycoral" not in {
        name_of(line) for extra in project()["optional-dependencies"] for line in requirements(extra)
    }


def test_every_marker_is_of_the_kind_these_tests_read() -> None:
    for line in [*pins(), *requirements(), *requirements("dev")]:
        marker = line.partition(";")[2]
        assert not COMPARISON.sub("", marker).replace(" and ", "").strip(), line


@pytest.mark.parametrize(("python", "machine"), BOARDS)
def test_each_requirement_has_one_pin_on_each_board(python: tuple[int, int], machine: str) -> None:
    asked = {
        name_of(line) for line in [*requirements(), *requirements("dev")] if applies(line, python, machine)
    }
    pinned = [name_of(line) for line in pins() if applies(line, python, machine)]
    assert asked <= set(pinned)
    assert len(pinned) == len(set(pinned))


def test_pins_are_names_and_versions_only() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", line) for line in pins())


def test_version_and_changelog_agree() -> None:
    assert project()["version"] == edge_cl.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{edge_cl.__version__}]" in changelog


@pytest.mark.parametrize("command", ["edge-cl", "host-trainer"])
def test_each_command_leads_to_a_function(command: str) -> None:
    (point,) = entry_points(group="console_scripts", name=command)
    assert point.value == project()["scripts"][command]
    assert isinstance(point.load(), Callable)  # type: ignore[arg-type]


def test_starting_the_device_imports_nothing_heavy() -> None:
    code = "import sys, edge_cl.cli; edge_cl.cli.build_parser(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"tensorflow", "keras", "scipy", "sklearn", "numba", "pydantic", "ai_edge_litert"}


@pytest.fixture(scope="module")
def index() -> None:
    """Skip aloud where packages cannot be had."""
    probe = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
        "iniconfig",
    ]
    if subprocess.run(probe, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("no package index is reachable: installing cannot be tried")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what is installed: building leaves files behind, and picks up those of the last time."""
    folder = tmp_path / "checkout"
    leave = shutil.ignore_patterns("__pycache__")
    for part in ("edge_cl", "host_trainer", "models"):
        shutil.copytree(ROOT / part, folder / part, ignore=leave)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def install(folder: Path, what: str) -> Path:
    """Install the project with wheels alone into a new environment; return its `bin`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # A compiler that fails: whatever tried to compile would be found out.
    environment = {**os.environ, "CC": "false", "CXX": "false"}
    done = subprocess.run(
        [*pip, "install", "--only-binary", ":all:", "--constraint", str(ROOT / "constraints.txt"), what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def installed(programs: Path) -> set[str]:
    code = "from importlib.metadata import distributions; print(*(d.name for d in distributions()))"
    done = subprocess.run([programs / "python", "-c", code], capture_output=True, text=True, check=True)
    return {name.lower().replace("_", "-") for name in done.stdout.split()}


def shipped_in(programs: Path) -> bytes:
    """Return the backbone that ships as an installed edge-cl finds it, away from this checkout."""
    code = "from edge_cl.device import shipped; print(shipped.find())"
    done = subprocess.run(
        [programs / "python", "-I", "-c", code], capture_output=True, text=True, cwd=programs, check=True
    )
    found = Path(done.stdout.strip())
    assert found.is_relative_to(programs.parent)
    return found.read_bytes()


def make_learner(programs: Path, state: Path) -> "subprocess.CompletedProcess[str]":
    """Run `edge-cl init` as a newcomer does, without naming a backbone."""
    words = [programs / "edge-cl", "init", "--json", "--state", state]
    return subprocess.run(words, capture_output=True, text=True, cwd=programs, check=False)


@pytest.mark.slow
def test_the_base_install_is_small_and_its_command_answers(
    tmp_path: Path, checkout: Path, index: None
) -> None:
    programs = install(tmp_path / "base", str(checkout))
    assert installed(programs) - {"pip", "setuptools"} <= {"edge-cl", "numpy", "pillow", "tomli"}
    done = subprocess.run([programs / "edge-cl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"edge-cl {edge_cl.__version__}\n"
    without = subprocess.run(
        [programs / "host-trainer", "doctor"], capture_output=True, text=True, check=False
    )
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert shipped_in(programs) == (ROOT / "models" / shipped.BACKBONE).read_bytes()
    learner = make_learner(programs, tmp_path / "state")
    assert (learner.returncode, learner.stderr.count("\n")) == (1, 1)
    assert "pip install edge-cl[device]" in learner.stderr


@pytest.mark.slow
def test_the_device_install_brings_an_interpreter_and_nothing_heavy(
    tmp_path: Path, checkout: Path, index: None
) -> None:
    programs = install(tmp_path / "device", f"{checkout}[device]")
    assert not installed(programs) & HEAVY
    doctor = subprocess.run(
        [programs / "edge-cl", "doctor", "--json", "--state", tmp_path / "state"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {each["topic"]: each["verdict"] for each in json.loads(doctor.stdout)["findings"]}
    assert found["interpreter"] == "ok"
    learner = json.loads(make_learner(programs, tmp_path / "state").stdout)
    assert learner["backbone"]["name"] == shipped.BACKBONE
