"""What runs beside the server is started again when it ends, and ends with the server."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_trainer.server import companion
from host_trainer.server.companion import Companion

PATIENCE_S = 30.0
# Writes its process number, and lives until it is told to end, or for no time at all.
LIVES = (
    "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
)
DIES = "import pathlib, sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LIVES}"


def started(code: str, told: Path, pause_s: float = 0.1) -> tuple[threading.Event, threading.Thread]:
    stop = threading.Event()
    keeper = Companion([sys.executable, "-c", code, str(told)], pause_s)
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    return stop, thread


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(told: Path) -> bool:
    return (Path("/proc") / told.read_text()).exists()


@pytest.mark.parametrize("code", [LIVES, DEAF], ids=["hears", "deaf"])
def test_it_ends_with_the_server(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "GRACE_S", 0.5)
    told = tmp_path / "told"
    stop, thread = started(code, told)
    until(lambda: told.is_file() and told.read_text() != "")
    assert is_alive(told)
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and not is_alive(told)


def test_one_that_ends_is_started_again_after_a_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = tmp_path / "told"
    stop, thread = started(DIES, told)
    until(lambda: told.is_file() and len(told.read_text()) >= 3)
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert "the worker has ended with status 3: it is started again" in caplog.text
