"""Says how a retraining hears what devices sent: from nobody, from a folder of contents, from the server."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_cl.errors import InputError, ProtocolError
from edge_cl.wire.codec import decode
from edge_cl.wire.labels import Edits
from edge_cl.wire.messages import Features, Images, Statistics

SUFFIX = ".content"
ContentKey = tuple[str, str]  # device, hash


class Received(NamedTuple):
    """A content as it was committed.

    Attributes:
        device: whose it is.
        id: its hash, as the device sent it.
        level: as the device said.
        data: its bytes.
        is_reduced: the device had samples of it destroyed since, so its bytes are others by now.
    """

    device: str
    id: str
    level: str
    data: bytes
    is_reduced: bool = False


class Contents(Protocol):
    """What the devices of a fleet sent."""

    def committed(self, known: frozenset[str]) -> Iterable[Received]:
        """Return what is there to learn from, oldest first, but for what is known by its hash."""
        ...

    def edits(self) -> Edits:
        """Return the fleet's registry of classes."""
        ...

    def announce(self, model: str, bundle: int, taken: Mapping[str, str]) -> None:
        """Hear which newest statistics of each device a bundle contains, before it is published."""
        ...

    def close(self, taken: Iterable[ContentKey], quarantined: Mapping[ContentKey, str]) -> None:
        """Hear which contents were learned from, and which are set aside, and why."""
        ...


class Silence:
    """Nobody sent anything."""

    def committed(self, known: frozenset[str]) -> Iterable[Received]:
        """See `Contents`."""
        return ()

    def edits(self) -> Edits:
        """See `Contents`."""
        return ()

    def announce(self, model: str, bundle: int, taken: Mapping[str, str]) -> None:
        """See `Contents`."""

    def close(self, taken: Iterable[ContentKey], quarantined: Mapping[ContentKey, str]) -> None:
        """See `Contents`."""


class FolderContents:
    """Contents as files, `NAME.content` at any depth, in the order of their names; nothing is written.

    Args:
        folder: where they lie.
        registry: of classes.
    """

    def __init__(self, folder: Path, registry: Edits = ()) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: give one that holds contents, *{SUFFIX}")
        self._folder, self._registry = folder, registry

    def committed(self, known: frozenset[str]) -> Iterable[Received]:
        """See `Contents`; a file that does not read is handed on as it is, for intake to set aside."""
        for path in sorted(self._folder.rglob(f"*{SUFFIX}")):
            data = path.read_bytes()
            name = hashlib.sha256(data).hexdigest()
            if name not in known:
                device, level = _facts(data, path.relative_to(self._folder).parts[0])
                yield Received(device, name, level, data)

    def edits(self) -> Edits:
        """See `Contents`."""
        return self._registry

    def announce(self, model: str, bundle: int, taken: Mapping[str, str]) -> None:
        """See `Contents`; the runs themselves tell."""

    def close(self, taken: Iterable[ContentKey], quarantined: Mapping[ContentKey, str]) -> None:
        """See `Contents`; the runs themselves tell what was learned from."""


def _facts(data: bytes, name: str) -> tuple[str, str]:
    """Return the device and the level that a content itself tells."""
    try:
        found = decode(data, (Statistics, Features, Images))
    except ProtocolError:
        return name, "statistics"
    assert isinstance(found, (Statistics, Features, Images))  # noqa: S101 - of the three
    return found.device, type(found).__name__.lower()
