"""A publisher that keeps its repository in memory, and a mirror that may lie, behind the real interface.

The documents are those of `host_trainer.release`, signed with real keys; what a thief of a key could sign, a
test makes with `forge`.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.api.metadata import Metadata, TargetFile

from edge_cl.device.transport import Fetcher
from edge_cl.wire.release import Facts, path_of
from host_trainer.release.repository import (
    FIRST_KEYS,
    KEY_NAME,
    Repository,
    described,
    found,
    name_of,
    promoted,
    renewed,
    rotated,
    with_target,
)
from host_trainer.release.signing import seal

START = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
URL = "https://host.example/repository/"
MODEL = "waste"


class Publisher:
    """Founds, publishes, rotates; `files` is what an honest server serves, by path."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now
        self.signers: dict[str, CryptoSigner] = {}
        self.files: dict[str, bytes] = {}
        self.repository: Repository | None = None
        self._bring(found({name: self._key(name) for name in FIRST_KEYS}, [MODEL], now))

    @property
    def root(self) -> bytes:
        """The root a device is enrolled with."""
        return self.files["metadata/1.root.json"]

    def publish(
        self, name: str, data: bytes, facts: Facts, channel: str = "stable", sha256: str | None = None
    ) -> None:
        target = described(TargetFile.from_data(path_of(MODEL, channel, name), data, ["sha256"]), facts)
        if sha256 is not None:
            target.hashes = {"sha256": sha256}
        self.files[f"targets/{target.get_prefixed_paths()[0]}"] = data
        self._bring(with_target(self._now(), MODEL, channel, target, self.now))

    def promote(self, name: str, to: str) -> None:
        after, source, target = promoted(self._now(), MODEL, name, to, self.now)
        held = self.files[f"targets/{source.get_prefixed_paths()[0]}"]
        self.files[f"targets/{target.get_prefixed_paths()[0]}"] = held
        self._bring(after)

    def renew(self, *roles: str, days: float = 0) -> None:
        self.now += timedelta(days=days)
        self._bring(renewed(self._now(), roles, self.now))

    def rotate(self, old: str, new: str) -> None:
        self._bring(rotated(self._now(), old, self._key(new), self.now))

    def forge(self, name: str, edit: Callable[[Any], None], by: Iterable[str]) -> bytes:
        """Return the document of a file, edited and signed with these keys; nothing else changes."""
        document = Metadata.from_bytes(self.files[f"metadata/{name}"])
        edit(document.signed)
        document.signatures.clear()
        for key in by:
            document.sign(self.signers[key], append=True)
        return document.to_bytes()

    def seize(self, edit: Callable[[Repository], None], keys: Iterable[str]) -> None:
        """Let a thief of these keys change the documents in place and sign them with what he has."""
        taken = copy.deepcopy(self._now())
        edit(taken)
        held = {name: signer for name, signer in self.signers.items() if name in set(keys)}
        self._bring(taken, held)

    def _now(self) -> Repository:
        assert self.repository is not None
        return self.repository

    def _key(self, name: str) -> Key:
        signer = self.signers[name] = CryptoSigner.generate_ed25519()
        signer.public_key.unrecognized_fields[KEY_NAME] = name
        return signer.public_key

    def _bring(self, after: Repository, held: dict[str, CryptoSigner] | None = None) -> None:
        signers = self.signers if held is None else held

        def signer_of(key: Key) -> Signer | None:
            return signers.get(name_of(key))

        sealed = seal(self.repository, after, signer_of)
        self.files |= {f"metadata/{name}": data for name, data in sealed.files}
        self.repository = sealed.repository


class Mirror(Fetcher):
    """Serves a publisher's files, or what a test puts before them; it keeps a list of what was asked.

    Attributes:
        publisher: whose files are served.
        instead: other bytes for some paths; None for a path that is not to be had.
        cut: after so many bytes of a release file the connection breaks; None: never.
        asked: (path, first byte) of every request.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.instead: dict[str, bytes | None] = {}
        self.cut: int | None = None
        self.asked: list[tuple[str, int]] = []

    def freeze(self) -> None:
        """Serve from now on what there is now, whatever the publisher does."""
        self.instead = {**self.publisher.files, **self.instead}

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter((self._found(url, 0),))

    def fetch_from(self, url: str, start: int, size_bytes: int) -> Iterator[bytes]:
        return self._pieces(self._found(url, start)[start:])

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        for first in range(0, len(data), 1_000):
            if self.cut is not None and first >= self.cut:
                raise DownloadError("cut")
            yield data[first : first + 1_000]

    def _found(self, url: str, start: int) -> bytes:
        path = url.removeprefix(URL)
        self.asked.append((path, start))
        data = self.instead.get(path, self.publisher.files.get(path))
        if data is None:
            raise DownloadHTTPError("not found", 404)
        return data
