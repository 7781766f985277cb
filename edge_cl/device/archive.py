"""Touches backups: a whole learner as one plain tar file, every member with its hash, and back again.

    backup.json     {"format": 1, "files": {name: sha256}}, the first member
    config.toml, current.json, learner.db, checkpoints/NAME, bundles/HASH/NAME, installation/NAME

Restoring trusts nothing in the file: names must be of this list, every byte must fit its hash, and the state
folder appears only once it has proved to be whole.
"""

import hashlib
import io
import json
import re
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from edge_cl.config import SETTINGS, read_settings
from edge_cl.device import install
from edge_cl.device.installation.records import FOLDER as INSTALLATION
from edge_cl.device.opening import has_log
from edge_cl.errors import InputError, MismatchError, StoreBusyError, StoreError
from edge_cl.memory.database import DATABASE
from edge_cl.memory.disk import file_digest, guarded, sync_file, sync_folder
from edge_cl.memory.opening import open_store

FORMAT = 1
CONTENTS = "backup.json"
MAX_CONTENTS_BYTES = 1 << 20  # ours is about 1 kB
MAX_MEMBERS = 1_000  # ours has about 6
MAX_MEMBER_BYTES = 64 << 30  # of one member; a database with 100,000 kept pictures has 10 GB
COPY_BYTES = 1 << 20  # bytes copied at a time
ATTEMPTS = 5  # a backup starts anew when a learning process moves the pointer meanwhile
NAMES = re.compile(
    r"config\.toml|current\.json|learner\.db|checkpoints/[0-9]{8}\.safetensors"
    r"|bundles/[0-9a-f]{64}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
    r"|installation/(record\.json|head-[0-9]{1,16}\.safetensors)"
)


class Backup(NamedTuple):
    """What a backup file holds: names of its members, and their bytes in all."""

    names: tuple[str, ...]
    size_bytes: int


def write_backup(folder: Path, path: Path) -> Backup:
    """Write a state folder into one tar file; another process may go on learning meanwhile.

    Raises:
        InputError: the file is there already, or its folder is not.
        EdgeError: the state folder cannot be read whole, or the storage refuses.
    """
    if path.exists():
        raise InputError(f"{path} is there already: choose another name, or remove it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path.parent} is not a folder: make it first")
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with guarded("writing the backup"), tempfile.TemporaryDirectory(dir=path.absolute().parent) as place:
            files = _snapshot(folder, Path(place))
            _pack(files, part)
            sync_file(part)
            part.rename(path)
            sync_folder(path.absolute().parent)
            return Backup(tuple(files), sum(file.stat().st_size for file in files.values()))
    finally:
        part.unlink(missing_ok=True)


