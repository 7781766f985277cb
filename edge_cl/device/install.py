"""Touches the state folder: bundles, checkpoints, and the one pointer that says which of them are in use.

    current.json    {"format": 1, "bundle": HASH, "checkpoint": NAME, "sha256": HASH, "previous": ...}, and
                    while a release is on probation {"format": 2, ..., "fallback": what was in use before}
    bundles/HASH/   what a release brought; HASH covers every name and byte in it
    checkpoints/    what the learner knew after some event of the log

Everything is written beside its place, synced, and renamed into it; only `current.json` decides what is
used, and it is moved last. So at every moment it points to something whole. All of this happens under the
store's lock: one process at a time.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import MismatchError, ProtocolError, StoreDamagedError
from edge_cl.memory.disk import file_digest, guarded, sync_folder
from edge_cl.wire.tensors import Limits, pack, unpack

FORMAT = 2  # of a pointer with a fallback; one without is of format 1, which older programs read
POINTER = "current.json"
BUNDLES = "bundles"
CHECKPOINTS = "checkpoints"
SUFFIX = ".safetensors"
LEFTOVER = ".part-"  # prefix of everything that is being written
MAX_POINTER_BYTES = 64 << 10  # bytes; ours is about 400
CHECKPOINT_LIMITS = Limits(header_bytes=8 << 20, tensors=4_096)  # our own file; 10,000 class names fit
COPY_BYTES = 1 << 20  # bytes copied at a time


class Checkpoint(NamedTuple):
    """A checkpoint's file name and the SHA-256 (hex) of its bytes."""

    name: str
    sha256: str


class Life(NamedTuple):
    """A bundle, the newest checkpoint made with it, and the one before; None where there is none."""

    bundle: str | None = None
    checkpoint: Checkpoint | None = None
    previous: Checkpoint | None = None

    @property
    def names(self) -> set[str]:
        """File names of its checkpoints."""
        return {generation.name for generation in (self.checkpoint, self.previous) if generation}


class Current(NamedTuple):
    """What is in use, as in `Life`, and while a release is on probation the life to go back to."""

    bundle: str | None = None
    checkpoint: Checkpoint | None = None
    previous: Checkpoint | None = None
    fallback: Life | None = None

    @property
    def life(self) -> Life:
        """What is in use."""
        return Life(self.bundle, self.checkpoint, self.previous)

    @property
    def names(self) -> set[str]:
        """File names of all checkpoints that may still be needed."""
        return self.life.names | (self.fallback.names if self.fallback else set())

    @property
    def bundles(self) -> set[str]:
        """Hashes of all bundles that may still be needed."""
        return {life.bundle for life in (self.life, self.fallback) if life is not None and life.bundle}


class Loaded(NamedTuple):
    """A checkpoint that was read whole.

    Attributes:
        name: its file name.
        tensors: as given to `save_checkpoint`.
        header: as given to `save_checkpoint`.
        problem: why the newest one could not be used, one line for the user; "" when this is the newest.
    """

    name: str
    tensors: dict[str, np.ndarray]
    header: dict[str, Any]
    problem: str


