"""A stand-in for NVIDIA's `tensorrt` that really runs the network, by onnxruntime in a process beside it.

It has the names of TensorRT 8.2 (bindings), 10 (tensors) or 11 (no precision flags), as STANDIN_TENSORRT
says, and none that the version does not have. Python 3.6 and the standard library only. What is to go wrong
is read from the file STANDIN_FAULTS names, when it would; what the builder was told is added to STANDIN_TOLD.
"""

import ctypes
import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

__version__ = os.environ["STANDIN_TENSORRT"]
_MAJOR = int(__version__.split(".")[0])
_MARK = 1 << 62  # of cudart.c

# Runs under the tests' own Python: frames of float32 in, features out, each after its length.
_RUNNER = """
import struct, sys
import numpy, onnxruntime
pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
model = pipe_in.read(struct.unpack("<q", pipe_in.read(8))[0])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
image, feature = session.get_inputs()[0], session.get_outputs()[0]
facts = repr([image.name, image.shape, feature.name, feature.shape]).encode()
pipe_out.write(struct.pack("<q", len(facts)) + facts)
pipe_out.flush()
size = 4 * int(numpy.prod(image.shape))
while True:
    frame = pipe_in.read(size)
    if len(frame) < size:
        break
    pixels = numpy.frombuffer(frame, numpy.float32).reshape(image.shape)
    pipe_out.write(session.run(None, {image.name: pixels})[0].astype(numpy.float32).tobytes())
    pipe_out.flush()
"""


def _faults():
    try:
        return Path(os.environ["STANDIN_FAULTS"]).read_text().split()
    except (KeyError, OSError):
        return []


def _told(**facts):
    with Path(os.environ["STANDIN_TOLD"]).open("a") as file:
        file.write(json.dumps(facts) + "\n")


class _Enumeration(type):
    def __new__(mcs, name, bases, fields):
        made = type.__new__(mcs, name, bases, {})
        for place, each in enumerate(fields.get("names", ())):
            setattr(made, each, _Member(name, each, place))
        return made


class _Member:
    def __init__(self, owner, name, place):
        self.owner, self.name, self.place = owner, name, place

    def __int__(self):
        return self.place

    def __str__(self):
        return self.owner + "." + self.name


class DataType(metaclass=_Enumeration):
    names = ("FLOAT", "HALF", "INT8")


class BuilderFlag(metaclass=_Enumeration):
    names = ("FP16", "INT8", "TF32") if _MAJOR < 11 else ("TF32",)


class NetworkDefinitionCreationFlag(metaclass=_Enumeration):
    names = ("EXPLICIT_BATCH",) if _MAJOR < 11 else ("STRONGLY_TYPED",)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        self.is_ready = True


class Logger(ILogger):
    pass


class Builder:
    platform_has_fast_int8 = os.environ.get("STANDIN_GPU") == "Orin"

    def __init__(self, log):
        assert isinstance(log, ILogger) and log.is_ready  # the real one crashes otherwise
        self._log = log

    def create_network(self, flags):
        assert flags == (1 if _MAJOR < 11 else 0)
        return _Network()

    def create_builder_config(self):
        return _OldConfig() if __version__ < "8.4" and _MAJOR == 8 else _Config()

    def build_serialized_network(self, network, config):
        faults = _faults()
        if "kill-build" in faults:
            os.kill(os.getpid(), signal.SIGKILL)
        if "build" in faults:
            self._log.log(ILogger.ERROR, "[optimizer.cpp] Could not find any implementation\nfor node conv")
            return None
        _told(
            flags=sorted(flag.name for flag in config.flags),
            workspace=config.workspace(),
            version=__version__,
        )
        return _HostMemory(__version__.encode() + b"\0" + network.content)


class _HostMemory(bytes):
    pass


class _Network:
    content = b""


class _Config:
    def __init__(self):
        self.flags, self._limit = [], None

    def set_flag(self, flag):
        assert isinstance(flag, _Member)
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool, size):
        assert pool is MemoryPoolType.WORKSPACE
        self._limit = size

    def workspace(self):
        return self._limit


