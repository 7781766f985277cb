"""Opens the agent of a state folder: the release in use, its checkpoint, the log; also beside a writer."""

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_cl.config import Settings
from edge_cl.device import install
from edge_cl.device.agent import Agent
from edge_cl.device.allocator import return_large_blocks
from edge_cl.device.staged import open_staged, read_manifest, settings_of
from edge_cl.errors import ConfigError, MismatchError, StoreBusyError, StoreDamagedError, StoreError
from edge_cl.memory.database import DATABASE
from edge_cl.memory.opening import open_store
from edge_cl.vision.backbone import Backbone

if TYPE_CHECKING:
    from edge_cl.device.installation.probation import Watch

OPENING_ATTEMPTS = 5  # a reader starts anew when a writer moves the pointer meanwhile; that is rare


def open_agent(
    folder: Path,
    *,
    with_backbone: bool = False,
    read_only: bool = False,
    threads: int | None = None,
    isolate: bool | None = None,
    delegate: str | None = None,
) -> Agent:
    """Open the learner of a state folder; `None` takes what its config.toml says.

    Read-only works beside another process that writes, and on read-only storage.

    Raises:
        ConfigError: no learner here, nothing taught yet, or settings that make no sense.
        MismatchError: taught with another backbone, or by a newer version.
        StoreBusyError: another process writes here.
        EdgeError: and its other kinds, for storage, engine and backbone.
    """
    return_large_blocks()
    settings = settings_of(folder).with_engine(threads=threads, isolate=isolate, delegate=delegate)
    _settle(folder, settings)
    for attempt in range(OPENING_ATTEMPTS):
        before = install.read_current(folder)
        try:
            agent = _open(folder, settings, before, with_backbone, read_only)
        except (StoreError, MismatchError):
            if install.read_current(folder) == before or attempt == OPENING_ATTEMPTS - 1:
                raise
            continue
        # What was read while a writer moved the pointer may not fit together; the lock keeps it still.
        if not read_only or install.read_current(folder) == before:
            return agent
        agent.close()
    raise StoreBusyError(f"{folder} changes faster than it can be read: try again")


def _open(
    folder: Path, settings: Settings, current: install.Current, with_backbone: bool, read_only: bool
) -> Agent:
    with contextlib.ExitStack() as stack:
        backbone, watch = None, _watch_of(folder, current)
        if with_backbone:
            with watch.guarded() if watch else contextlib.nullcontext():
                backbone = stack.enter_context(open_staged(folder, settings, current.bundle))
        if (backbone is None or read_only) and not has_log(folder):
            raise ConfigError(f"nothing was taught in {folder} yet: run `edge-cl learn`")
        agent = stack.enter_context(
            contextlib.closing(_assembled(folder, settings, current, backbone, read_only, watch))
        )
        if not read_only:
            agent.put_in_order()
        stack.pop_all()
    return agent


def _settle(folder: Path, settings: Settings) -> None:
    """Undo a release on probation that has failed, before it is opened."""
    if install.read_current(folder).fallback is None:
        return  # nothing of releases is even imported
    from edge_cl.device.installation.probation import settle

    settle(folder, settings.installation)


def _watch_of(folder: Path, current: install.Current) -> "Watch | None":
    """Return the watchdog of the release in use; None where none is on probation."""
    if current.fallback is None or current.bundle is None:
        return None
    from edge_cl.device.installation.probation import Watch

    return Watch(folder, current.bundle)


def open_life(folder: Path, settings: Settings, life: install.Life) -> Agent:
    """Open for reading what a life that is not in use would know by now, by its checkpoint and the log.

    Works beside the agent that writes, in the same process too.

    Raises:
        EdgeError: as `open_agent`.
    """
    return _assembled(folder, settings, install.Current(*life), None, True, None)


def _assembled(
    folder: Path,
    settings: Settings,
    current: install.Current,
    backbone: Backbone | None,
    read_only: bool,
    watch: "Watch | None",
) -> Agent:
    manifest = read_manifest(folder, current.bundle)
    loaded, problem = _checkpoint(folder, current.life)
    space = backbone.space if backbone else loaded and str(loaded.header["space"])
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(folder, space, read_only=read_only))
        if not read_only and install.read_current(folder) != current:
            raise StoreBusyError(f"another edge-cl was working in {folder}: try again")
        reopen = partial(open_life, folder, settings)
        agent = Agent(folder, settings, store, backbone, manifest, current, loaded, watch, reopen)
        agent.notes[:0] = [problem] if problem else []
        stack.pop_all()
    return agent


def _checkpoint(folder: Path, life: install.Life) -> tuple[install.Loaded | None, str]:
    """Return the checkpoint to begin with, and what a person should know about it."""
    try:
        loaded = install.load_life(folder, life)
        return loaded, loaded.problem if loaded else ""
    except StoreDamagedError:
        if life.previous is not None:
            raise
        # Nothing is given up before there are two checkpoints: the log is whole from its beginning.
        return None, "the only checkpoint is damaged; everything was learned again from the log"


def has_log(folder: Path) -> bool:
    """Tell whether there is a log to read: not before the first `learn`, nor when that died at once."""
    if not (folder / DATABASE).exists():
        return False
    try:
        open_store(folder, None, read_only=True).close()
    except ConfigError:
        return False
    except StoreError:
        return True  # damaged: a writer will salvage it
    return True