def restore_backup(path: Path, folder: Path) -> Backup:
    """Make a state folder from a backup: whole, checked, or not at all.

    Raises:
        InputError: not a backup, damaged, or the state folder is there already.
        MismatchError: written by a newer version.
        EdgeError: what it holds does not work together, or the storage refuses.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: give a new folder with --state")
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.part")
    try:
        with guarded("restoring"):
            part.mkdir(parents=True)
            found = _unpack(path, part)
            _check_whole(part)
            _sync_tree(part)
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
            sync_folder(folder.absolute().parent)
        return found
    finally:
        shutil.rmtree(part, ignore_errors=True)


# -- writing ---------------------------------------------------------------------------------------------


def _snapshot(folder: Path, place: Path) -> dict[str, Path]:
    """Return {member: file} of one moment; the pointer is read before and after the database is copied."""
    for _ in range(ATTEMPTS):
        before = install.read_current(folder)
        try:
            files = _members(folder, before, place)
        except StoreError:
            if install.read_current(folder) == before:
                raise
            continue
        if install.read_current(folder) == before:
            return files
    raise StoreBusyError(f"{folder} changes faster than it can be copied: try again")


def _members(folder: Path, current: install.Current, place: Path) -> dict[str, Path]:
    files = {SETTINGS: folder / SETTINGS}
    for digest in sorted(current.bundles):
        install.check_bundle(folder, digest)
        bundle = install.bundle_folder(folder, digest)
        files |= {f"{install.BUNDLES}/{digest}/{file.name}": file for file in sorted(bundle.iterdir())}
    for name in sorted(current.names):
        source, copy = folder / install.CHECKPOINTS / name, place / name
        if current.checkpoint is not None and name != current.checkpoint.name and not source.exists():
            continue
        with guarded("reading a checkpoint"):
            shutil.copyfile(source, copy)  # a learning process may remove the original
        files[f"{install.CHECKPOINTS}/{name}"] = copy
    for file in sorted((folder / INSTALLATION).glob("*")):
        if file.is_file() and NAMES.fullmatch(f"{INSTALLATION}/{file.name}"):
            with guarded("reading where an installation stands"):
                shutil.copyfile(file, place / file.name)
            files[f"{INSTALLATION}/{file.name}"] = place / file.name
    if has_log(folder):
        with open_store(folder, None, read_only=True) as store:
            store.backup_to(place / DATABASE)
        files[DATABASE] = place / DATABASE
    if (folder / install.POINTER).exists():
        shutil.copyfile(folder / install.POINTER, place / install.POINTER)
        files[install.POINTER] = place / install.POINTER
    return files


def _pack(files: dict[str, Path], path: Path) -> None:
    hashes = {name: file_digest(file).hexdigest() for name, file in files.items()}
    contents = json.dumps({"format": FORMAT, "files": hashes}, indent=2).encode("utf-8")
    with tarfile.open(path, "x:", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member(CONTENTS, len(contents)), io.BytesIO(contents))
        for name, file in files.items():
            with file.open("rb") as source:
                tar.addfile(_member(name, file.stat().st_size), source)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Describe a member without owner and time: the same learner gives the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


# -- reading ---------------------------------------------------------------------------------------------


def _unpack(path: Path, place: Path) -> Backup:
    try:
        # Uncompressed only: a compressed file could grow without end.
        with tarfile.open(path, "r:") as tar:
            members = _regular_members(tar, path)
            expected = _contents(tar, next(members, None), path)
            found = {name: _extract(tar, info, name, place, expected) for name, info in _named(members, path)}
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise InputError(f"{path} is not a whole backup ({error}): copy it again") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there: check the name") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder: give a backup file") from error
    missing = sorted(set(expected) - set(found))
    if missing or SETTINGS not in found:
        raise InputError(f"{path} lacks {(missing or [SETTINGS])[0]}: it was cut off, copy it again")
    return Backup(tuple(found), sum(found.values()))


def _regular_members(tar: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    for number, info in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise InputError(f"{path} has more than {MAX_MEMBERS} members: it is no edge-cl backup")
        if not info.isreg() or info.issparse() or not 0 <= info.size <= MAX_MEMBER_BYTES:
            raise InputError(f"{path} holds {info.name!r}, which is no plain file: it is no edge-cl backup")
        yield info


def _contents(tar: tarfile.TarFile, info: tarfile.TarInfo | None, path: Path) -> dict[str, str]:
    """Return {name: sha256} as the first member says."""
    if info is None or info.name != CONTENTS or info.size > MAX_CONTENTS_BYTES:
        raise InputError(f"{path} does not begin with {CONTENTS}: it is no edge-cl backup")
    try:
        found = json.loads(_opened(tar, info).read().decode("utf-8"))
        if found["format"] > FORMAT:
            raise MismatchError(f"{path} was written by a newer edge-cl: upgrade edge-cl")
        return {str(name): str(digest) for name, digest in found["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} has a damaged {CONTENTS}: copy it again") from error


def _named(members: Iterator[tarfile.TarInfo], path: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for info in members:
        if not NAMES.fullmatch(info.name):
            raise InputError(f"{path} holds {info.name!r}, which no edge-cl backup has: it is not restored")
        yield info.name, info


def _extract(
    tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, place: Path, expected: dict[str, str]
) -> int:
    """Copy one member out and return its bytes."""
    target = place / name
    if name not in expected or target.exists():
        raise InputError(f"the backup holds {name} twice or unannounced: it is not restored")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    source = _opened(tar, info)
    with target.open("xb") as file:
        while block := source.read(COPY_BYTES):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != expected[name]:
        raise InputError(f"{name} in the backup is damaged: take another backup")
    return info.size


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(info)
    if found is None:
        raise InputError(f"the backup's {info.name!r} is no file: it is not restored")
    return found


def _check_whole(folder: Path) -> None:
    """Read the settings, the pointer and what it points to, and the database."""
    read_settings(folder)
    current = install.read_current(folder)
    for digest in current.bundles:
        install.check_bundle(folder, digest)
    loaded = [install.load_life(folder, life) for life in (current.life, current.fallback) if life]
    if not (folder / DATABASE).exists():
        return
    with open_store(folder, None) as store:
        if store.salvage is not None:
            raise InputError("the backup's database is damaged: take another backup")
        known = {space.id for space in (store.space, store.other_space) if space is not None}
        if any(found is not None and found.header["space"] not in known for found in loaded):
            raise MismatchError("the backup mixes two backbones: take another backup")


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        sync_folder(path) if path.is_dir() else sync_file(path)
    sync_folder(folder)
