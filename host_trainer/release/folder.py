"""Touches the folder of a repository: reads its documents, and brings in new ones so that it is always whole.

DIR/repository/metadata/    the documents, as any HTTP server may serve them
DIR/repository/targets/     the releases, each under its hash
DIR/keys/                   see `keyring`
DIR/pending/                files that are complete and on their way into `repository`
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile
from tuf.api.serialization import DeserializationError

from edge_cl.errors import ConfigError, ReleaseError, StoreError
from host_trainer.artefacts import make_folder, remove_folder, staged_folder, write_file
from host_trainer.release.keyring import OFFLINE_FOLDER, ONLINE_FOLDER
from host_trainer.release.repository import Repository
from host_trainer.release.signing import TIMESTAMP, Sealed, verify

REPOSITORY, METADATA, TARGETS = "repository", "metadata", "targets"
KEYS, PENDING, LOCK = "keys", "pending", "lock"


class RepositoryFolder:
    """A repository on the disk; `locked` holds it while it is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / REPOSITORY / METADATA
        self.targets = folder / REPOSITORY / TARGETS
        self.keys = folder / KEYS

    def exists(self) -> bool:
        """Tell whether a repository was founded here."""
        return (self.metadata / TIMESTAMP).exists() or (self.folder / PENDING).exists()

    def key_folders(self, more: tuple[Path, ...] = ()) -> tuple[Path, ...]:
        """Return where to look for keys: folders that were named, then the repository's own."""
        return (*more, self.keys / ONLINE_FOLDER, self.keys / OFFLINE_FOLDER)

    @contextmanager
    def locked(self, *, new: bool = False) -> Iterator[None]:
        """Let one process at a time change the repository, and finish what an interrupted one had begun."""
        if not new and not self.exists():
            raise ConfigError(self._nothing())
        make_folder(self.folder)
        with (self.folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.folder / PENDING).exists():
                self._bring_in()
            yield

    def read(self) -> Repository:
        """Return the documents that the timestamp leads to, verified.

        Raises:
            ConfigError: no repository here.
            ReleaseError: a document is missing, damaged, or not signed as it must be.
        """
        if not self.exists():
            raise ConfigError(self._nothing())
        timestamp = self._document(TIMESTAMP)
        snapshot = self._document(f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
        listed = {
            name: self._document(f"{each.version}.{name}") for name, each in snapshot.signed.meta.items()
        }
        targets = listed.pop("targets.json")
        channels = {name.removesuffix(".json"): document for name, document in listed.items()}
        repository = Repository(self._newest_root(), targets, channels, snapshot, timestamp)
        verify(repository)
        return repository

    def target_file(self, target: TargetFile) -> Path:
        """Return where a target lies: a name that no other content has."""
        return self.targets / target.get_prefixed_paths()[0]

    def write(self, sealed: Sealed) -> None:
        """Bring in new documents; interrupted, the old or the new ones are valid, and `locked` ends it."""
        with staged_folder(self.folder / PENDING, overwrite=True) as part:
            for number, (name, data) in enumerate(sealed.files):
                (part / f"{number:06d}-{name}").write_bytes(data)  # the order is part of the name
        self._bring_in()

    def _bring_in(self) -> None:
        make_folder(self.metadata)
        for path in sorted((self.folder / PENDING).iterdir()):
            write_file(self.metadata / path.name.partition("-")[2], path.read_bytes())
        remove_folder(self.folder / PENDING)

    def _nothing(self) -> str:
        return f"{self.folder} holds no repository: make one with `host-trainer init DIR`"

    def trusted_root(self) -> bytes:
        """Return the newest root as bytes: what a device is enrolled with.

        Raises:
            ReleaseError: it cannot be read.
        """
        name = self._newest_root_name()
        try:
            return (self.metadata / name).read_bytes()
        except OSError as error:
            raise ReleaseError(f"{self.metadata / name} does not read ({error}): restore it") from error

    def _newest_root(self) -> Metadata[Any]:
        return self._document(self._newest_root_name())

    def _newest_root_name(self) -> str:
        version = 1
        while (self.metadata / f"{version + 1}.root.json").exists():
            version += 1
        return f"{version}.root.json"

    def _document(self, name: str) -> Metadata[Any]:
        try:
            return Metadata.from_bytes((self.metadata / name).read_bytes())
        except (OSError, DeserializationError, RepositoryError) as error:
            raise ReleaseError(
                f"{self.metadata / name} does not read ({error}): restore a copy of it"
            ) from error


def add_file(path: Path, source: Path) -> None:
    """Put a copy of a release under its name; StoreError when that cannot be done."""
    make_folder(path.parent)
    try:
        write_file(path, source.read_bytes())
    except OSError as error:
        raise StoreError(f"{source} cannot be copied ({error.strerror}): check its rights") from error
