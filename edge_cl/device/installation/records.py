"""Touches `installation/record.json` of a state folder: where an installation stands, told before it acts."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_cl.device import install
from edge_cl.device.install import write_atomically
from edge_cl.device.installation.states import PROBATION, STATES, Record
from edge_cl.errors import MismatchError, StoreDamagedError
from edge_cl.memory.disk import guarded, sync_folder

FOLDER = "installation"
NAME = "record.json"
FORMAT = 1
MAX_BYTES = 1 << 20  # ours has a few hundred bytes, and up to some hundred a class


def place(folder: Path) -> Path:
    """Return where an installation keeps its things."""
    return folder / FOLDER


def read(folder: Path) -> Record:
    """Return the record; what the pointer says stands where there is none, or it is damaged.

    Raises:
        MismatchError: written by a newer edge-cl.
    """
    try:
        data = (place(folder) / NAME).read_bytes()[:MAX_BYTES]
        return _parsed(json.loads(data.decode("utf-8")))
    except FileNotFoundError:
        return _derived(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _derived(folder)


def write(folder: Path, record: Record) -> None:
    """Persist the record; when this returns, no crash takes it back.

    Raises:
        StoreError: the storage refuses; the earlier one stands.
    """
    found = {
        "format": FORMAT,
        **record._asdict(),
        "retaught": _plain(record.retaught),
        "facts": _plain(record.facts),
    }
    with guarded("making the folder of the installation"):
        if not place(folder).is_dir():
            place(folder).mkdir(parents=True)
            sync_folder(folder)
    write_atomically(place(folder) / NAME, (json.dumps(found, indent=2) + "\n").encode("utf-8"))


def tidy(place: Path) -> None:
    """Remove what an interrupted write left half done; nobody else may be writing there."""
    with guarded("tidying up after an installation"):
        for path in place.glob(f"{install.LEFTOVER}*"):
            path.unlink()


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}


def _parsed(found: Any) -> Record:
    if found["format"] > FORMAT:
        raise MismatchError("an installation was begun by a newer edge-cl: upgrade edge-cl")
    values = {name: found[name] for name in Record._fields}
    for name, default in Record._field_defaults.items():
        is_count = isinstance(default, float) and isinstance(values[name], int)
        if name != "taken" and not is_count and not isinstance(values[name], type(default)):
            if not (isinstance(default, Mapping) and isinstance(values[name], dict)):
                raise TypeError(name)
    if values["state"] not in STATES or not isinstance(values["taken"], str | None):
        raise ValueError("state")
    return Record(**values)


def _derived(folder: Path) -> Record:
    """Return what can be said without a record: a fallback means that a release is on probation."""
    with contextlib.suppress(StoreDamagedError):
        current = install.read_current(folder)
        if current.fallback is not None and current.bundle is not None:
            return Record(PROBATION, staged=current.bundle, old=current.fallback.bundle or "")
    return Record()
