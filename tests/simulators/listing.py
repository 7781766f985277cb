"""Bundles that a signed repository lists: a true manifest, parts that nobody runs, real signatures."""

from datetime import datetime, timezone
from pathlib import Path

from edge_cl.wire.bundle import GOLDEN, HEAD, Gates, Input, Manifest, Space, described, pack
from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import Listed, publish

SPACE = Space("0" * 16, 4, "int8", 0.5, 0)
PARTS = {"backbone.tflite": b"\x1c\0\0\0TFL3" + bytes(64), HEAD: b"head" * 20, GOLDEN: b"golden"}


def manifest(number: int, model: str = "waste", hardware: tuple[str, ...] = ("any",)) -> Manifest:
    """Return the manifest of a bundle."""
    return Manifest(
        bundle=number,
        parent=0,
        model=model,
        hardware=hardware,
        runtime_from="0.1.0",
        runtime_below="0.3.0",
        space=SPACE,
        labels=("mug", "fork"),
        registry=0,
        input=Input(8, 8, -1.0, 1.0, "squash", True),
        gates=Gates(800, 10, 4, 990, 20_000, 0),
        parts=tuple(described(name, data) for name, data in PARTS.items()),
        run=f"run-{number}",
    )


def list_bundle(
    fleet: Path,
    number: int,
    model: str = "waste",
    channel: str = "canary",
    hardware: tuple[str, ...] = ("any",),
) -> Listed:
    """Sign a bundle into a channel of a fleet's repository."""
    made = manifest(number, model, hardware)
    file = fleet / f"{model}-{number}-{'-'.join(hardware)}.bundle"
    file.write_bytes(pack(made, PARTS))
    place = RepositoryFolder(fleet)
    ring = Keyring(place.key_folders(), lambda words: b"")
    return publish(place, ring, file, model, channel, made.facts, datetime.now(timezone.utc))
