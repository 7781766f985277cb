"""Builds, keeps and runs one TensorRT engine, in this process or as a worker for another one.

One file that needs nothing but the standard library and NVIDIA's `tensorrt`, in Python 3.6 syntax: JetPack 4
has TensorRT for its system's Python 3.6 alone. A newer Python imports this module (`tensorrt.py` beside it),
an older one is started on it as a script; always with -I, or that sibling would hide NVIDIA's package.

As a worker it speaks the protocol of `isolated.py`: an order as JSON in its first argument, facts as a line
of JSON over a socket, then `run` and `done` lines, pictures and features in shared memory.
"""

import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

MEGABYTE = 1024 * 1024
MIN_WORKSPACE_BYTES, MAX_WORKSPACE_BYTES = 64 * MEGABYTE, 1024 * MEGABYTE
WORKSPACE_SHARE = 8  # of the memory; a board's GPU shares it with everything else
BUILD_BYTES = (
    1024 * MEGABYTE
)  # of CUDA's libraries and the builder, beside the workspace; a guess, not measured
MAX_PLANS = 4  # kept in the cache: the one in use, the one before it, and two to go back to
PLAN_FORMAT = 1
PLAN_SUFFIX = ".plan"
MAX_HEADER_BYTES = 4096
CACHE_LINE_BYTES = 64
MAX_REASON_CHARS = 300
REPLY_END = b"\n"

# What each precision lets the builder use; TensorRT 11 has no such flags and reads the types in the graph.
FLAGS: Dict[str, Tuple[str, ...]] = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "BOOL": "bool"}
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, "int32": 4, "bool": 1}

CUDART = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2",
          "/usr/local/cuda/lib64/libcudart.so")  # fmt: skip
TO_DEVICE, TO_HOST = 1, 2  # of cudaMemcpyKind
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # of cudaDeviceAttr
PROPERTIES_BYTES = 4096  # cudaDeviceProp has about 1 KB and begins with the name in every version

INSTALL_HINT = "install JetPack's python3-libnvinfer, or use the .tflite file"


class Refusal(Exception):
    """What cannot be done, in one line; `kind` is the name of the error of edge_cl that it becomes."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(one_line(text))
        self.kind = kind


class MissingError(Refusal):
    """TensorRT or CUDA is not here; another Python of this machine may have it."""

    def __init__(self, text: str) -> None:
        super().__init__("EngineError", text)


class Order(NamedTuple):
    """What is to be opened.

    Attributes:
        path: of the ONNX file.
        sha256: that the file must have, hex.
        precision: `fp32`, `fp16` or `int8`, as the file says.
        cache: folder of built engines; made if it is not there.
    """

    path: str
    sha256: str
    precision: str
    cache: str


class Key(NamedTuple):
    """What an engine is good for; any other value needs another engine."""

    gpu: str
    tensorrt: str
    sha256: str
    precision: str

    @property
    def file_name(self) -> str:
        """Name of the plan in the cache."""
        digest = hashlib.sha256(json.dumps(list(self)).encode("utf-8")).hexdigest()
        return digest[:32] + PLAN_SUFFIX


class Plan(NamedTuple):
    """A built engine as bytes, what it is good for, and its number in the order of building."""

    key: Key
    number: int
    data: bytes


class PortFacts(NamedTuple):
    """One input or output: the fields of `ports.Port`; batch and sizes are fixed, floats have no scales."""

    name: str
    shape: Tuple[int, ...]
    signature: Tuple[int, ...]
    dtype: str
    scales: Tuple[float, ...]
    zero_point: int

    @property
    def size_bytes(self) -> int:
        """Length in memory."""
        size = ITEM_BYTES[self.dtype]
        for each in self.shape:
            size *= each
        return size


# --- rules --------------------------------------------------------------------------------------------------


def one_line(text: object) -> str:
    """Return a foreign message as one short line."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_REASON_CHARS else line[: MAX_REASON_CHARS - 1] + "\u2026"


