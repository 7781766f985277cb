"""Fixtures that every folder of tests may use."""

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real pictures and models: EDGE_CL_DATA, else ../shared/data beside the checkout."""
    named = os.environ.get("EDGE_CL_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not (folder / "models").is_dir():
        pytest.skip(f"no real pictures and models in {folder}: set EDGE_CL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def models_dir(data_dir: Path) -> Path:
    """Folder of real TFLite files, grouped by origin."""
    return data_dir / "models"
