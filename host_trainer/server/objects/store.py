"""What a store of objects must do, and which one an address names."""

from collections.abc import Set
from pathlib import Path
from typing import Protocol

from edge_cl.errors import ConfigError

FOLDER = "objects"
S3 = "s3://"


class ObjectStore(Protocol):
    """Bytes by the SHA-256 of them, hex. Each call raises StoreError when the store refuses."""

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes, so that no power cut takes them; the same key again changes nothing."""

    def get(self, key: str) -> bytes:
        """Return the bytes, checked against their key.

        Raises:
            StoreDamagedError: there are none, or others.
        """

    def remove(self, key: str) -> None:
        """Destroy the bytes; where there are none, nothing happens."""

    def sweep(self, used: Set[str], before: int) -> int:
        """Destroy what was last put before a time (Unix seconds) and is not used; return how many."""

    def check(self) -> None:
        """Raise StoreError when nothing could be kept now."""


def open_objects(folder: Path, address: str = "", endpoint: str = "") -> ObjectStore:
    """Return the store of a fleet.

    Args:
        folder: of the fleet, in which `objects/` lies.
        address: as in "s3://bucket/prefix"; "" for the folder.
        endpoint: of an S3-compatible server that is not Amazon's; "" for Amazon's.

    Raises:
        ConfigError: the address cannot be used.
        StoreError: the store refuses.
    """
    if not address:
        from host_trainer.server.objects.folder import FolderStore

        return FolderStore(folder / FOLDER)
    if not address.startswith(S3):
        raise ConfigError(f"{address} names no store of objects: give s3://BUCKET/PREFIX, or none")
    from host_trainer.server.objects.s3 import S3Store

    bucket, _, prefix = address.removeprefix(S3).partition("/")
    return S3Store(bucket, prefix.strip("/"), endpoint)
