"""Moves the pointer to a release, back from it, or away from what was before it; every move may be repeated.

    swap    bundle, checkpoints and the way back in one step
    undo    the way back in one step; then features and files of the release go
    keep    the way back is given up in one step; then features and files of what was before go

All of it happens under the store's lock: nobody teaches meanwhile.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_cl.device import install
from edge_cl.device.install import Life
from edge_cl.memory.database import DATABASE
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import Store

if TYPE_CHECKING:
    from edge_cl.device.agent import Agent
    from edge_cl.device.installation.candidate import Candidate


def swap(folder: Path, agent: "Agent", staged: str, candidate: "Candidate") -> None:
    """Let a candidate go on where the agent stands; the agent must be closed after it, without saving.

    Two checkpoints are written, so that one of them may be damaged: the log before them belongs to the old
    life, and is no way to make the new one.

    Raises:
        StoreError: the storage refuses; the agent's life goes on.
    """
    agent.secure()
    header = agent.header(candidate.learner, candidate.taken)
    tensors = candidate.learner.flatten()
    names = [install.save_checkpoint(folder, tensors, header) for _ in range(2)]
    install.swap(folder, staged, (names[1], names[0]))


def undo(folder: Path, staged: str, note: Callable[[], None] = lambda: None) -> None:
    """Go back to what ran before a release, if that is in use, and remove what it brought.

    `note` is called before the pointer moves, under the lock.

    Raises:
        StoreBusyError: another process works in the folder.
        StoreError: the storage refuses, or what there was before is not whole.
    """
    current = install.read_current(folder)
    is_in_use = current.fallback is not None and current.bundle == staged
    life = current.fallback if is_in_use and current.fallback is not None else current.life
    with _store_of(folder, life) as store:
        note()
        if is_in_use:
            install.roll_back(folder)
        _tidy(folder, store, staged)


def keep(folder: Path, before: str) -> None:
    """Give up what ran before the release in use, and remove it; `before` is the hash of its bundle.

    Raises:
        StoreBusyError: another process works in the folder.
        StoreError: the storage refuses.
    """
    with _store_of(folder, install.read_current(folder).life) as store:
        install.commit_swap(folder)
        _tidy(folder, store, before)


def _tidy(folder: Path, store: Store | None, bundle: str) -> None:
    """Remove the features of the space that is not in use any more, and a bundle that is not."""
    if store is not None:
        store.drop_other()
    if bundle and bundle not in install.read_current(folder).bundles:
        install.remove_bundle(folder, bundle)


@contextlib.contextmanager
def _store_of(folder: Path, life: Life) -> Iterator[Store | None]:
    """Open the store in the space of a life, and hold its lock; None where nothing was taught yet."""
    if not (folder / DATABASE).exists():
        yield None
        return
    loaded = install.load_life(folder, life)
    with open_store(folder, str(loaded.header["space"]) if loaded else None) as store:
        yield store