class _OldConfig:
    max_workspace_size = 0

    def __init__(self):
        self.flags = []

    def set_flag(self, flag):
        self.flags.append(flag)

    def workspace(self):
        return self.max_workspace_size


class MemoryPoolType(metaclass=_Enumeration):
    names = ("WORKSPACE",)


class _ParserError:
    def desc(self):
        return "No importer registered for op: Swish"


class OnnxParser:
    def __init__(self, network, log):
        self._network = network
        self.num_errors = 0

    def parse(self, content):
        if "parse" in _faults():
            self.num_errors = 1
            return False
        self._network.content = content
        return True

    def get_error(self, place):
        return _ParserError()


class Runtime:
    def __init__(self, log):
        assert isinstance(log, ILogger) and log.is_ready
        self._log = log

    def deserialize_cuda_engine(self, data):
        version, _, content = bytes(data).partition(b"\0")
        takes = [__version__] + (_faults() if "takes" in _faults() else [])
        if version.decode() not in takes:
            self._log.log(
                ILogger.ERROR, "The engine plan file is not compatible with this version of TensorRT"
            )
            return None
        return (_OldEngine if _MAJOR == 8 else _Engine)(content)


class _Runner:
    """The process that computes."""

    def __init__(self, content):
        command = [os.environ["STANDIN_PYTHON"], "-I", "-c", _RUNNER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process.stdin.write(struct.pack("<q", len(content)) + content)
        self._process.stdin.flush()
        length = struct.unpack("<q", self._process.stdout.read(8))[0]
        facts = self._process.stdout.read(length).decode()
        name, shape, out_name, out_shape = json.loads(facts.replace("'", '"'))
        self.ports = [(name, tuple(shape), True), (out_name, tuple(out_shape), False)]
        self._sizes = [4 * _product(port[1]) for port in self.ports]

    def run(self, frame, feature):
        faults = _faults()
        if "kill-run" in faults:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in faults:
            time.sleep(60)
        if "refuse" in faults:
            return False
        ctypes.CDLL(os.environ["STANDIN_CUDART"]).standin_flush()
        self._process.stdin.write(ctypes.string_at(frame & ~_MARK, self._sizes[0]))
        self._process.stdin.flush()
        answer = self._process.stdout.read(self._sizes[1])
        ctypes.memmove(feature & ~_MARK, answer, len(answer))
        return True

    def __del__(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _product(sizes):
    product = 1
    for size in sizes:
        product *= size
    return product


class _OldEngine:
    """ICudaEngine of TensorRT 8.2."""

    def __init__(self, content):
        self._runner = _Runner(content)
        self.num_bindings = len(self._runner.ports)

    def get_binding_name(self, place):
        return self._runner.ports[place][0]

    def get_binding_shape(self, place):
        return self._runner.ports[place][1]

    def get_binding_dtype(self, place):
        return DataType.FLOAT

    def binding_is_input(self, place):
        return self._runner.ports[place][2]

    def create_execution_context(self):
        return _OldContext(self._runner)


class _OldContext:
    def __init__(self, runner):
        self._runner = runner

    def execute_async_v2(self, bindings, stream_handle):
        assert stream_handle
        return self._runner.run(*bindings)


class TensorIOMode(metaclass=_Enumeration):
    names = ("NONE", "INPUT", "OUTPUT")


class _Engine:
    """ICudaEngine of TensorRT 10."""

    def __init__(self, content):
        self._runner = _Runner(content)
        self.num_io_tensors = len(self._runner.ports)
        self._by_name = {port[0]: port for port in self._runner.ports}

    def get_tensor_name(self, place):
        return self._runner.ports[place][0]

    def get_tensor_shape(self, name):
        return self._by_name[name][1]

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if self._by_name[name][2] else TensorIOMode.OUTPUT

    def create_execution_context(self):
        return _Context(self._runner)


class _Context:
    def __init__(self, runner):
        self._runner, self._addresses = runner, {}

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        assert stream_handle
        return self._runner.run(*[self._addresses[port[0]] for port in self._runner.ports])


if _MAJOR >= 10:
    del _OldEngine, _OldContext, _OldConfig
else:
    del _Engine, _Context, TensorIOMode
    if __version__ < "8.4":
        del MemoryPoolType