# -- one file --------------------------------------------------------------------------------------------


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that after any crash the old or the new content is there, whole.

    Raises:
        StoreError: the old content is still there. A failed fsync is not tried again: nobody knows what the
            storage holds after it.
    """
    part = path.with_name(f"{LEFTOVER}{secrets.token_hex(6)}")
    try:
        with guarded(f"writing {path.name}"):
            _write_through(part, data)
            part.rename(path)
            sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_through(source: Path, path: Path) -> None:
    with source.open("rb") as original, path.open("xb") as file:
        shutil.copyfileobj(original, file, COPY_BYTES)
        file.flush()
        os.fsync(file.fileno())


# -- the pointer -----------------------------------------------------------------------------------------


def read_current(folder: Path) -> Current:
    """Read what is in use; all None in a folder that was never pointed at anything.

    Raises:
        StoreDamagedError: the pointer cannot be read.
        MismatchError: written by a newer edge-cl.
    """
    path = folder / POINTER
    if not path.exists():
        return Current()
    with guarded(f"reading {POINTER}"):
        data = path.read_bytes()[:MAX_POINTER_BYTES]
    try:
        found = json.loads(data.decode("utf-8"))
        if found["format"] > FORMAT:
            raise MismatchError(f"{path} was written by a newer edge-cl: upgrade edge-cl")
        fallback = found.get("fallback")
        return Current(*_life(found), None if fallback is None else _life(fallback))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamagedError(f"{path} is damaged: restore a backup with `edge-cl restore`") from error


def point_to(folder: Path, *, bundle: str | None = None, checkpoint: str | None = None) -> Current:
    """Move the pointer, in one step, to a bundle, a checkpoint or both; the other one stays.

    What it is pointed at is read through first. Then checkpoints older than the previous one are removed.

    Raises:
        StoreDamagedError: what it should point to is not whole; the pointer stays where it was.
    """
    now = read_current(folder)
    if bundle is not None:
        check_bundle(folder, bundle)
        now = now._replace(bundle=bundle)
    if checkpoint is not None and (now.checkpoint is None or checkpoint != now.checkpoint.name):
        target = Checkpoint(checkpoint, _check_checkpoint(folder, checkpoint))
        now = now._replace(checkpoint=target, previous=_last_whole(folder, now.life))
    return _move(folder, now)


def swap(folder: Path, bundle: str, checkpoints: tuple[str, str]) -> Current:
    """Move the pointer, in one step, to another bundle and two checkpoints of it; what was in use is kept.

    `checkpoints` are the newest and the one before it.

    Raises:
        StoreDamagedError: what it should point to is not whole; the pointer stays where it was.
        ValueError: there is a fallback already: commit or roll back first.
    """
    now = read_current(folder)
    if now.fallback is not None:
        raise ValueError("a release is on probation")
    check_bundle(folder, bundle)
    newest, previous = (Checkpoint(name, _check_checkpoint(folder, name)) for name in checkpoints)
    return _move(folder, Current(bundle, newest, previous, now.life))


def roll_back(folder: Path) -> Current:
    """Move the pointer, in one step, back to what was in use before the last swap; nothing without one.

    Raises:
        StoreDamagedError: that is not whole; the pointer stays where it was.
    """
    now = read_current(folder)
    if now.fallback is None:
        return now
    if now.fallback.bundle is not None:
        check_bundle(folder, now.fallback.bundle)
    if now.fallback.checkpoint is not None:
        load_life(folder, now.fallback)
    return _move(folder, Current(*now.fallback))


def commit_swap(folder: Path) -> Current:
    """Give up, in one step, what was in use before the last swap; nothing without one."""
    now = read_current(folder)
    return _move(folder, now._replace(fallback=None)) if now.fallback is not None else now


def renew_fallback(folder: Path, checkpoints: tuple[str, str]) -> Current:
    """Move the fallback to two later checkpoints of its bundle: the newest and the one before it.

    Raises:
        ValueError: there is no fallback.
    """
    now = read_current(folder)
    if now.fallback is None:
        raise ValueError("there is no fallback")
    newest, previous = (Checkpoint(name, _check_checkpoint(folder, name)) for name in checkpoints)
    return _move(folder, now._replace(fallback=Life(now.fallback.bundle, newest, previous)))


def _move(folder: Path, target: Current) -> Current:
    write_atomically(folder / POINTER, _pointer_bytes(target))
    _remove_old_checkpoints(folder, target)
    return target


def _last_whole(folder: Path, life: Life) -> Checkpoint | None:
    """Return the newest checkpoint in use that still reads back: the one to go back to."""
    for generation in (life.checkpoint, life.previous):
        with contextlib.suppress(StoreDamagedError):
            if generation is not None:
                _load(folder, generation, "")
                return generation
    return None


def _pointer_bytes(current: Current) -> bytes:
    found: dict[str, Any] = {"format": 1, **_plain(current.life)}
    if current.fallback is not None:
        found |= {"format": FORMAT, "fallback": _plain(current.fallback)}
    return (json.dumps(found, indent=2) + "\n").encode("utf-8")


def _plain(life: Life) -> dict[str, Any]:
    newest, previous = life.checkpoint, life.previous
    return {
        "bundle": life.bundle,
        "checkpoint": newest.name if newest else None,
        "sha256": newest.sha256 if newest else None,
        "previous": {"checkpoint": previous.name, "sha256": previous.sha256} if previous else None,
    }


def _life(found: Any) -> Life:
    """Return the life of `_plain`; ValueError, KeyError or TypeError for anything else."""
    newest = _checkpoint(found["checkpoint"], found["sha256"])
    previous = found["previous"] or {"checkpoint": None, "sha256": None}
    return Life(_text(found["bundle"]), newest, _checkpoint(previous["checkpoint"], previous["sha256"]))


def _checkpoint(name: Any, digest: Any) -> Checkpoint | None:
    if name is None:
        return None
    if _text(name) != Path(name).name or not isinstance(digest, str):
        raise ValueError("not a checkpoint")
    return Checkpoint(name, digest)


def _text(found: Any) -> str | None:
    if found is not None and not isinstance(found, str):
        raise ValueError("not a name")
    return found


# -- checkpoints -----------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
    """Write a checkpoint and return its name; it is used only after `point_to`.

    `header` is kept as JSON: text, numbers, lists, objects.

    Raises:
        StoreError: the storage refuses; what was there before is untouched.
    """
    data = pack(tensors, {"header": json.dumps(header, sort_keys=True, ensure_ascii=False)})
    with guarded("making the folder of checkpoints"):
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        sync_folder(folder)
        number = 1 + max((_number(path) for path in (folder / CHECKPOINTS).iterdir()), default=0)
    name = f"{number:08d}{SUFFIX}"
    write_atomically(folder / CHECKPOINTS / name, data)
    return name


def load_checkpoint(folder: Path) -> Loaded | None:
    """Read the newest checkpoint, or the one before it when the newest is not whole; None when none is.

    Raises:
        StoreDamagedError: checkpoints are pointed at, but none is whole.
    """
    return load_life(folder, read_current(folder).life)


def load_life(folder: Path, life: Life) -> Loaded | None:
    """Read the newest whole checkpoint of a life; None when it has none.

    Raises:
        StoreDamagedError: checkpoints are pointed at, but none is whole.
    """
    problem = ""
    for generation in (life.checkpoint, life.previous):
        if generation is None:
            continue
        try:
            return _load(folder, generation, problem)
        except StoreDamagedError as error:
            problem = problem or f"{error}; the one before it is used instead"
    if problem:
        raise StoreDamagedError(
            f"no checkpoint in {folder} is whole: restore a backup with `edge-cl restore`"
        )
    return None


def load_previous(folder: Path) -> Loaded | None:
    """Read the checkpoint that `load_checkpoint` would go back to; None when it is missing or not whole."""
    return load_others(folder)[0]


def load_others(folder: Path) -> list[Loaded | None]:
    """Read every checkpoint but the newest that may be returned to: the one before it, those of the fallback.

    None stands for one that is missing or not whole.
    """
    current = read_current(folder)
    wanted = [current.previous]
    if current.fallback is not None:
        wanted += [current.fallback.checkpoint, current.fallback.previous]
    return [None if each is None else _whole(folder, each) for each in wanted]


def _whole(folder: Path, checkpoint: Checkpoint) -> Loaded | None:
    try:
        return _load(folder, checkpoint, "")
    except StoreDamagedError:
        return None


def _load(folder: Path, checkpoint: Checkpoint, problem: str) -> Loaded:
    data = _read_checkpoint(folder, checkpoint.name)
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        raise StoreDamagedError(f"checkpoint {checkpoint.name} is damaged")
    tensors, header = _parse(checkpoint.name, data)
    return Loaded(checkpoint.name, tensors, header, problem)


def _parse(name: str, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        tensors, metadata = unpack(data, CHECKPOINT_LIMITS)
        return tensors, json.loads(metadata["header"])
    except (ProtocolError, KeyError, ValueError) as error:
        raise StoreDamagedError(f"checkpoint {name} is damaged ({error})") from error


def _check_checkpoint(folder: Path, name: str) -> str:
    data = _read_checkpoint(folder, name)
    _parse(name, data)
    return hashlib.sha256(data).hexdigest()


def _read_checkpoint(folder: Path, name: str) -> bytes:
    try:
        return (folder / CHECKPOINTS / name).read_bytes()
    except OSError as error:
        raise StoreDamagedError(f"checkpoint {name} cannot be read ({error.strerror})") from error


def _number(path: Path) -> int:
    stem = path.name.removesuffix(SUFFIX)
    return int(stem) if stem.isascii() and stem.isdigit() else 0


def _remove_old_checkpoints(folder: Path, current: Current) -> None:
    kept = current.names
    with guarded("removing old checkpoints"):
        for path in (folder / CHECKPOINTS).glob(f"*{SUFFIX}"):
            if path.name not in kept:
                path.unlink()


# -- bundles ---------------------------------------------------------------------------------------------


def stage_bundle(folder: Path, files: Mapping[str, bytes | Path]) -> str:
    """Put a bundle into the state folder, whole or not at all, and return its hash.

    `files` is {name: content, or the path to copy it from}. It is used only after `point_to`.

    Raises:
        StoreError: the storage refuses; nothing of the bundle is there.
    """
    for name in files:
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(f"{name!r} cannot name a file of a bundle")
    bundles = folder / BUNDLES
    part = bundles / f"{LEFTOVER}{secrets.token_hex(6)}"
    try:
        with guarded("writing the bundle"):
            part.mkdir(parents=True)
            for name, content in sorted(files.items()):
                _put(part / name, content)
            sync_folder(part)
            digest = _bundle_hash(part)
            _move_in(part, bundles / digest)
            sync_folder(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return digest


def bundle_folder(folder: Path, digest: str) -> Path:
    """Return where the files of a bundle are."""
    return folder / BUNDLES / digest


def check_bundle(folder: Path, digest: str) -> None:
    """Read a bundle through.

    Raises:
        StoreDamagedError: it is missing, or a name or byte of it differs from what was staged.
    """
    with guarded("reading the bundle"):
        path = bundle_folder(folder, digest)
        if not path.is_dir() or _bundle_hash(path) != digest:
            raise StoreDamagedError(f"bundle {digest[:12]} is missing or damaged: add the backbone again")


def remove_bundle(folder: Path, digest: str) -> None:
    """Remove a bundle that is not in use nor to go back to; ValueError when it is."""
    if digest in read_current(folder).bundles:
        raise ValueError(f"bundle {digest[:12]} is in use")
    with guarded("removing a bundle"):
        _discard(bundle_folder(folder, digest))


def _put(path: Path, content: bytes | Path) -> None:
    if isinstance(content, bytes):
        _write_through(path, content)
    else:
        _copy_through(content, path)


def _move_in(part: Path, place: Path) -> None:
    if place.is_dir():
        if _bundle_hash(place) == place.name:
            return
        _discard(place)  # same name, other bytes: damaged, and about to be whole again
    part.rename(place)
    sync_folder(place.parent)


def _discard(place: Path) -> None:
    """Take a folder out of its place in one step, then remove it: half a bundle is never in place."""
    if not place.is_dir():
        return
    gone = place.with_name(f"{LEFTOVER}{secrets.token_hex(6)}")
    place.rename(gone)
    shutil.rmtree(gone)


def _bundle_hash(path: Path) -> str:
    """Return the SHA-256 (hex) over the names and contents of the files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir(), key=lambda file: file.name):
        digest.update(f"{file_digest(file).hexdigest()}  {file.name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


# -- at start --------------------------------------------------------------------------------------------


def tidy(folder: Path) -> int:
    """Remove what an interrupted run left half done and return how many things that were.

    Call it at start, under the store's lock: half-written files, and checkpoints never pointed at.
    """
    kept = read_current(folder).names
    removed = 0
    with guarded("tidying the state folder"):
        for place in (folder, folder / BUNDLES, folder / CHECKPOINTS):
            leftovers = list(place.glob(f"{LEFTOVER}*"))
            if place.name == CHECKPOINTS:
                leftovers += [path for path in place.glob(f"*{SUFFIX}") if path.name not in kept]
            for path in leftovers:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed += 1
    return removed