def workspace_bytes(memory_bytes: int) -> int:
    """Return the builder's scratch memory: an eighth of the memory, between 64 MiB and 1 GiB."""
    return max(MIN_WORKSPACE_BYTES, min(MAX_WORKSPACE_BYTES, memory_bytes // WORKSPACE_SHARE))


def memory_fault(meminfo: str, needed_bytes: int) -> Optional[str]:
    """Say why a build would not fit into memory and swap; None when it does or the kernel does not say.

    Without swap the kernel kills the builder, or the desktop, in the middle of its work.
    """
    fields = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if rest.split():
            fields[name] = int(rest.split()[0]) * 1024
    if "MemAvailable" not in fields:
        return None
    free, swap = fields["MemAvailable"], fields.get("SwapFree", 0)
    if free + swap >= needed_bytes:
        return None
    needed_mb, free_mb, swap_mb = (each // MEGABYTE for each in (needed_bytes, free, swap))
    return f"a build takes about {needed_mb} MB, {free_mb} MB of memory and {swap_mb} MB of swap are free"


def pack_plan(plan: Plan) -> bytes:
    """Return a plan as a file: one line of JSON with its hash, then the engine."""
    header = {"format": PLAN_FORMAT, "key": list(plan.key), "number": plan.number,
              "sha256": hashlib.sha256(plan.data).hexdigest()}  # fmt: skip
    return json.dumps(header).encode("utf-8") + b"\n" + plan.data


def unpack_plan(content: bytes) -> Optional[Plan]:
    """Read a plan back; None when it is damaged, cut off, or of another layout.

    Checked before TensorRT sees it, because its reader is native code.
    """
    end = content.find(b"\n", 0, MAX_HEADER_BYTES)
    try:
        header = json.loads(content[: max(0, end)].decode("utf-8"))
        data = content[end + 1 :]
        if header["format"] != PLAN_FORMAT or header["sha256"] != hashlib.sha256(data).hexdigest():
            return None
        return Plan(Key(*[str(each) for each in header["key"]]), int(header["number"]), data)
    except (ValueError, KeyError, TypeError):
        return None


def superseded(plans: List[Plan], newest: Key) -> List[Plan]:
    """Return the plans that may go once `newest` has run: all but the last few, oldest first."""
    others = sorted((plan for plan in plans if plan.key != newest), key=lambda plan: plan.number)
    return others[: max(0, len(others) - (MAX_PLANS - 1))]


# --- cache --------------------------------------------------------------------------------------------------


class Cache:
    """Built engines in a folder, each whole or not there; two processes do not build at once."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(str(self._folder / ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Refusal("EngineError", _unwritable(self._folder, error)) from error

    def read(self, key: Key) -> Optional[Plan]:
        """Return the plan of a key; None when there is none, or none that is whole."""
        plan = self._read(key.file_name)
        return plan if plan is not None and plan.key == key else None

    def plans(self) -> List[Plan]:
        """Return every whole plan, newest first."""
        found = [self._read(path.name) for path in sorted(self._folder.glob("*" + PLAN_SUFFIX))]
        return sorted((plan for plan in found if plan is not None), key=lambda plan: -plan.number)

    def write(self, plan: Plan) -> None:
        """Put a plan under its name in one step, then let old ones go."""
        path, part = self._folder / plan.key.file_name, self._folder / ".part"  # the lock is ours
        try:
            with part.open("wb") as file:
                file.write(pack_plan(plan))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._sync()
            for old in superseded(self.plans(), plan.key):
                (self._folder / old.key.file_name).unlink()
        except OSError as error:
            if part.exists():
                part.unlink()
            raise Refusal("EngineError", _unwritable(self._folder, error)) from error

    def __enter__(self) -> "Cache":
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error: Any) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def _read(self, name: str) -> Optional[Plan]:
        try:
            return unpack_plan((self._folder / name).read_bytes())
        except OSError:
            return None

    def _sync(self) -> None:
        folder = os.open(str(self._folder), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unwritable(folder: Path, error: OSError) -> str:
    return f"built engines cannot be kept in {folder} ({error.strerror}): free space, or look at its rights"


# --- CUDA ---------------------------------------------------------------------------------------------------


class Cuda:
    """The CUDA runtime by ctypes: memory, copies and one stream, on the first GPU."""

    def __init__(self) -> None:
        self._library = _load_cudart()
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = stream.value or 0

    def gpu(self) -> str:
        """Return the GPU's name and compute capability, such as `Orin-8.7`."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, ctypes.c_int(0))
        name = properties.value.decode("ascii", "replace").strip()
        numbers = []
        for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
            number = ctypes.c_int()
            self._call(
                "cudaDeviceGetAttribute", ctypes.byref(number), ctypes.c_int(attribute), ctypes.c_int(0)
            )
            numbers.append(number.value)
        plain = "".join(each if each.isalnum() and ord(each) < 128 else "-" for each in name)
        return f"{plain}-{numbers[0]}.{numbers[1]}"

    def memory_bytes(self) -> int:
        """Return the GPU's whole memory; on a Jetson that is the board's."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return total.value

    def reserve(self, size_bytes: int) -> int:
        """Return the address of fresh memory of the GPU."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return address.value or 0

    def release(self, address: int) -> None:
        """Give memory of the GPU back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def copy(self, target: int, source: int, size_bytes: int, kind: int) -> None:
        """Copy between host and GPU, in the order of the stream."""
        self._call(
            "cudaMemcpyAsync", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size_bytes),
            ctypes.c_int(kind), ctypes.c_void_p(self.stream),
        )  # fmt: skip

    def wait(self) -> None:
        """Return when everything in the stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Let go of the stream."""
        if self.stream:
            stream, self.stream = self.stream, 0
            self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            told = self._library.cudaGetErrorString
            told.restype = ctypes.c_char_p
            reason = (told(ctypes.c_int(status)) or b"").decode("ascii", "replace")
            raise Refusal("EngineError", f"CUDA failed in {name} ({status}, {reason})")


def _load_cudart() -> Any:
    """Return the CUDA runtime: the one that TensorRT has loaded already, else the first that is here."""
    maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    loaded = {line.split()[-1] for line in maps if "libcudart.so" in line}
    for name in sorted(loaded) + list(CUDART):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingError("the CUDA runtime (libcudart) is not here: " + INSTALL_HINT)


# --- TensorRT -----------------------------------------------------------------------------------------------


class Session:
    """One engine ready to run: buffers on the GPU, one input and one output.

    Attributes:
        inputs: of the engine.
        outputs: of the engine.
    """

    def __init__(self, trt: Any, log: Any, cuda: Cuda, data: bytes) -> None:
        self._cuda = cuda
        self._buffers: List[int] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        try:
            self._load(trt, log, data)
            self._connect(trt)
        except BaseException:
            self.close()
            raise

    def run(self, frame: int, feature: int) -> None:
        """Run once, from the picture at one address of the host to the feature at another."""
        image, answer = self.inputs[0], self.outputs[0]
        self._cuda.copy(self._at[image.name], frame, image.size_bytes, TO_DEVICE)
        if self._has_tensors:
            is_taken = self._context.execute_async_v3(self._cuda.stream)
        else:
            is_taken = self._context.execute_async_v2(self._buffers, self._cuda.stream)
        if not is_taken:
            raise Refusal("EngineError", "TensorRT could not start the engine")
        self._cuda.copy(feature, self._at[answer.name], answer.size_bytes, TO_HOST)
        self._cuda.wait()

    def try_out(self) -> None:
        """Run once on a black picture; what crashes or fails must do so before the engine is kept."""
        frame = ctypes.create_string_buffer(self.inputs[0].size_bytes)
        feature = ctypes.create_string_buffer(self.outputs[0].size_bytes)
        self.run(ctypes.addressof(frame), ctypes.addressof(feature))

    def close(self) -> None:
        """Let go of the engine and its memory, in the order that TensorRT asks for."""
        self._context = self._engine = self._runtime = None
        while self._buffers:
            self._cuda.release(self._buffers.pop())

    def _load(self, trt: Any, log: Any, data: bytes) -> None:
        self._runtime = trt.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise Refusal("EngineError", f"TensorRT does not take the engine ({log.last()})")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise Refusal("EngineError", f"TensorRT has no memory for the engine ({log.last()})")

    def _connect(self, trt: Any) -> None:
        self._has_tensors = hasattr(self._engine, "num_io_tensors")  # from TensorRT 8.5 on
        sides = self._tensors(trt) if self._has_tensors else self._bindings()
        self.inputs = tuple(facts for facts, is_input in sides if is_input)
        self.outputs = tuple(facts for facts, is_input in sides if not is_input)
        self._reserve([facts for facts, _ in sides])
        self._at = {facts.name: address for (facts, _), address in zip(sides, self._buffers)}

    def _reserve(self, ports: List[PortFacts]) -> None:
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            counts = f"{len(self.inputs)} inputs and {len(self.outputs)} outputs"
            raise Refusal("ModelError", f"the file has {counts}, not one each")
        for port in ports:
            if min(port.shape, default=1) < 1:
                raise Refusal("ModelError", f"{port.name} has open sizes: export it with a batch of 1")
            self._buffers.append(self._cuda.reserve(port.size_bytes))
            if self._has_tensors:
                self._context.set_tensor_address(port.name, self._buffers[-1])

    def _bindings(self) -> List[Tuple[PortFacts, bool]]:
        """Inputs and outputs by number, the only way before TensorRT 8.5."""
        engine = self._engine
        return [
            (
                _port_facts(
                    engine.get_binding_name(i), engine.get_binding_shape(i), engine.get_binding_dtype(i)
                ),
                bool(engine.binding_is_input(i)),
            )
            for i in range(engine.num_bindings)
        ]

    def _tensors(self, trt: Any) -> List[Tuple[PortFacts, bool]]:
        """Inputs and outputs by name, the only way from TensorRT 10 on."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return [
            (
                _port_facts(name, engine.get_tensor_shape(name), engine.get_tensor_dtype(name)),
                engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            )
            for name in names
        ]


def _port_facts(name: str, shape: Any, dtype: Any) -> PortFacts:
    sizes = tuple(int(size) for size in shape)
    kind = TYPES.get(str(dtype).rpartition(".")[2])
    if kind is None:
        raise Refusal("ModelError", f"{name} is of {dtype}: export it as float32")
    return PortFacts(str(name), sizes, sizes, kind, (), 0)


class Opened(NamedTuple):
    """An engine that runs.

    Attributes:
        session: to run it.
        kernels: who computes; another value means other features.
        note: what went wrong on the way without being fatal; empty if nothing did.
        cuda: the stream that it runs in.
    """

    session: Session
    kernels: str
    note: str
    cuda: Cuda

    def close(self) -> None:
        """Let go of everything on the GPU."""
        self.session.close()
        self.cuda.close()


def open_session(order: Order, tell: Callable[[str], None]) -> Opened:
    """Open the engine of an ONNX file: from the cache, else built here, else the last one that was good.

    Arguments:
        order: what is to be opened.
        tell: called with one line before work that takes minutes.

    Raises:
        MissingError: TensorRT or CUDA is not here.
        Refusal: the file cannot be built, or does not run.
    """
    trt = _import_tensorrt()
    log = _make_log(trt)
    cuda = Cuda()
    cache = Cache(order.cache)
    try:
        return _open(trt, log, cuda, cache, order, tell)
    except BaseException:
        cuda.close()
        raise
    finally:
        cache.close()


def _open(trt: Any, log: Any, cuda: Cuda, cache: Cache, order: Order, tell: Callable[[str], None]) -> Opened:
    key = Key(cuda.gpu(), str(trt.__version__), order.sha256, order.precision)
    opened = _from_cache(trt, log, cuda, cache.read(key))
    if opened is not None:
        return opened
    tell("building")
    with cache:
        opened = _from_cache(trt, log, cuda, cache.read(key))  # another process may have built it meanwhile
        if opened is not None:
            return opened
        try:
            return _built(trt, log, cuda, cache, order, key)
        except Refusal as refusal:
            opened = _last_good(trt, log, cuda, cache, key)
            if opened is None:
                raise
            return opened._replace(note=f"an earlier engine is used ({refusal})")


def _from_cache(trt: Any, log: Any, cuda: Cuda, plan: Optional[Plan]) -> Optional[Opened]:
    """Return a plan as an engine that runs; None when there is no plan, or TensorRT does not take it."""
    if plan is None:
        return None
    try:
        return _running(Session(trt, log, cuda, plan.data), plan.key, cuda)
    except Refusal:
        return None


def _running(session: Session, key: Key, cuda: Cuda) -> Opened:
    try:
        session.try_out()
    except BaseException:
        session.close()
        raise
    return Opened(session, f"tensorrt:{key.precision}:{key.tensorrt}:{key.gpu}", "", cuda)


def _built(trt: Any, log: Any, cuda: Cuda, cache: Cache, order: Order, key: Key) -> Opened:
    data = _build(trt, log, cuda, order)
    opened = _running(Session(trt, log, cuda, data), key, cuda)
    number = max([plan.number for plan in cache.plans()] + [0]) + 1
    try:
        cache.write(Plan(key, number, data))
    except Refusal as refusal:  # it runs; only the next start will have to build again
        return opened._replace(note=str(refusal))
    return opened


def _last_good(trt: Any, log: Any, cuda: Cuda, cache: Cache, key: Key) -> Optional[Opened]:
    """Return an engine of another TensorRT for the same file and GPU, if this TensorRT takes one."""
    for plan in cache.plans():
        if plan.key._replace(tensorrt="") == key._replace(tensorrt="") and plan.key != key:
            opened = _from_cache(trt, log, cuda, plan)
            if opened is not None:
                return opened
    return None


def _build(trt: Any, log: Any, cuda: Cuda, order: Order) -> bytes:
    workspace = workspace_bytes(cuda.memory_bytes())
    _check_memory(workspace + BUILD_BYTES)
    content = _read_checked(order)
    builder = trt.Builder(log)
    if order.precision == "int8" and not getattr(builder, "platform_has_fast_int8", True):
        raise Refusal("ModelError", "this GPU has no int8: export the fp16 file for it (--board nano)")
    # TensorRT 11 knows no other batch and has no flag for it.
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise Refusal("ModelError", f"TensorRT cannot read the file ({'; '.join(reasons)})")
    config = builder.create_builder_config()
    _configure(trt, config, order.precision, workspace)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refusal("EngineError", f"TensorRT could not build the engine ({log.last()})")
    return bytes(plan)


def _configure(trt: Any, config: Any, precision: str, workspace: int) -> None:
    if hasattr(config, "set_memory_pool_limit"):  # from TensorRT 8.4 on
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    else:
        config.max_workspace_size = workspace
    for name in FLAGS[precision]:
        flag = getattr(trt.BuilderFlag, name, None)
        if flag is not None:
            config.set_flag(flag)


def _check_memory(needed_bytes: int) -> None:
    try:
        fault = memory_fault(Path("/proc/meminfo").read_text(), needed_bytes)
    except OSError:
        return
    if fault:
        raise Refusal("EngineError", fault + ": stop other programs, or add swap (docs/hardware.md)")


def _read_checked(order: Order) -> bytes:
    try:
        content = Path(order.path).read_bytes()
    except OSError as error:
        raise Refusal("ModelError", f"the file cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != order.sha256:
        raise Refusal("ModelError", "the file changed while it was opened: open it again")
    return content


def _import_tensorrt() -> Any:
    try:
        import tensorrt
    except Exception as error:  # its libraries fail in many ways beside another CUDA or Python
        raise MissingError(f"TensorRT does not load ({one_line(error)}): {INSTALL_HINT}") from error
    return tensorrt


def _make_log(trt: Any) -> Any:
    class Log(trt.ILogger):
        """Keeps TensorRT's errors for our own messages, and the rest quiet."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.Logger.INTERNAL_ERROR, trt.Logger.ERROR):
                self.errors.append(one_line(msg))

        def last(self) -> str:
            return self.errors[-1] if self.errors else "no reason given"

    return Log()


# --- worker -------------------------------------------------------------------------------------------------


def serve(text: str) -> None:
    """Be the worker: open the engine, report, then run whatever lies in shared memory until told no more."""
    order = json.loads(text)
    if order["sys_path"]:
        sys.path[:] = order["sys_path"]
    pipe = order["socket_fd"]

    def reply(facts: Dict[str, Any]) -> None:
        _write_all(pipe, json.dumps(facts).encode("utf-8") + REPLY_END)

    try:
        opened = open_session(Order(*order["open"]), lambda line: reply({"progress": line}))
    except Refusal as refusal:
        is_missing = isinstance(refusal, MissingError)
        reply({"error": refusal.kind, "message": str(refusal), "is_missing": is_missing})
        return
    session = opened.session
    start = -(-session.inputs[0].size_bytes // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
    os.ftruncate(order["memory_fd"], start + session.outputs[0].size_bytes)
    memory = mmap.mmap(order["memory_fd"], 0)
    frame = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ports = {"inputs": session.inputs, "outputs": session.outputs}
    reply({"kernels": opened.kernels, "note": opened.note, **ports})
    while _read_exactly(pipe, 4) == b"run\n":
        # If the parent is gone and the GPU hangs, nobody else would end this process.
        signal.setitimer(signal.ITIMER_REAL, order["alarm_s"])
        try:
            session.run(frame, frame + start)
        except Refusal as refusal:
            reply({"message": str(refusal)})
        else:
            _write_all(pipe, b"done\n")
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read_exactly(descriptor: int, count: int) -> bytes:
    """Return `count` bytes, fewer when the other end is closed."""
    found = b""
    while len(found) < count:
        part = os.read(descriptor, count - len(found))
        if not part:
            break
        found += part
    return found


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    try:
        serve(sys.argv[1])
    except BrokenPipeError:  # nobody listens any more
        pass
