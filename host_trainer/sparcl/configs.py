"""Reads what a training is given from a TOML file, beside what it is expected to reach and to take.

command = "host-trainer train --config FILE ..."

[expected]                # all of it may be left out
class_il = 0.6488         # share of unseen pictures, after the last task
task_il = 0.9192
source = "Buzzega et al. 2020"
hours = 2.0
basis = "estimate: ..."   # of the hours

[train]                   # options of `host-trainer train`, by name
data = "cifar10"
method = "derpp"
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge_cl.errors import ConfigError

MAX_BYTES = 64 << 10  # ours are about 1 KB
WORDS = ("data", "network", "weights", "augment", "method", "protocol", "mode", "without", "new_data")
PLACES = ("out", "cache", "origin", "data_root")
COUNTS = ("epochs", "batch", "seed", "save_every", "tasks", "buffer", "workers")
MEASURES = ("rate", "sparsity", "clip", "alpha", "beta")
KINDS: dict[str, type] = {
    **dict.fromkeys((*WORDS, *PLACES), str),
    **dict.fromkeys(COUNTS, int),
    **dict.fromkeys(MEASURES, float),
}
NAMES = {"from": "origin"}  # in the file, and as a parameter


@dataclass(frozen=True)
class Expected:
    """What a training should reach and take; None where nothing is published or measured."""

    class_il: float | None = None
    task_il: float | None = None
    source: str = ""
    hours: float | None = None
    basis: str = ""


@dataclass(frozen=True)
class Config:
    """One file.

    Attributes:
        name: of the file, without its ending.
        command: what runs it.
        expected: what should come out.
        given: options by parameter name; paths as Path.
    """

    name: str
    command: str
    expected: Expected
    given: Mapping[str, Any]


def read_config(path: Path) -> Config:
    """Read a file.

    Raises:
        ConfigError: no such file, no TOML, or names and values that are not as above.
    """
    told = _parsed(_text(path), path)
    unknown = told.keys() - {"command", "expected", "train"}
    if unknown or not isinstance(told.get("train"), dict) or not isinstance(told.get("expected", {}), dict):
        wrong = f"{sorted(unknown)[0]!r} is nothing of" if unknown else "there is no [train] in"
        raise ConfigError(f"{wrong} {path}: give command, [expected] and [train]")
    expected = {
        name: _value(name, value, _kind(name), path) for name, value in told.get("expected", {}).items()
    }
    given = {}
    for name, value in told["train"].items():
        parameter = NAMES.get(name, name).replace("-", "_")
        if parameter not in KINDS:
            raise ConfigError(
                f"{name!r} in {path} is no option of a training: give {', '.join(sorted(KINDS))}"
            )
        found = _value(name, value, KINDS[parameter], path)
        given[parameter] = Path(found) if parameter in PLACES else found
    return Config(
        path.stem, _value("command", told.get("command", ""), str, path), Expected(**expected), given
    )


def _kind(name: str) -> type:
    known = {field.name for field in fields(Expected)}
    if name not in known:
        return type(None)
    return str if name in ("source", "basis") else float


def _value(name: str, value: Any, kind: type, path: Path) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        wanted = "nothing that is known" if kind is type(None) else f"no {kind.__name__}"
        raise ConfigError(f"{name} = {value!r} in {path} is {wanted}: see the files in benchmarks/configs")
    return value


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes: it is no file of options")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read ({reason}): give a TOML file of options") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML ({error}): correct it") from error
