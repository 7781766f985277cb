"""A fleet's folder, a host that serves it, and learners to be enrolled with it."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from simulators.home import furnish, teach
from simulators.hosting import Hosted, hosting
from simulators.workshop import all_photos, backbone, ok, photos, state, taught

from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import found_repository

__all__ = ["all_photos", "backbone", "photos", "state", "taught"]


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `host-trainer init` makes; copied, not used."""
    place = RepositoryFolder(tmp_path_factory.mktemp("founded") / "FLEET")
    ring = Keyring(place.key_folders(), lambda words: b"")
    found_repository(place, ring, ["waste", "signs"], b"", datetime.now(timezone.utc))
    return place.folder


@pytest.fixture
def fleet(founded: Path, tmp_path: Path) -> Path:
    """A fleet's folder."""
    return Path(shutil.copytree(founded, tmp_path / "FLEET"))


@pytest.fixture
def host(fleet: Path) -> Iterator[Hosted]:
    """A host on this machine, without TLS."""
    with hosting(fleet) as hosted:
        yield hosted


@pytest.fixture(scope="session")
def furnished(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner that was taught three classes by features, and never heard of a host; copied, not used."""
    folder = tmp_path_factory.mktemp("home") / "state"
    model = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    ok("init", "--state", folder, "--backbone", model, "--buffer-bytes", "100k", "--views", "2", "--no-audit")
    furnish(folder)
    for name in ("mug", "fork", "lamp"):
        teach(folder, name, 6)
    return folder
