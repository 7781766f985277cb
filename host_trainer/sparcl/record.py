"""Says what a continual training leaves on record: settings, accuracies, costs; as JSON and back."""

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from edge_cl.errors import MismatchError

VERSION = 1
Grid = tuple[tuple[float | None, ...], ...]  # (T, T): after task i, of the pictures of task j; None untested


@dataclass(frozen=True)
class Task:
    """A task: its classes by name, its pictures to learn from and to be asked about."""

    name: str
    classes: tuple[str, ...]
    train: int
    test: int


@dataclass(frozen=True)
class Metrics:
    """What the run reached, as shares; None where it cannot be said.

    Attributes:
        class_il: accuracy among all classes seen, mean over tasks, after the last one.
        task_il: the same among the classes of the picture's own task.
        forgetting: mean fall from a task's best accuracy (Chaudhry et al. 2018).
        bwt: backward transfer (Lopez-Paz and Ranzato 2017).
        fwt: forward transfer (the same).
        calibration_error: expected gap of confidence and accuracy (Guo et al. 2017).
    """

    class_il: float | None
    task_il: float | None
    forgetting: float | None
    bwt: float | None
    fwt: float | None
    calibration_error: float | None


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence: their mean confidence, their accuracy, how many they are."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        task, epoch: from 0, the epoch within its task.
        steps: changes of the weights.
        offered, kept: pictures of the task, and those that data removal left.
        weight_sparsity: share of the prunable weights that are zero.
        gradient_sparsity: share of the prunable weights that do not move.
        loss, accuracy: means over the epoch's batches.
        samples, replayed, forward_only, assessed: pictures shown, as in `accounting.Work`.
        flops_published, flops_honest: operations in both conventions.
        seconds: by phase.
        images_per_s: pictures of the stream a second of training.
    """

    task: int
    epoch: int
    steps: int
    offered: int
    kept: int
    weight_sparsity: float
    gradient_sparsity: float
    loss: float
    accuracy: float
    samples: int
    replayed: int
    forward_only: int
    assessed: int
    flops_published: float
    flops_honest: float
    seconds: dict[str, float]
    images_per_s: float


@dataclass(frozen=True)
class Totals:
    """What the run cost.

    Attributes:
        seconds: by phase.
        flops_published, flops_honest: operations in both conventions.
        dense_flops_published, dense_flops_honest: those of the dense method on the same tasks.
        peak_bytes: highest resident memory of the process.
        buffer_bytes: of the pictures, labels and logits that are remembered.
        images_per_s: pictures of the stream a second of training.
    """

    seconds: dict[str, float]
    flops_published: float
    flops_honest: float
    dense_flops_published: float
    dense_flops_honest: float
    peak_bytes: int
    buffer_bytes: int
    images_per_s: float

    @property
    def all_seconds(self) -> float:
        """Seconds of all phases together."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        command: what repeats it.
        method, protocol, network, dataset: by name.
        mode, sparsity: of a sparse method; None for the others.
        buffer: places.
        seed: of everything drawn.
        classes: by name, in the order of the network's outputs.
        tasks: in the order taught.
        class_il, task_il: accuracies after each task, of each task.
        metrics: what was reached.
        totals: what it cost.
        epochs: in the order run.
        layers: share of live weights at the end, by layer.
        reliability: accuracy by confidence, after the last task.
        settings: whatever else the run was given, by option.
        version: of this form.
    """

    command: str
    method: str
    mode: str | None
    protocol: str
    sparsity: float | None
    buffer: int
    seed: int
    network: str
    dataset: str
    classes: tuple[str, ...]
    tasks: tuple[Task, ...]
    class_il: Grid
    task_il: Grid
    metrics: Metrics
    totals: Totals
    epochs: tuple[Epoch, ...] = ()
    layers: dict[str, float] | None = None
    reliability: tuple[Bin, ...] = ()
    settings: dict[str, str] | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        count = len(self.tasks)
        for grid in (self.class_il, self.task_il):
            if len(grid) != count or any(len(row) != count for row in grid):
                raise ValueError(f"{count} tasks need accuracies of {count} x {count}")

    @property
    def name(self) -> str:
        """What a table calls the run: its method, and how sparse it was."""
        sparse = f"{self.sparsity:g}" if self.sparsity is not None else ""
        return " ".join(part for part in (self.method, self.mode, sparse) if part)


def to_json(record: Record) -> str:
    """Return the record as JSON text.

    Raises:
        ValueError: a number that is none, which JSON cannot hold; give None.
    """
    return json.dumps(asdict(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str) -> Record:
    """Return the record that `to_json` wrote.

    Raises:
        MismatchError: no such record, or one of another version.
    """
    try:
        told = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise MismatchError("this is no record of a training: it is not JSON") from error
    if isinstance(told, Mapping) and told.get("version") != VERSION:
        raise MismatchError(
            f"this record is of version {told.get('version')!r}, not {VERSION}: train with this program"
        )
    try:
        return _read(told, Record, "record")
    except ValueError as error:
        raise MismatchError(f"this is no record of a training: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _read(value: Any, wanted: Any, place: str) -> Any:
    """Return a JSON value as the type wanted; `place` says where it stands."""
    kind = get_origin(wanted)
    if kind in (Union, types.UnionType):
        inner = next(one for one in get_args(wanted) if one is not type(None))
        return None if value is None else _read(value, inner, place)
    if is_dataclass(wanted):
        return _read_fields(value, wanted, place)
    if kind is tuple and isinstance(value, list):
        return tuple(_read(one, get_args(wanted)[0], f"{place}[{at}]") for at, one in enumerate(value))
    if kind is dict and isinstance(value, dict):
        return {name: _read(one, get_args(wanted)[1], f"{place}.{name}") for name, one in value.items()}
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{place} is {type(value).__name__}, not {getattr(wanted, '__name__', wanted)}")
    return value


def _read_fields(value: Any, wanted: Any, place: str) -> Any:
    names = {field.name for field in fields(wanted)}
    if not isinstance(value, dict) or set(value) != names:
        odd = sorted(names.symmetric_difference(value)) if isinstance(value, dict) else []
        raise ValueError(
            f"{place} has other parts than expected" + (f" ({', '.join(odd[:3])})" if odd else "")
        )
    types_ = get_type_hints(wanted)
    return wanted(**{name: _read(value[name], types_[name], f"{place}.{name}") for name in value})
