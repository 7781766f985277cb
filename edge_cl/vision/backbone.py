"""Turns pixels into features with a frozen TFLite or ONNX file, and says in which space they live."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, EngineError, MismatchError, ModelError
from edge_cl.sample import FeatureSpace
from edge_cl.vision.engines import edgetpu
from edge_cl.vision.engines.litert import Engine
from edge_cl.vision.files import one_line, open_plain
from edge_cl.vision.onnx_file import QUANTISED, read_facts
from edge_cl.vision.ports import (
    TFLITE_MAGIC,
    InputRange,
    choose_input_range,
    feature_port,
    image_port,
    pixel_table,
    quantise,
)
from edge_cl.vision.preprocess import Resize

MAX_MODEL_BYTES = 256 * 1024 * 1024  # half the memory of the smallest board; real backbones are 0.5 to 30 MB
READ_BLOCK_BYTES = 1024 * 1024  # hashed in blocks, so that no second copy of the file stays in memory
ID_DIGITS = 16  # hexadecimal; 64 bits tell any number of backbones apart
MANIFEST_VERSION = 1
EDGETPU_SUFFIX = "_edgetpu"  # added to a file's stem by the Edge TPU compiler
TFLITE, ONNX = "tflite", "onnx"
TELLING = (edgetpu.CUSTOM_OP, QUANTISED)


class ModelFile(NamedTuple):
    """A backbone file on disk.

    Attributes:
        path: where it lies.
        sha256: of its bytes, hex.
        is_edgetpu: the Edge TPU compiler made it.
        format: `tflite`, or `onnx`, which runs through TensorRT.
        precision: of an ONNX file, `fp32`, `fp16` or `int8`; empty for TFLite, which says it by its tensors.
    """

    path: Path
    sha256: str
    is_edgetpu: bool
    format: str = TFLITE
    precision: str = ""


@dataclass(frozen=True)
class Manifest:
    """What must be the same in training and in use; kept beside the backbone file.

    Attributes:
        sha256: of the file, hex.
        input_size: (H, W) in pixels.
        input_range: what the network was trained to see for pixel values 0 and 255.
        resize: how a picture of another shape is made to fit.
        feature_size: D.
        feature_dtype: numpy name of the stored values.
        feature_scale: real value = scale * (stored - zero point).
        feature_zero_point: stored value that stands for zero.
        mirror: a mirrored picture means the same thing.
        cut_from: tensor at which a classifier was cut, None for a file used as it came.
        format: kind of the file.
        version: of this manifest's layout.
    """

    sha256: str
    input_size: tuple[int, int]
    input_range: InputRange
    resize: Resize
    feature_size: int
    feature_dtype: str
    feature_scale: float
    feature_zero_point: int
    mirror: bool = True
    cut_from: str | None = None
    format: str = "tflite"
    version: int = MANIFEST_VERSION

    def to_json(self) -> str:
        """Return the manifest as JSON text with sorted keys."""
        return json.dumps({**asdict(self), "resize": self.resize.value}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest back.

        Raises:
            MismatchError: written by a newer version of this program.
            ModelError: not a manifest.
        """
        try:
            fields = json.loads(text)
            version = int(fields["version"])
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"the backbone's manifest is damaged ({error}): add the backbone again"
            ) from error
        if version > MANIFEST_VERSION:
            raise MismatchError(f"the backbone's manifest is of version {version}: update this program")
        try:
            return cls(**_manifest_fields(fields))
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"the backbone's manifest is damaged ({error}): add the backbone again"
            ) from error


