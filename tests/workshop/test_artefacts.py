"""A result is there whole under its name, or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_cl.errors import ConfigError, StoreError
from host_trainer.artefacts import make_folder, staged_folder, write_file


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_its_block_ends_well(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with staged_folder(final) as part:
        (part / "a").write_text("1")
        assert not final.exists()
    assert (final / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [final]


def test_nothing_is_left_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "out") as part:
        (part / "a").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_old_folder_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with staged_folder(final) as part:
        (part / "a").write_text("old")
    with pytest.raises(RuntimeError), staged_folder(final, overwrite=True) as part:
        raise RuntimeError
    assert (final / "a").read_text() == "old"
    with staged_folder(final, overwrite=True) as part:
        (part / "a").write_text("new")
    assert (final / "a").read_text() == "new"
    with pytest.raises(ConfigError, match="is there already"), staged_folder(final):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(StoreError, match="cannot be written"), staged_folder(tmp_path / "file" / "below"):
        pass
    with pytest.raises(StoreError, match="cannot be written"):
        write_file(tmp_path / "missing" / "file", b"")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    code = f"""
import resource, signal
from pathlib import Path
from edge_cl.errors import StoreError
from host_trainer.artefacts import write_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(Path({str(path)!r}), bytes(5000))
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "check space" in done.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_is_killed_leaves_only_what_was_whole(tmp_path: Path) -> None:
    final = tmp_path / "out"
    code = f"""
from pathlib import Path
from host_trainer.artefacts import staged_folder
for number in range(10**6):
    with staged_folder(Path({str(final)!r}), overwrite=True) as part:
        for name in ("a", "b", "c"):
            (part / name).write_text(str(number))
    print(number, flush=True)
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if final.exists():  # between two renames the name may be free for a moment
            assert len({(final / name).read_text() for name in ("a", "b", "c")}) == 1
