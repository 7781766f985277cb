"""Says where the backbone that ships with edge-cl lies: in the installed package, in a checkout beside it."""

from pathlib import Path

from edge_cl.errors import ConfigError

BACKBONE = "mobilenetv2_035_96.tflite"
PACKAGE = Path(__file__).resolve().parents[1]
PLACES = (PACKAGE / "models", PACKAGE.parent / "models")  # as setup.py puts it; as the checkout has it


def find() -> Path | None:
    """Return the file of the backbone that ships; None where it was left out to save room."""
    return next((place / BACKBONE for place in PLACES if (place / BACKBONE).is_file()), None)


def named_or_shipped(named: Path | None) -> Path:
    """Return the file that a person named, else the one that ships.

    Raises:
        ConfigError: none was named, and none is here.
    """
    file = named or find()
    if file is None:
        raise ConfigError(f"{BACKBONE} is not in this installation: name a .tflite image model")
    return file
