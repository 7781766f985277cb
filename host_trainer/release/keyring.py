"""Touches key files: makes them for their owner's eyes only, finds them by name, opens them once.

A key is `NAME.pem` (Ed25519 in PKCS #8), under a passphrase or not. Those a host needs day by day lie in
`keys/online`; the others in `keys/offline`, from where they are meant to be moved to a medium of their own.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from edge_cl.errors import ConfigError, StoreError
from host_trainer.artefacts import PART, sync_folder
from host_trainer.release.repository import KEY_NAME, OFFLINE, name_of, stem

ONLINE_FOLDER, OFFLINE_FOLDER = "online", "offline"
SUFFIX, RETIRED = ".pem", ".pem.retired"
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
ENCRYPTED = b"ENCRYPTED PRIVATE KEY"

AskPassphrase = Callable[[str], bytes]  # called with a line for the person; b"" for none


class Keyring:
    """The private keys that are at hand.

    Args:
        folders: where to look, in this order.
        ask: gives the passphrase; asked at most once, and only when a key is under one.
    """

    def __init__(self, folders: Iterable[Path], ask: AskPassphrase) -> None:
        self.folders = tuple(folders)
        self._ask = ask
        self._passphrase: bytes | None = None
        self._opened: dict[str, Signer | None] = {}

    def signer_of(self, key: Key) -> Signer | None:
        """Return the private half of a public key; None where no folder holds it.

        Raises:
            ConfigError: the file is readable by others, not a key, another key, or the passphrase is wrong.
        """
        if key.keyid not in self._opened:
            path = self.find(name_of(key))
            self._opened[key.keyid] = None if path is None else self._open(path, key)
        return self._opened[key.keyid]

    def find(self, name: str) -> Path | None:
        """Return the file of a key; None where no folder holds it."""
        paths = (folder / f"{name}{SUFFIX}" for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)

    def make(self, name: str, passphrase: bytes, folder: Path) -> SSlibKey:
        """Make a key in a folder and return its public half; b"" writes it without a passphrase."""
        private = Ed25519PrivateKey.generate()
        wrapped: KeySerializationEncryption = NoEncryption()
        if passphrase:
            wrapped = BestAvailableEncryption(passphrase)
        _write_private(
            folder / f"{name}{SUFFIX}", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, wrapped)
        )
        signer = CryptoSigner(private)
        key = signer.public_key
        key.unrecognized_fields[KEY_NAME] = name
        self._opened[key.keyid] = signer
        return key

    def next_name(self, old: str, used: Iterable[str]) -> str:
        """Return the name for the key that takes the place of `old`: the lowest number never used."""
        names = {*used, *(path.name.partition(".")[0] for folder in self.folders for path in _files(folder))}
        numbers = [int(name.rpartition("-")[2]) for name in names if _is_of(name, stem(old))]
        return f"{stem(old)}-{max(numbers, default=0) + 1}"

    def retire(self, name: str) -> None:
        """Put a key aside that no role has any more; nothing happens where it is not at hand."""
        path = self.find(name)
        if path is not None:
            path.replace(path.with_name(f"{name}{RETIRED}"))

    def discard(self, name: str) -> None:
        """Remove a key that was made a moment ago and is not used."""
        path = self.find(name)
        if path is not None:
            path.unlink()

    def is_encrypted(self, name: str) -> bool:
        """Tell whether a key at hand is under a passphrase."""
        path = self.find(name)
        return path is not None and ENCRYPTED in path.read_bytes()

    def passphrase(self) -> bytes:
        """Return the passphrase, asked for once."""
        if self._passphrase is None:
            self._passphrase = self._ask("Passphrase of the keys")
        return self._passphrase

    def _open(self, path: Path, key: Key) -> Signer:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}, and rotate the key if it was")
        data = path.read_bytes()
        password = self.passphrase() if ENCRYPTED in data else None
        try:
            private = load_pem_private_key(data, password or None)
            signer = CryptoSigner(private)  # refuses what it cannot sign with
        except TypeError as error:
            raise ConfigError(f"{path} is under a passphrase: give it with --passphrase-file") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{path} does not open: the passphrase is wrong, or it is no key") from error
        if signer.public_key.keyid != key.keyid:
            raise ConfigError(f"{path} is not the key that the repository knows as {name_of(key)}")
        return signer


def key_folder(keys: Path, name: str) -> Path:
    """Return the folder a new key belongs into."""
    return keys / (OFFLINE_FOLDER if stem(name) in OFFLINE else ONLINE_FOLDER)


def _write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read; it is there whole or not at all."""
    part = path.with_name(f"{PART}{path.name}")
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.link(part, path)  # unlike a rename, never over a key that is there
        part.unlink()
        sync_folder(path.parent)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already: a key is never written over") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}): check space and rights") from error


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_of(name: str, role: str) -> bool:
    return re.fullmatch(rf"{re.escape(role)}-[0-9]+", name) is not None
