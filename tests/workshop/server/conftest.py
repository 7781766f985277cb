"""What the server's tests share: an empty fleet, on SQLite and a folder, or on PostgreSQL and a bucket."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from simulators import bucket, postgres

from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import found_repository
from host_trainer.server.fleet import Address, Fleet, open_fleet

DATABASES = ("sqlite", "postgresql")
MODEL = "waste"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL database of our own."""
    if why := postgres.why_not():
        pytest.skip(why)
    with postgres.cluster() as address:
        yield address


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of an S3-compatible server with a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.ENVIRONMENT.items():
            patch.setenv(name, value)
        with bucket.s3() as address:
            yield address


@pytest.fixture(params=DATABASES)
def database_address(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, each kind in turn; "" for SQLite's file in the fleet's folder."""
    if request.param == "sqlite":
        return ""
    return postgres.fresh(request.getfixturevalue("postgresql"))


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `host-trainer init` makes; copied, not used."""
    place = RepositoryFolder(tmp_path_factory.mktemp("founded") / "FLEET")
    ring = Keyring(place.key_folders(), lambda words: b"")
    found_repository(place, ring, [MODEL], b"", datetime.now(timezone.utc))
    return place.folder


@pytest.fixture
def folder(founded: Path, tmp_path: Path) -> Path:
    """A fleet's folder as `host-trainer init` makes it."""
    return Path(shutil.copytree(founded, tmp_path / "FLEET"))


@pytest.fixture
def fleet(folder: Path, database_address: str) -> Iterator[Fleet]:
    """An empty fleet, on each kind of database in turn."""
    with open_fleet(folder, Address(database_address)) as opened:
        yield opened


@pytest.fixture
def small_fleet(folder: Path) -> Iterator[Fleet]:
    """An empty fleet on SQLite, for what does not depend on the database."""
    with open_fleet(folder) as opened:
        yield opened
