"""Runs an engine in a child process, so that a native crash or hang cannot take the learner with it.

Pictures and features pass through shared memory without a name (a memfd): whatever dies, in whatever order,
the kernel frees it, and there is nothing to clean up. Commands are lines over a socket pair.
"""

import contextlib
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import EdgeError, EngineError, ModelError
from edge_cl.vision.engines import edgetpu
from edge_cl.vision.files import one_line
from edge_cl.vision.ports import Port, feature_port, image_port

MAX_RESTARTS = 3  # a driver that needs more is not going to recover by itself
RESTART_WINDOW_RUNS = 1000  # counted in runs, not seconds: no clock needed, and a slow camera is judged alike
START_TIMEOUT_S = 60.0  # interpreter and model from a slow SD card take about 5 s on a Pi Zero 2 W
RESTART_PAUSE_S = 1.0  # a USB accelerator is away from its bus for about this long after a crash
RUN_TIMEOUT_S = 20.0  # the slowest backbone that we know takes about 1 s on the slowest board
MAX_REPLY_BYTES = 64 * 1024  # facts of a model with long tensor names
MAX_STDERR_BYTES = 64 * 1024  # kept of what the child says; it lies in memory
STDERR_TAIL_BYTES = 2000  # of it, for an error's message
CACHE_LINE_BYTES = 64
LOG = logging.getLogger(__name__)

# Isolated mode (-I) keeps the current folder out of the child's imports until it has the parent's path.
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge_cl.vision.engines.isolated import serve; serve()"
)


class Worker(NamedTuple):
    """The program that is the child; it speaks the protocol of `serve`.

    Attributes:
        command: what is started; the order follows as one more argument.
        settings: what it is to open, part of the order.
        build_timeout_s: how long it may take after it has said that it builds something first.
    """

    command: tuple[str, ...]
    settings: dict[str, Any]
    build_timeout_s: float = START_TIMEOUT_S


class MissingEngineError(EngineError):
    """The child's Python lacks what the engine needs; another one may have it."""


def is_restarting_too_fast(restarts: Sequence[int], run: int) -> bool:
    """Tell whether one more restart exceeds the budget; `restarts` holds the run numbers of earlier ones."""
    recent = [earlier for earlier in restarts if run - earlier < RESTART_WINDOW_RUNS]
    return len(recent) >= MAX_RESTARTS


