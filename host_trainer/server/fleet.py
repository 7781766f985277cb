"""Opens what belongs to a fleet: its folder, its database, its objects, its repository of releases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edge_cl.errors import ConfigError
from host_trainer.release.folder import RepositoryFolder
from host_trainer.server.database import Database, open_database
from host_trainer.server.objects.store import ObjectStore, open_objects


class Address(NamedTuple):
    """Where a fleet keeps what is not in its folder; "" for each that is.

    Attributes:
        database: as in "postgresql://user@machine/name".
        objects: as in "s3://bucket/prefix".
        endpoint: of an S3-compatible server that is not Amazon's.
    """

    database: str = ""
    objects: str = ""
    endpoint: str = ""


class Fleet(NamedTuple):
    """What belongs to a fleet; made by `open_fleet`."""

    folder: Path
    database: Database
    objects: ObjectStore
    place: RepositoryFolder


@contextmanager
def open_fleet(folder: Path, address: Address = Address()) -> Iterator[Fleet]:  # noqa: B008 - a constant
    """Open a fleet that `host-trainer init` made; several processes may have it open.

    Raises:
        ConfigError: no fleet here, or an address that cannot be used.
        MismatchError: a database of a newer host-trainer.
        StoreError: database or store refuse.
    """
    place = RepositoryFolder(folder)
    if not place.exists():
        raise ConfigError(f"{folder} is not a fleet's folder: make one with `host-trainer init DIR`")
    objects = open_objects(folder, address.objects, address.endpoint)
    database = open_database(folder, address.database)
    try:
        yield Fleet(folder, database, objects, place)
    finally:
        database.close()
