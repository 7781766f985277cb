"""A device that was taught three signs, and a host that knows three others."""

from pathlib import Path

import pytest
from simulators.releases import Host, of_folder, own_of

from edge_cl.config import InstallationSettings, read_settings, write_settings
from edge_cl.device.staged import model_path

PREDICTIONS, MINUTES = 3, 10


@pytest.fixture
def device(taught: Path) -> Path:
    """Taught the signs 0, 1 and 2; a probation is three answers and ten minutes."""
    settings = read_settings(taught)
    assert settings is not None
    policy = InstallationSettings(PREDICTIONS, MINUTES)
    write_settings(taught, settings.__class__(settings.learner, settings.teaching, settings.engine,
                                              settings.sync, policy))  # fmt: skip
    return taught


@pytest.fixture
def host(device: Path, all_photos: Path) -> Host:
    """Knows the signs 3, 4 and 5, and what the device has told."""
    return Host(model_path(device), of_folder(all_photos, "3", "4", "5"), own_of(device))


@pytest.fixture
def stranger(device: Path, all_photos: Path) -> Host:
    """Knows the signs 3, 4 and 5, and nothing of the device."""
    return Host(model_path(device), of_folder(all_photos, "3", "4", "5"))