class IsolatedEngine:
    """An engine in a child process, started again after a crash within a budget.

    Attributes:
        kernels: as the child's engine reports it.
        restarts: run numbers at which the child was started again.
    """

    def __init__(
        self,
        path: Path,
        num_threads: int = 1,
        delegate: str | None = None,
        run_timeout_s: float = RUN_TIMEOUT_S,
        start_timeout_s: float = START_TIMEOUT_S,
        worker: Worker | None = None,
    ) -> None:
        self._path, self._identity = path.absolute(), _file_identity(path)
        self._worker = worker or _own_worker(self._path, num_threads, delegate)
        self._run_timeout_s, self._start_timeout_s = run_timeout_s, start_timeout_s
        self.restarts: list[int] = []
        self._runs = 0
        self._dead_because: str | None = None
        try:
            self._child = _Child(self._worker, start_timeout_s, run_timeout_s)
        except _ChildDiedError as error:
            raise EngineError(f"the isolated engine {error}: try it without isolation to see more") from error
        self.kernels, self.inputs, self.outputs = self._child.kernels, self._child.inputs, self._child.outputs

    @property
    def pid(self) -> int:
        """Process id of the child that runs at present."""
        return self._child.pid

    def run(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the first output, flattened; a crash is retried with a new child until the budget is spent.

        Raises:
            EngineError: the child crashed or hung more often than the budget allows.
        """
        if self._dead_because:
            raise EngineError(f"{self._dead_because}: open the backbone again")
        self._runs += 1
        while True:
            try:
                return self._child.run(pixels, self._run_timeout_s)
            except _ChildDiedError as error:
                self._restart(error)

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _restart(self, death: Exception) -> None:
        """Start a new child; one that cannot start, its accelerator still coming back, spends budget too."""
        self._child.close()
        while not is_restarting_too_fast(self.restarts, self._runs):
            self.restarts.append(self._runs)
            try:
                self._child = self._same_child()
            except ModelError as error:
                death = error
                break
            except (_ChildDiedError, EngineError) as error:
                death = error
                threading.Event().wait(RESTART_PAUSE_S)
            else:
                return
        self._dead_because = f"the isolated engine {death} after {len(self.restarts)} restarts"
        raise EngineError(f"{self._dead_because}: check the accelerator") from death

    def _same_child(self) -> "_Child":
        if _file_identity(self._path) != self._identity:
            raise ModelError("found another model file")
        child = _Child(self._worker, self._start_timeout_s, self._run_timeout_s)
        if (child.kernels, child.inputs, child.outputs) != (self.kernels, self.inputs, self.outputs):
            child.close()
            raise ModelError("found other kernels")
        return child


class _ChildDiedError(Exception):
    """The child crashed, hung or closed its end; the message is a verb phrase."""


class _Child:
    """One child process: its socket, its shared memory, what it said on standard error."""

    def __init__(self, worker: Worker, start_timeout_s: float, run_timeout_s: float) -> None:
        self._memory_fd, self._stderr_fd = (
            _anonymous_file("edge-cl-frames"),
            _anonymous_file("edge-cl-stderr"),
        )
        self._socket, theirs = socket.socketpair()
        self._memory: mmap.mmap | None = None
        self._is_waiting = False
        self._unread = b""  # lines that came together with the one that was waited for
        order = json.dumps({**worker.settings, "memory_fd": self._memory_fd, "socket_fd": theirs.fileno(),
                            "alarm_s": 2 * run_timeout_s})  # fmt: skip
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*worker.command, order],
                    stdin=subprocess.DEVNULL,
                    stdout=self._stderr_fd,
                    stderr=self._stderr_fd,
                    pass_fds=(self._memory_fd, theirs.fileno()),
                    start_new_session=True,  # Ctrl-C is for the parent, which may still finish its picture
                )
        except OSError as error:
            self._release()
            raise EngineError(f"the isolated engine cannot be started: {one_line(error)}") from error
        self.pid = self._process.pid
        self._greet(start_timeout_s, worker.build_timeout_s)

    def run(self, pixels: NDArray[Any], timeout_s: float) -> NDArray[Any]:
        if self._memory is None:
            raise RuntimeError("run: the engine is closed")
        if self._is_waiting:  # an interrupt left an answer on its way, which is not for this picture
            raise _ChildDiedError("was interrupted")
        self._frame[...] = pixels
        self._is_waiting = True
        reply = self._ask(b"run\n", timeout_s)
        self._is_waiting = False
        if reply != "done":
            raise EngineError(json.loads(reply)["message"])
        return self._feature.copy()

    def close(self) -> None:
        if self._memory is None:
            return
        self._kill()
        self._release()

    def _greet(self, timeout_s: float, build_timeout_s: float) -> None:
        try:
            facts = json.loads(self._ask(b"", timeout_s))
            if "progress" in facts:
                LOG.info("the isolated engine is %s; this takes minutes on a small board", facts["progress"])
                facts = json.loads(self._ask(b"", build_timeout_s))
        except _ChildDiedError as error:
            self._kill()
            self._release()
            raise _ChildDiedError(f"{error} while it loaded the backbone") from error
        if "error" in facts:
            self._kill()
            self._release()
            raise _refusal(facts)
        if facts.get("note"):
            LOG.warning("%s", facts["note"])
        self.kernels = str(facts["kernels"])
        self.inputs, self.outputs = _ports(facts["inputs"]), _ports(facts["outputs"])
        self._memory = mmap.mmap(self._memory_fd, os.fstat(self._memory_fd).st_size)
        self._frame, self._feature = _arrays(self._memory, self.inputs[0], self.outputs[0])

    def _ask(self, command: bytes, timeout_s: float) -> str:
        """Send a command and wait for one line."""
        self._socket.settimeout(timeout_s)
        reply = self._unread
        try:
            with contextlib.suppress(BrokenPipeError):  # what it said before it went is still to be read
                self._socket.sendall(command)
            while b"\n" not in reply and len(reply) < MAX_REPLY_BYTES:
                part = self._socket.recv(MAX_REPLY_BYTES)
                if not part:
                    raise _ChildDiedError(self._cause_of_death())
                reply += part
        except TimeoutError as error:
            raise _ChildDiedError(f"did not answer within {timeout_s:g} s") from error
        except OSError as error:
            raise _ChildDiedError(self._cause_of_death()) from error
        if os.fstat(self._stderr_fd).st_size > MAX_STDERR_BYTES:
            os.ftruncate(self._stderr_fd, 0)
        line, _, self._unread = reply.partition(b"\n")
        return line.decode("utf-8")

    def _cause_of_death(self) -> str:
        try:
            status = self._process.wait(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "closed its end"
        size = os.fstat(self._stderr_fd).st_size
        said = os.pread(self._stderr_fd, STDERR_TAIL_BYTES, max(0, size - STDERR_TAIL_BYTES))
        last = said.replace(b"\0", b"").decode("utf-8", "replace").strip().rpartition("\n")[2]
        how = f"died of {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        return f"{how} ({one_line(last)})" if last else how

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _release(self) -> None:
        """Give back descriptors and memory; the kernel frees the memory with its last user."""
        self._frame = self._feature = np.empty(0)
        self._socket.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        os.close(self._memory_fd)
        os.close(self._stderr_fd)


def _own_worker(path: Path, num_threads: int, delegate: str | None) -> Worker:
    """Return the child that is this Python and this package."""
    settings = {"path": str(path), "num_threads": num_threads, "delegate": delegate}
    return Worker((sys.executable, "-I", "-c", BOOT, json.dumps(sys.path)), settings)


def _refusal(facts: dict[str, Any]) -> EdgeError:
    if facts["error"] == "ModelError":
        return ModelError(facts["message"])
    return (MissingEngineError if facts.get("is_missing") else EngineError)(facts["message"])


def serve() -> None:
    """Be the child: load the backbone, report, then run whatever lies in shared memory until told no more."""
    order = json.loads(sys.argv[2])
    pipe = socket.socket(fileno=order["socket_fd"])
    path = Path(order["path"])
    try:
        engine = edgetpu.open_engine(path, order["num_threads"], order["delegate"])
        picture, answer = image_port(engine.inputs, path.name), feature_port(engine.outputs, path.name)
    except EdgeError as error:
        _reply(pipe, {"error": type(error).__name__, "message": str(error)})
        return
    os.ftruncate(order["memory_fd"], _feature_offset(picture) + _size_bytes(answer))
    frame, feature = _arrays(mmap.mmap(order["memory_fd"], 0), picture, answer)
    _reply(pipe, {"kernels": engine.kernels, "inputs": engine.inputs, "outputs": engine.outputs})
    while pipe.recv(4, socket.MSG_WAITALL) == b"run\n":
        # If the parent is gone and the engine hangs, nobody else would end this process.
        signal.setitimer(signal.ITIMER_REAL, order["alarm_s"])
        try:
            feature[...] = engine.run(frame)
        except EngineError as error:
            _reply(pipe, {"message": str(error)})
        else:
            pipe.sendall(b"done\n")
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(pipe: socket.socket, facts: dict[str, Any]) -> None:
    pipe.sendall(json.dumps(facts).encode("utf-8") + b"\n")


def _ports(facts: list[list[Any]]) -> tuple[Port, ...]:
    return tuple(
        Port(name, tuple(shape), tuple(signature), dtype, tuple(scales), zero_point)
        for name, shape, signature, dtype, scales, zero_point in facts
    )


def _size_bytes(port: Port) -> int:
    return int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize


def _arrays(memory: mmap.mmap, frame: Port, feature: Port) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the two arrays in the shared memory: the picture without its batch, and the flat feature."""
    size = int(np.prod(frame.shape))
    pixels = np.frombuffer(memory, frame.dtype, size).reshape(frame.shape[1:])
    return pixels, np.frombuffer(memory, feature.dtype, int(np.prod(feature.shape)), _feature_offset(frame))


def _feature_offset(frame: Port) -> int:
    """Return where the feature begins: after the picture, at the start of a cache line."""
    return -(-_size_bytes(frame) // CACHE_LINE_BYTES) * CACHE_LINE_BYTES


def _anonymous_file(name: str) -> int:
    """Return a descriptor of memory that has no name and so cannot be left behind."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _file_identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced or rewritten; None when it is not there."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