class Backbone:
    """A frozen network: (H, W, 3) uint8 pixels in, (D,) stored features out. One thread at a time.

    Attributes:
        policy: how pictures are to be resized for it.
        input_range: what pixel values 0 and 255 become for the network.
        assumption: what had to be assumed about the input range; empty when the file says it.
        fallback_reason: why the CPU file took over; None while the chosen engine runs. From that moment
            `space` is another one: predictions go on, but such features must not be learned beside the old.
    """

    def __init__(
        self,
        engine: Engine,
        file: ModelFile,
        policy: Resize = Resize.SQUASH,
        input_range: InputRange | None = None,
        cpu_file: ModelFile | None = None,
        num_threads: int = 1,
    ) -> None:
        self.policy = policy
        self.fallback_reason: str | None = None
        self._cpu_file, self._num_threads, self._asked_range = cpu_file, num_threads, input_range
        self._take_over(engine, file)

    @property
    def space(self) -> FeatureSpace:
        """Which features these are, and how their numbers are to be read."""
        return self._space

    @property
    def kernels(self) -> str:
        """Who computes: `xnnpack`, `plain` or `delegate:<name>`."""
        return self._engine.kernels

    @property
    def process(self) -> int | None:
        """Id of the child process that computes; None where this one does."""
        return getattr(self._engine, "pid", None)

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self._input_size

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the feature of one view: (H, W, 3) uint8 to (D,) in the stored dtype.

        Raises:
            EngineError: the engine failed, and no CPU file could take over.
        """
        if pixels.shape != (*self._input_size, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"embed takes {(*self._input_size, 3)} uint8, not {pixels.shape} {pixels.dtype}")
        try:
            feature = self._engine.run(pixels if self._takes_pixels else quantise(pixels, self._table))
        except EngineError as error:
            if self._cpu_file is None:
                raise
            self._fall_back(error)
            return self.embed(pixels)
        if feature.dtype.kind == "f" and not np.isfinite(feature).all():
            raise EngineError(
                "the backbone returned values that are not numbers: its file or its input range is wrong"
            )
        return feature

    def embed_many(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the features of several views: (V, H, W, 3) uint8 to (V, D)."""
        if pixels.ndim != 4 or not len(pixels):
            raise ValueError(f"embed_many takes (V, H, W, 3) with V >= 1, not {pixels.shape}")
        return np.stack([self.embed(view) for view in pixels])

    def manifest(self, mirror: bool = True, cut_from: str | None = None) -> Manifest:
        """Return what a later session must repeat to stay in this feature space."""
        space = self._space
        return Manifest(
            sha256=self._file.sha256,
            input_size=self._input_size,
            input_range=self.input_range,
            resize=self.policy,
            feature_size=space.size,
            feature_dtype=space.dtype,
            feature_scale=space.scale,
            feature_zero_point=space.zero_point,
            mirror=mirror,
            cut_from=cut_from,
            format=self._file.format,
        )

    def close(self) -> None:
        """Let go of the engine, its memory and its process."""
        self._engine.close()

    def __enter__(self) -> "Backbone":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_over(self, engine: Engine, file: ModelFile) -> None:
        image, feature = (
            image_port(engine.inputs, file.path.name),
            feature_port(engine.outputs, file.path.name),
        )
        self._engine, self._file = engine, file
        self._input_size = (image.shape[1], image.shape[2])
        self.input_range, self.assumption = choose_input_range(image, self._asked_range)
        self._table = pixel_table(image, self.input_range)
        self._takes_pixels = image.dtype == "uint8" and np.array_equal(self._table, np.arange(256))
        self._space = FeatureSpace(
            id=_space_id(file.sha256, engine.kernels, self.input_range, self.policy),
            size=int(np.prod(feature.shape)),
            dtype=feature.dtype,
            scale=feature.scales[0] if feature.scales else 1.0,
            zero_point=feature.zero_point,
        )

    def _fall_back(self, error: EngineError) -> None:
        file, self._cpu_file = self._cpu_file, None
        assert file is not None
        self._engine.close()
        size = self._input_size
        try:
            self._take_over(_open_engine(file.path, self._num_threads, None, isolate=True), file)
        except (EngineError, ModelError) as second:
            raise EngineError(f"{error}; and its CPU file cannot take over: {second}") from second
        if self._input_size != size:
            raise EngineError(f"{error}; and {file.path.name} takes pictures of another size")
        self.fallback_reason = str(error)


def open_backbone(
    path: str | os.PathLike[str],
    *,
    num_threads: int = 1,
    isolate: bool = False,
    delegate: str | None = None,
    policy: Resize = Resize.SQUASH,
    input_range: InputRange | None = None,
    cpu_file: str | os.PathLike[str] | None = None,
    manifest: Manifest | None = None,
    engine_cache: str | os.PathLike[str] | None = None,
) -> Backbone:
    """Open a TFLite file, or an ONNX file through TensorRT, as a backbone.

    Arguments:
        num_threads: of the interpreter; one is best on small graphs.
        isolate: run the engine in a child process, so that its crash is not ours.
        delegate: `edgetpu`, `edgetpu:usb`, `edgetpu:pci:0`, or the path of a TFLite delegate's library; for
            ONNX none, or `tensorrt:PYTHON` for the Python that has TensorRT.
        policy: how pictures are to be resized for it.
        input_range: what the network was trained to see for pixel values 0 and 255; derived from the
            file's own scale and zero point where it has them, (-1, 1) for float inputs.
        cpu_file: takes over when an isolated engine is beyond saving; by default the file of the same name
            without `_edgetpu`, the TFLite file beside an ONNX file, or the file itself without its delegate.
        manifest: of an earlier session; the file must be the same, and its policy and range are used.
        engine_cache: folder for the engine that TensorRT builds from an ONNX file on this board.

    Raises:
        ConfigError: fewer than one thread; an ONNX file without a folder for its engine.
        ModelError: the file cannot serve as a backbone.
        MismatchError: the file is not the one of the manifest.
        EngineError: no interpreter or TensorRT works here, or the delegate is absent or failed.
    """
    if num_threads < 1:
        raise ConfigError(f"{num_threads} threads cannot run a backbone: give 1 or more")
    file = read_model_file(Path(path))
    if manifest is not None:
        _check_same_file(file, manifest)
        policy, input_range = manifest.resize, manifest.input_range
    _check_delegate(file, delegate)
    spare = _spare_file(file, delegate, cpu_file) if isolate else None
    if file.format == ONNX:
        engine = _open_tensorrt(file, delegate, isolate, engine_cache)
    else:
        engine = _open_engine(file.path, num_threads, delegate, isolate)
    try:
        return Backbone(engine, file, Resize(policy), input_range, spare, num_threads)
    except ModelError:
        engine.close()
        raise


