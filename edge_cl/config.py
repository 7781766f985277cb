"""Touches `config.toml`: how one state folder teaches, which engine it asks for, what its host is told."""

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge_cl.errors import ConfigError

SETTINGS = "config.toml"
FORMAT = 1  # of the file; a newer one is refused, not guessed at
MAX_SETTINGS_BYTES = 64 << 10  # ours is about 500 bytes
MAX_THREADS = 64  # no board that this runs on has more cores
MAX_VIEWS = 4  # what vision.preprocess can make of one picture
POLICIES = ("squash", "crop", "pad")
NEVER, LEVELS = "never", ("never", "statistics", "features", "images")  # each tells what those before it tell
MAX_MINIMUM = 1_000_000  # samples
MAX_PRIVATE = 10_000  # classes with a level of their own
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Value = str | int | float | bool

HEADER = """\
# Settings of this edge-cl learner. [learner] was chosen by `edge-cl init` and belongs to what was learned
# since: to change it, make a new state folder. The other tables may be changed at any time.
"""


def default_state(environ: Mapping[str, str]) -> Path:
    """Return where a learner lives unless told otherwise: under the XDG state home."""
    home = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path there is invalid and to be ignored.
    base = Path(home) if Path(home).is_absolute() else Path(environ.get("HOME") or "~") / ".local" / "state"
    return base.expanduser() / "edge-cl"


@dataclass(frozen=True)
class Teaching:
    """How pictures become samples."""

    mirror: bool = True  # a mirrored picture means the same thing
    keep_jpeg: bool = False  # keep the pictures' bytes too (20-200 KB each), for a later change of backbone


@dataclass(frozen=True)
class EngineSettings:
    """Which engine runs the backbone."""

    threads: int = 1  # of the interpreter; one is best on small graphs
    isolate: bool = False  # run it in a child process
    delegate: str = ""  # "edgetpu", "edgetpu:usb", "edgetpu:pci:0", a library's path, or "" for the CPU

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"threads is {self.threads}: give 1 to {MAX_THREADS}")


@dataclass(frozen=True)
class SyncSettings:
    """What leaves for the host, once this device is enrolled with one, and when."""

    level: str = "statistics"  # the most that is told: never, statistics, features, images
    minimum: int = 3  # samples of a class that statistics must mix, so that they do not show a single one
    most_bytes: int = 50_000_000  # up, in one round; the rest waits for the next
    interval_s: int = 86_400  # `sync --watch` starts a round at least so often ...
    samples: int = 32  # ... or after so many new samples; 0: never for that
    fall: float = 0.1  # ... or when the accuracy before learning has fallen by so much; 0.0: never for that
    classes: Mapping[str, str] = field(default_factory=dict)  # a level of its own for a class, by name

    def __post_init__(self) -> None:
        for level in (self.level, *self.classes.values()):
            if level not in LEVELS:
                raise ConfigError(f"{level!r} is no level of [sync]: give {', '.join(LEVELS)}")
        if not 1 <= self.minimum <= MAX_MINIMUM:
            raise ConfigError(f"minimum in [sync] is {self.minimum}: give 1 to {MAX_MINIMUM} samples")
        if self.most_bytes < 100_000 or self.interval_s < 60 or self.samples < 0 or not 0 <= self.fall <= 1:
            raise ConfigError(
                "[sync] takes most_bytes from 100000, interval_s from 60, samples from 0, fall up to 1.0"
            )


@dataclass(frozen=True)
class InstallationSettings:
    """When a release of the host's is kept, beside what it asks for itself."""

    predictions: int = 100  # that it answers on probation before it is kept ...
    minutes: int = 60  # ... and so long at least
    crashes: int = 3  # of the program on probation after which it is undone
    latency_ms: float = 0.0  # that one picture may take its backbone; 0.0: any
    memory_mb: float = 0.0  # that its backbone may take; 0.0: any

    def __post_init__(self) -> None:
        if self.predictions < 1 or self.minutes < 0 or self.crashes < 1:
            raise ConfigError("[installation] takes predictions from 1, minutes from 0, crashes from 1")
        if not (self.latency_ms >= 0 and self.memory_mb >= 0):
            raise ConfigError("latency_ms and memory_mb in [installation] are 0.0 (any) or more")


