"""The contract of every command: one JSON object, one line of complaint, exit status, quick to start."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from simulators.workshop import call, ok, process, refused

from edge_cl import errors
from edge_cl.cli import COMMANDS, build_parser

EDGE_CL = [sys.executable, "-m", "edge_cl.cli"]
HEAVY = ("scipy", "sklearn", "tensorflow", "matplotlib", "keras", "jax", "torch", "numba", "pandas", "onnx")
IMPORT_BUDGET_S = 0.150
TIMEOUT_S = 60

# What a person types, {names} filled in; each succeeds on a learner that was taught.
DEVICE_COMMANDS = {
    "init": "init --state {new} --backbone {backbone}",
    "learn": "learn {photos} --state {taught}",
    "predict": "predict {picture} --state {taught}",
    "status": "status --state {taught}",
    "doctor": "doctor --state {taught}",
    "forget": "forget --sample 3 --yes --state {taught}",
    "relabel": "relabel 1 1 --state {taught}",
    "sync": "sync --dry-run --state {taught}",
    "backbone add": "backbone add {backbone} --state {taught}",
    "backbone list": "backbone list --state {taught}",
    "backbone show": "backbone show --state {taught}",
    "backup": "backup {new}.tar --state {taught}",
    "restore": "restore {new}.tar --state {new}",
}


@pytest.fixture
def names(taught: Path, photos: Path, backbone: Path, tmp_path: Path) -> dict[str, Path]:
    new = tmp_path / "new"
    ok("backup", tmp_path / "new.tar", "--state", taught)
    picture = photos / "0" / "01.jpg"
    return {"new": new, "taught": taught, "photos": photos, "picture": picture, "backbone": backbone}


def words_of(command: str, names: dict[str, Path], tmp_path: Path) -> list[str]:
    if command == "backup":
        names = {**names, "new": tmp_path / "another"}
    return DEVICE_COMMANDS[command].format(**names).split()


def test_every_device_command_is_here():
    assert {name.split()[0] for name in DEVICE_COMMANDS} == set(COMMANDS) - {"eval"}


@pytest.mark.parametrize("command", DEVICE_COMMANDS)
def test_a_command_prints_one_object_with_json_and_words_without(command, names, tmp_path):
    said = call(*words_of(command, names, tmp_path), "--json")
    assert said.status == 0 or command == "doctor", said
    assert len(said.out.splitlines()) == 1
    assert isinstance(json.loads(said.out), dict)
    if command in {"init", "backup", "restore", "forget"}:
        return  # can be done only once
    words = call(*words_of(command, names, tmp_path))
    assert words.status == said.status
    assert words.out.strip()
    assert "{" not in words.out


@pytest.mark.parametrize("command", DEVICE_COMMANDS)
def test_a_device_command_imports_nothing_heavy(command, names, tmp_path):
    program = (
        "import sys; from edge_cl.cli import main; status = main(sys.argv[1:]);"
        "print(status, *sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words_of(command, names, tmp_path)],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    status, *imported = done.stderr.splitlines()[-1].split()
    assert status == "0" or command == "doctor", done.stderr
    assert "edge_cl" in imported
    assert set(imported).isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["edge_cl", "edge_cl.cli"])
def test_start_up_is_quick_and_brings_nothing_along(module):
    """Measured inside the process, as the best of five: what others do on this machine is not our cost."""
    program = (
        f"import time; start = time.perf_counter(); import {module};"
        "import sys; print(time.perf_counter() - start, 'numpy' in sys.modules, 'PIL' in sys.modules)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", program], text=True).split() for _ in range(5)]
    assert min(float(run[0]) for run in runs) < IMPORT_BUDGET_S
    assert all(run[1:] == ["False", "False"] for run in runs)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_in_words(command):
    said = process(command, "--help")
    assert said.status == 0
    assert said.out.startswith(f"usage: edge-cl {command}")
    parser = build_parser(command)
    assert parser.format_help()


def test_help_lists_every_command_and_shows_the_way():
    said = process("--help")
    assert said.status == 0
    assert all(re.search(rf"^ +{name} +\w", said.out, re.M) for name in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        [], ["learnt"], ["predict"], ["status", "--no-such"], ["learn", "--views", "9", "x"],
        ["learn", "--threads", "0", "x"], ["init", "--density", "2"], ["init", "--buffer-bytes", "-1"],
        ["init", "--lam", "much"], ["backbone"], ["relabel", "1"], ["forget", "--sample", "one"],
    ],
)  # fmt: skip
def test_bad_usage_ends_with_status_2_and_one_line(words, capfd):
    said = call(*words)
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("edge-cl")


def test_an_error_with_json_is_one_line_on_standard_error_and_nothing_else(tmp_path):
    said = process("status", "--json", "--state", tmp_path / "nothing")
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert "edge-cl init" in said.err


def test_every_error_of_ours_has_its_status():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.exit_status for kind in kinds} == {1, 2}
    assert all((kind.exit_status == 2) == issubclass(kind, errors.InputError) or kind is errors.StoreBusyError
               for kind in kinds)  # fmt: skip


def test_an_error_of_the_program_is_one_line_and_status_1(taught):
    (taught / "learner.db").chmod(0o600)
    for name in ("learner.db", "learner.db-wal", "learner.db-shm"):
        (taught / name).unlink(missing_ok=True)
    (taught / "learner.db").mkdir()
    said = call("status", "--state", taught)
    assert said.status == 1
    assert len(said.err.splitlines()) == 1
    assert "Traceback" not in said.err


def test_the_default_state_is_under_the_xdg_state_home(tmp_path, backbone):
    said = process("init", "--json", XDG_STATE_HOME=str(tmp_path))
    assert json.loads(said.out)["state"] == str(tmp_path / "edge-cl")
    home = process("status", XDG_STATE_HOME="relative", HOME=str(tmp_path))
    assert str(tmp_path / ".local" / "state" / "edge-cl") in home.err


def test_a_reader_that_goes_away_is_no_event(taught):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*EDGE_CL, "status", "--state", str(taught)],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT_S,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1


def test_progress_is_drawn_on_a_terminal_and_not_in_a_pipe(state, photos):
    piped = process("learn", photos, "--state", state)
    assert "[" not in piped.err
    parent, child = pty.openpty()
    files = map(str, sorted((photos / "0").iterdir()))
    with subprocess.Popen(
        [*EDGE_CL, "learn", "--label", "mug", *files, "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=child,
    ) as running:
        os.close(child)
        drawn = _drain(parent)
        assert running.wait(TIMEOUT_S) == 0
    assert b"6/6 mug; right before being told" in drawn


def test_a_question_is_asked_on_a_terminal_and_no_means_no(taught):
    parent, child = pty.openpty()
    with subprocess.Popen(
        [*EDGE_CL, "forget", "--label", "0", "--state", str(taught)],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=child,
    ) as running:
        os.close(child)
        os.write(parent, b"n\n")
        said = _drain(parent)
        assert running.wait(TIMEOUT_S) == 2
    assert b"for good? [y/N]" in said
    assert len(ok("status", "--state", taught)["classes"]) == 3
    assert "--yes" in refused("forget", "--label", "0", "--state", taught)  # nobody there to ask


def test_ctrl_c_keeps_what_was_acknowledged_and_the_same_command_carries_on(state, all_photos):
    """The first Ctrl-C stops at the next picture; nothing that was said to be learned is lost."""
    with subprocess.Popen(
        [*EDGE_CL, "learn", str(all_photos), "--state", str(state), "--json", "--verbose"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        running.stderr.readline()  # it is teaching the first class
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=TIMEOUT_S)
    result = json.loads(out)
    assert running.returncode == 130
    assert result["interrupted"]
    rest = ok("learn", all_photos, "--state", state)
    assert rest["skipped"] == result["learned"] > 0
    assert rest["learned"] == 120 - result["learned"]


def test_ctrl_c_while_nothing_is_at_stake_is_one_line(taught):
    with subprocess.Popen(
        [*EDGE_CL, "status", "--state", str(taught)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        _wait_for(running, "numpy")  # before, the interpreter is still starting: it would answer itself
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode in (130, 0)  # during or after the work
    assert running.returncode != 130 or len(err.splitlines()) == 1


def _wait_for(running: subprocess.Popen, library: str) -> None:
    """Return once a process has loaded a library, or has ended."""
    maps = Path(f"/proc/{running.pid}/maps")
    with contextlib.suppress(OSError):  # it has ended while we looked
        while running.poll() is None and library not in maps.read_text():
            time.sleep(0.001)


def _drain(descriptor: int) -> bytes:
    """Read a terminal until its other side is closed."""
    said = b""
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # EIO: closed
            part = b""
        if not part:
            os.close(descriptor)
            return said
        said += part
