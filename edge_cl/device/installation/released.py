"""Reads what a release left in the state folder: its manifest, head, exemplars and golden answers."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_cl.device import install
from edge_cl.device.installation.records import place
from edge_cl.errors import ProtocolError, StoreDamagedError
from edge_cl.learning import head, snapshot
from edge_cl.learning.statistics import Statistics
from edge_cl.memory.disk import guarded
from edge_cl.wire import bundle as bundles
from edge_cl.wire import canonical
from edge_cl.wire.bundle import Bundle, Manifest
from edge_cl.wire.fields import from_plain, to_plain
from edge_cl.wire.tensors import Limits, pack, unpack

MANIFEST = "manifest.json"
STATISTICS = "head-{}.safetensors"  # what the head of a release tells, worked out; by its number
TRUSTED = Limits(header_bytes=8 << 20, tensors=64)  # our own file


class Release(NamedTuple):
    """A release in the state folder: what it is, and the hash under which it lies there."""

    manifest: Manifest
    staged: str


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return a manifest as it travels."""
    return canonical.write(to_plain(manifest))


def manifest_hash(manifest: Manifest) -> str:
    """Return the hash by which a host names a release."""
    return hashlib.sha256(manifest_bytes(manifest)).hexdigest()


def read_release(folder: Path, staged: str | None) -> Release | None:
    """Return the release that lies under a hash; None where a person chose the backbone, or nothing is there.

    Raises:
        StoreDamagedError: its manifest does not read back.
    """
    path = install.bundle_folder(folder, staged or "") / MANIFEST
    if not staged or not path.exists():
        return None
    with guarded("reading the release"):
        data = path.read_bytes()
    try:
        return Release(from_plain(Manifest, canonical.read(data)), staged)
    except ProtocolError as error:
        raise StoreDamagedError(
            f"the release in use is damaged ({error}): restore a backup with `edge-cl restore`"
        ) from error


def running(folder: Path) -> Release | None:
    """Return the release in use, None where a person chose the backbone."""
    return read_release(folder, install.read_current(folder).bundle)


def read_bundle(folder: Path, release: Release) -> Bundle:
    """Return a staged release with the parts that were kept of it.

    Raises:
        StoreDamagedError: a part does not read back.
    """
    files = {}
    where = install.bundle_folder(folder, release.staged)
    with guarded("reading the release"):
        for part in release.manifest.parts:
            if (where / part.name).exists():
                files[part.name] = (where / part.name).read_bytes()
    return Bundle(release.manifest, files)


# -- what the head of a release tells ----------------------------------------------------------------------


def head_statistics(folder: Path, number: int) -> Statistics | None:
    """Return the statistics that the head of the release in use tells, if that has this number.

    A later head may go on from them. None: another release is in use, or they are not at hand.
    """
    release = running(folder)
    if release is None or release.manifest.bundle != number:
        return None
    path = place(folder) / STATISTICS.format(number)
    if path.exists():
        return _kept_statistics(path)
    tensors = bundles.head(read_bundle(folder, release))
    return None if head.parent_of(tensors) else head.to_statistics(tensors)


def keep_statistics(folder: Path, number: int, statistics: Statistics) -> None:
    """Keep what the head of a release tells; needed only of one that went on from another."""
    tensors = {
        "counts": statistics.counts,
        "sums": statistics.sums,
        "moment": snapshot.upper_triangle(statistics.moment),
        "residue": np.array([statistics.residue], np.int64),
    }
    install.write_atomically(place(folder) / STATISTICS.format(number), pack(tensors))


def forget_statistics(folder: Path, but: int) -> None:
    """Remove what the heads of other releases told."""
    with guarded("removing what an old release told"):
        for path in place(folder).glob(STATISTICS.format("*")):
            if path.name != STATISTICS.format(but):
                path.unlink()


def _kept_statistics(path: Path) -> Statistics | None:
    try:
        tensors = unpack(path.read_bytes(), TRUSTED)[0]
        sums = tensors["sums"]
        moment = snapshot.symmetric(tensors["moment"], sums.shape[1])
        return Statistics(tensors["counts"], sums, moment, int(tensors["residue"][0]))
    except (OSError, ProtocolError, KeyError, ValueError, IndexError):
        return None  # a whole release brings them again