@dataclass(frozen=True)
class Settings:
    """Everything in `config.toml`."""

    learner: Mapping[str, Any] = field(default_factory=dict)  # of learning.learner.LearnerConfig
    teaching: Teaching = Teaching()
    engine: EngineSettings = EngineSettings()
    sync: SyncSettings = SyncSettings()
    installation: InstallationSettings = InstallationSettings()

    def with_engine(self, **changes: Any) -> "Settings":
        """Return these settings with parts of [engine] replaced; None leaves a part as it is."""
        known = {name: value for name, value in changes.items() if value is not None}
        return replace(self, engine=replace(self.engine, **known))


def read_settings(folder: Path) -> Settings | None:
    """Read the settings of a state folder; None when it has none.

    Raises:
        ConfigError: not TOML, or holding what this version does not know.
    """
    path = folder / SETTINGS
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SETTINGS_BYTES).decode("utf-8")
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise ConfigError(f"{folder} is not a folder: choose another --state") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}): check its rights, or restore a backup"
        ) from error
    return parse_settings(text, str(path))


def parse_settings(text: str, name: str) -> Settings:
    """Read settings from TOML text; `name` is what an error calls it.

    Raises:
        ConfigError: not TOML, or holding what this version does not know.
    """
    found = _parsed(text, name)
    if found.pop("format", FORMAT) != FORMAT:
        raise ConfigError(f"{name} was written by another version of edge-cl: upgrade edge-cl")
    unknown = sorted(set(found) - {"learner", "teaching", "engine", "sync", "installation"})
    if unknown:
        raise ConfigError(f"{name} holds an unknown setting {unknown[0]!r}: remove it")
    try:
        return Settings(
            dict(found.get("learner", {})),
            _table(Teaching, found.get("teaching", {})),
            _table(EngineSettings, found.get("engine", {})),
            _sync(found.get("sync", {})),
            _table(InstallationSettings, found.get("installation", {})),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}: correct or remove it") from error


def write_settings(folder: Path, settings: Settings) -> None:
    """Put the settings into a state folder, in one step that survives a pulled plug.

    Raises:
        StoreError: the storage refuses; what was there before is untouched.
    """
    from edge_cl.memory.disk import guarded, sync_folder

    part = folder / f".part-{SETTINGS}"
    with guarded(f"writing {SETTINGS}"):
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(to_toml(settings).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / SETTINGS)
        sync_folder(folder)


def to_toml(settings: Settings) -> str:
    """Return the settings as TOML text that `parse_settings` reads back equal."""
    tables = {
        "learner": dict(settings.learner),
        "teaching": asdict(settings.teaching),
        "engine": asdict(settings.engine),
        "sync": asdict(settings.sync),
        "installation": asdict(settings.installation),
    }
    lines = [HEADER, f"format = {FORMAT}"]
    for name, table in tables.items():
        lines += _lines(name, table)
    return "\n".join(lines) + "\n"


def _lines(name: str, table: Mapping[str, Any]) -> list[str]:
    """Return a TOML table, and after its values the tables inside it."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = ["", f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in plain.items())]
    for key in sorted(table.keys() - plain.keys()):
        lines += _lines(f"{name}.{key}", table[key])
    return lines


def _parsed(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is not TOML ({error}): correct it, or restore a backup") from error


def _table(kind: Any, found: Any) -> Any:
    """Make a dataclass of a TOML table, each value of the type of its default."""
    if not isinstance(found, dict):
        raise TypeError(f"[{kind.__name__}] is not a table")
    known = {part.name: part.default for part in fields(kind)}
    for key, value in found.items():
        if key not in known:
            raise ValueError(f"{key!r} is no setting")
        if type(value) is not type(known[key]):
            raise TypeError(f"{key} must be of type {type(known[key]).__name__}, not {value!r}")
    return kind(**found)


def _sync(found: Any) -> SyncSettings:
    """Make the settings of [sync] and its table of classes."""
    if not isinstance(found, dict):
        raise TypeError("[sync] is not a table")
    classes = found.get("classes", {})
    if not isinstance(classes, dict) or not all(isinstance(level, str) for level in classes.values()):
        raise TypeError("[sync.classes] takes class names, each with a level in quotes")
    if len(classes) > MAX_PRIVATE:
        raise ValueError(f"[sync.classes] has more than {MAX_PRIVATE} classes")
    rest = {key: value for key, value in found.items() if key != "classes"}
    return replace(_table(SyncSettings, rest), classes=dict(classes))


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _value(key)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for the one control character that JSON lets stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
