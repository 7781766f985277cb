"""A person at the workshop's command line: `host-trainer`, in this process or in one of its own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

from host_trainer.cli import main


class Said(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        return json.loads(self.out)


def call(*words: object) -> Said:
    """Run `host-trainer` in this process; TensorFlow is loaded once for all."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["host-trainer", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                status: Any = 0
            except SystemExit as stop:
                status = stop.code or 0
    finally:
        sys.argv = before
    return Said(int(status), out.getvalue(), err.getvalue())


def ok(*words: object) -> dict[str, Any]:
    """Run `host-trainer` in this process with --json; it has to succeed."""
    said = call(*words, "--json")
    assert said.status == 0, said
    return said.json


def refused(*words: object) -> str:
    """Run `host-trainer` in this process; it has to end with status 2 and one line, which is returned."""
    said = call(*words)
    assert said.status == 2, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    return said.err


def started(*words: object, **environment: str) -> subprocess.Popen[str]:
    """Start `host-trainer` in a process of its own that hears Ctrl-C, wherever the tests run.

    A shell starts what it puts in the background deaf to it, and children inherit that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "host_trainer.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