def read_model_file(path: Path) -> ModelFile:
    """Hash a model file in one pass, refusing what is neither TFLite nor ONNX.

    Raises:
        ModelError: absent, unreadable, not a plain file, too large, neither TFLite nor ONNX.
    """
    file, size_bytes = open_plain(path, ModelError)
    with file:
        if size_bytes > MAX_MODEL_BYTES:
            raise ModelError(
                f"{path.name} has {size_bytes} bytes, more than {MAX_MODEL_BYTES}: too large here"
            )
        try:
            digest, head, named = _scan(file)
            facts = None if head[4:8] == TFLITE_MAGIC else read_facts(file, size_bytes)
        except OSError as error:
            raise ModelError(f"{path.name} cannot be read ({one_line(error)}): check the storage") from error
    if head[4:8] == TFLITE_MAGIC:
        return ModelFile(path, digest, edgetpu.CUSTOM_OP in named)
    if facts is None:
        raise ModelError(f"{path.name} is not a TFLite file, nor a whole ONNX file: give a .tflite file")
    return ModelFile(path, digest, False, ONNX, facts.precision or ("int8" if QUANTISED in named else "fp32"))


def _open_engine(path: Path, num_threads: int, delegate: str | None, isolate: bool) -> Engine:
    if isolate:
        from edge_cl.vision.engines.isolated import IsolatedEngine  # processes and sockets: 15 ms of import

        return IsolatedEngine(path, num_threads, delegate)
    return edgetpu.open_engine(path, num_threads, delegate)


def _open_tensorrt(
    file: ModelFile, delegate: str | None, isolate: bool, cache: str | os.PathLike[str] | None
) -> Engine:
    if cache is None:
        raise ConfigError(f"{file.path.name} is ONNX: give a folder for the engine that TensorRT makes of it")
    from edge_cl.vision.engines import tensorrt  # processes and sockets: other backbones do not pay for it

    return tensorrt.open_engine(file.path, file.sha256, file.precision, Path(cache), isolate, delegate)


def _scan(file: BinaryIO) -> tuple[str, bytes, set[bytes]]:
    """Return sha256, first 8 bytes, and which of the telling operations are named in the file."""
    digest, head, named, tail = hashlib.sha256(), b"", set[bytes](), b""
    while block := file.read(READ_BLOCK_BYTES):
        digest.update(block)
        head = head or block[:8]
        named |= {operation for operation in TELLING if operation in tail + block}
        tail = block[-max(map(len, TELLING)) :]
    return digest.hexdigest(), head, named


def _check_delegate(file: ModelFile, delegate: str | None) -> None:
    name = file.path.name
    if file.format == ONNX:
        return  # the only engine is TensorRT's, which reads it itself
    if file.is_edgetpu and delegate is None:
        twin = cpu_twin(file.path)
        other = twin.name if twin else "the file without _edgetpu in its name"
        raise ModelError(
            f"{name} is compiled for the Edge TPU: use {other}, or a Coral with --delegate edgetpu"
        )
    if delegate and not file.is_edgetpu and edgetpu.choose_delegate(delegate).is_edgetpu:
        raise ModelError(
            f"{name} is not compiled for the Edge TPU: give its _edgetpu.tflite file, or no delegate"
        )


def cpu_twin(path: Path) -> Path | None:
    """Return the CPU file that lies beside a file for an Edge TPU or for TensorRT, None if there is none."""
    suffix = ".tflite" if path.suffix == f".{ONNX}" else path.suffix
    twin = path.with_name(path.stem.removesuffix(EDGETPU_SUFFIX) + suffix)
    return twin if twin != path and twin.is_file() else None


def _spare_file(file: ModelFile, delegate: str | None, cpu_file: Any) -> ModelFile | None:
    if cpu_file is not None:
        return read_model_file(Path(cpu_file))
    twin = cpu_twin(file.path) if file.is_edgetpu or file.format == ONNX else None
    if twin is not None:
        return read_model_file(twin)
    return file if delegate and not file.is_edgetpu and file.format == TFLITE else None


def _check_same_file(file: ModelFile, manifest: Manifest) -> None:
    if file.sha256 != manifest.sha256:
        raise MismatchError(f"{file.path.name} is not the file of its manifest: add the backbone again")


def _space_id(sha256: str, kernels: str, input_range: InputRange, policy: Resize) -> str:
    """Hash what decides a feature's numbers: the file, the kernels, and how pixels reach them."""
    text = f"{sha256} {kernels} {input_range[0]:.9g} {input_range[1]:.9g} {policy.value}"
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:ID_DIGITS]


def _manifest_fields(fields: dict[str, Any]) -> dict[str, Any]:
    height, width = fields["input_size"]
    low, high = fields["input_range"]
    return {
        **fields,
        "input_size": (int(height), int(width)),
        "input_range": (float(low), float(high)),
        "resize": Resize(fields["resize"]),
    }


__all__ = ["Backbone", "InputRange", "Manifest", "ModelFile", "open_backbone"]
