"""Looks at this machine: which parts are installed, and which GPUs TensorFlow sees."""

from importlib import metadata
from importlib.util import find_spec

from edge_cl.errors import EngineError
from host_trainer.chatter import quiet_tensorflow
from host_trainer.doctor import PARTS, Finding, Part


def find_parts() -> list[Finding]:
    """Return every part of PARTS with its installed version; imports none of them."""
    return [Finding(part, _version(part)) for part in PARTS]


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that TensorFlow can use; empty without TensorFlow. Takes seconds.

    Raises:
        EngineError: TensorFlow is installed but does not load.
    """
    if find_spec("tensorflow") is None:
        return []
    quiet_tensorflow()
    try:
        import tensorflow
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise EngineError(f"TensorFlow is installed but does not load ({reason}): install it anew") from error
    gpus = tensorflow.config.list_physical_devices("GPU")
    return [
        tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
    ]


def _version(part: Part) -> str | None:
    if find_spec(part.module) is None:
        return None
    for package in part.packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
