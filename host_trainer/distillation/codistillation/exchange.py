"""Passes checkpoints between peers: a store of whole files, the only thing that peers share.

A store needs two promises, which a folder and an object store both keep: what is published appears whole or
not at all, and what is listed can be read until it is pruned. Weights travel as safetensors, never pickled.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from edge_cl.errors import MismatchError, ProtocolError, StoreError
from edge_cl.wire.tensors import pack, unpack
from host_trainer.artefacts import PART, make_folder, write_file
from host_trainer.checkpoints import LIMITS

VERSION = "1"
NAME = re.compile(r"step-(\d{9})\.safetensors")


class Published(NamedTuple):
    """What a peer was after some steps: weights by Keras path."""

    peer: int
    step: int
    weights: dict[str, np.ndarray]


class Store(Protocol):
    """Where peers leave their checkpoints for each other."""

    def publish(self, peer: int, step: int, data: bytes) -> None:
        """Make a checkpoint visible in one step; one of the same step gives way. Old ones may go."""

    def steps(self, peer: int) -> list[int]:
        """Return the steps that a peer has published and that are still there, in order."""

    def read(self, peer: int, step: int) -> bytes | None:
        """Return a checkpoint, None when it has been pruned meanwhile."""


class FolderStore:
    """A folder on one machine, or on a file system that many share: `peer-0/step-000000050.safetensors`."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError("a store keeps at least one checkpoint of each peer")
        self._root, self._keep = root, keep

    def publish(self, peer: int, step: int, data: bytes) -> None:
        """Write a checkpoint, then remove this peer's oldest and what a killed writer left.

        Raises:
            StoreError: no space, no permission.
        """
        folder = make_folder(self._folder(peer))
        for left in folder.glob(f"{PART}*"):  # one writer a peer: whatever is half written is from before
            left.unlink(missing_ok=True)
        write_file(folder / f"step-{step:09d}.safetensors", data)
        for old in self.steps(peer)[: -self._keep]:
            (folder / f"step-{old:09d}.safetensors").unlink(missing_ok=True)

    def steps(self, peer: int) -> list[int]:
        """Return the steps that are there, in order; half-written files are not."""
        folder = self._folder(peer)
        names = (NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(name[1]) for name in names if name)

    def read(self, peer: int, step: int) -> bytes | None:
        """Return a checkpoint, None when it has been pruned meanwhile.

        Raises:
            StoreError: the storage refuses.
        """
        path = self._folder(peer) / f"step-{step:09d}.safetensors"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}): check the storage") from error

    def _folder(self, peer: int) -> Path:
        return self._root / f"peer-{peer}"


def packed(published: Published) -> bytes:
    """Return a checkpoint as bytes; equal ones give equal bytes."""
    facts = {"version": VERSION, "peer": str(published.peer), "step": str(published.step)}
    return pack(published.weights, facts)


def unpacked(data: bytes) -> Published:
    """Read a checkpoint back.

    Raises:
        ProtocolError: not a checkpoint of ours.
        MismatchError: of a newer version.
    """
    weights, facts = unpack(data, LIMITS)
    if facts.keys() != {"version", "peer", "step"} or not (facts["peer"] + facts["step"]).isdigit():
        raise ProtocolError("these tensors are no peer's checkpoint")
    if facts["version"] != VERSION:
        raise MismatchError(f"a peer publishes in version {facts['version']}: run one version everywhere")
    return Published(int(facts["peer"]), int(facts["step"]), weights)


def newest(store: Store, peer: int, held: Mapping[int, int]) -> Published | None:
    """Return a peer's newest checkpoint, None when there is none that is newer than the one held."""
    for step in reversed(store.steps(peer)):
        if step <= held.get(peer, -1):
            return None
        data = store.read(peer, step)
        if data is not None:  # else pruned since it was listed, and a newer one will be there next time
            return unpacked(data)
    return None


def exactly(store: Store, peer: int, step: int) -> Published | None:
    """Return a peer's checkpoint of one step, None when it is not there (yet)."""
    data = store.read(peer, step)
    return None if data is None else unpacked(data)
