"""Carries out what a person does with a repository: founds it, publishes, promotes, rotates a key, renews."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tuf.api.metadata import Key, TargetFile

from edge_cl.errors import ConfigError, InputError, ReleaseError
from edge_cl.wire.release import CHANNELS, Facts, path_of, read_facts, role_of, to_custom
from host_trainer.release.folder import RepositoryFolder, add_file
from host_trainer.release.keyring import SUFFIX, Keyring, key_folder
from host_trainer.release.repository import (
    FIRST_KEYS,
    OFFLINE,
    Repository,
    described,
    due,
    found,
    key_names,
    max_bundle,
    promoted,
    renewed,
    roles_of,
    roles_with,
    rotated,
    stem,
    with_model,
    with_target,
)
from host_trainer.release.signing import can_sign, seal


class Listed(NamedTuple):
    """A release that was listed: its path, file, SHA-256 (hex), bundle number."""

    path: str
    file: Path
    sha256: str
    bundle: int


class Rotation(NamedTuple):
    """A key that took another's place: both names, the new file, and the roles it signs."""

    old: str
    new: str
    file: Path
    roles: tuple[str, ...]


class Renewal(NamedTuple):
    """What was signed anew, and what is due but lacks its keys, each with its expiry."""

    renewed: tuple[tuple[str, datetime], ...]
    waiting: tuple[tuple[str, datetime], ...]


def found_repository(
    place: RepositoryFolder, ring: Keyring, models: Iterable[str], passphrase: bytes, now: datetime
) -> Repository:
    """Make the keys and the first documents of a repository; the offline keys are under the passphrase.

    Raises:
        ConfigError: there is one already, or keys are.
    """
    chosen = list(dict.fromkeys(models))
    if not chosen:
        raise ConfigError("a repository needs a model: name one with --model")
    with _asked_for():
        for model in chosen:
            role_of(model, CHANNELS[0])  # refuses a bad name before a key is made
    with place.locked(new=True):
        if place.exists():
            raise ConfigError(f"{place.folder} holds a repository already: choose another folder")
        if place.keys.exists():
            raise ConfigError(f"{place.keys} is there, but no repository: move it away, then repeat")
        sealed = seal(None, found(_first_keys(place, ring, passphrase), chosen, now), ring.signer_of)
        place.write(sealed)
    return sealed.repository


def add_model(place: RepositoryFolder, ring: Keyring, model: str, now: datetime) -> Repository:
    """Add the channels of one more model; needs the targets key, the trainer's and the release key."""
    with _asked_for():
        role_of(model, CHANNELS[0])
    with place.locked():
        before = place.read()
        sealed = seal(before, with_model(before, model, now), ring.signer_of)
        place.write(sealed)
    return sealed.repository


def publish(
    place: RepositoryFolder,
    ring: Keyring,
    source: Path,
    model: str,
    channel: str,
    facts: Facts,
    now: datetime,
    name: str = "",
) -> Listed:
    """List a file in a channel; a bundle numbered 0 gets the next number of its model.

    Raises:
        InputError: the file cannot be read.
        ConfigError: as `with_target`, names or facts that cannot be, or keys are missing.
        ReleaseError: the repository is not whole.
    """
    with _asked_for():
        path = path_of(model, channel, name or source.name)
        to_custom(facts if facts.bundle else facts._replace(bundle=1))
    with place.locked():
        before = place.read()
        facts = facts if facts.bundle else facts._replace(bundle=next_bundle(before, model))
        target = described(_target(path, source), facts)
        sealed = seal(before, with_target(before, model, channel, target, now), ring.signer_of)
        file = place.target_file(target)
        add_file(file, source)
        place.write(sealed)
    return Listed(path, file, target.hashes["sha256"], facts.bundle)


def promote(place: RepositoryFolder, ring: Keyring, name: str, model: str, to: str, now: datetime) -> Listed:
    """List a release of the channel before in `to` as well; same bytes, same facts.

    Raises:
        ConfigError: as `promoted`, keys are missing, or the file is not what was signed.
    """
    with _asked_for():
        path_of(model, to, name)
    with place.locked():
        before = place.read()
        after, source, target = promoted(before, model, name, to, now)
        sealed = seal(before, after, ring.signer_of)
        held = place.target_file(source)
        if _target(source.path, held).hashes != source.hashes:
            raise ConfigError(f"{held} is not what was signed: restore a copy of it")
        file = place.target_file(target)
        add_file(file, held)
        place.write(sealed)
    return Listed(target.path, file, target.hashes["sha256"], target.custom["bundle"])


def bundle_below(place: RepositoryFolder, name: str, model: str, to: str, now: datetime) -> int:
    """Return the number of the release that `promote` would list in `to`.

    Raises:
        ConfigError: as `promoted`.
    """
    with _asked_for():
        path_of(model, to, name)
    return read_facts(promoted(place.read(), model, name, to, now)[2].custom).bundle


def rotate_key(place: RepositoryFolder, ring: Keyring, old: str, now: datetime) -> Rotation:
    """Make a key, put it wherever the old one stood, sign what that touches, and put the old one aside.

    The new key lies where the old one lay, under the passphrase if that one was.

    Raises:
        ConfigError: no such key, or keys that must sign are missing; the repository is then as it was.
    """
    with place.locked():
        before = place.read()
        names, touched = key_names(before), tuple(roles_with(before, old))
        found_at = ring.find(old)
        new = ring.next_name(old, names)
        folder = found_at.parent if found_at else key_folder(place.keys, new)
        is_secret = any(ring.is_encrypted(name) for name in ([old] if found_at else _kin(old, names)))
        key = ring.make(new, ring.passphrase() if is_secret else b"", folder)
        try:
            sealed = seal(before, rotated(before, old, key, now), ring.signer_of)
        except ConfigError:
            ring.discard(new)
            raise
        place.write(sealed)
        ring.retire(old)
    return Rotation(old, new, folder / f"{new}{SUFFIX}", touched)


def renew(place: RepositoryFolder, ring: Keyring, now: datetime) -> Renewal:
    """Sign snapshot and timestamp anew, and what else is half through its life and has its keys here."""
    with place.locked():
        before = place.read()
        late = due(before, now)
        able = [role for role in late if can_sign(before, role, ring.signer_of)]
        sealed = seal(before, renewed(before, able, now), ring.signer_of)
        place.write(sealed)
    done = sealed.repository
    expiries = {role: done.document(role).signed.expires for role in roles_of(done)}
    signed = [*able, "snapshot", "timestamp"]
    return Renewal(
        tuple((role, expiries[role]) for role in signed),
        tuple((role, expiries[role]) for role in late if role not in able),
    )


def next_bundle(repository: Repository, model: str) -> int:
    """Return the number after the highest in any channel of a model."""
    roles = [role_of(model, channel) for channel in CHANNELS]
    return 1 + max_bundle(repository, [role for role in roles if role in repository.channels])


def _kin(name: str, names: Iterable[str]) -> list[str]:
    """Return the keys that are kept as one that is lost was kept."""
    return [each for each in names if (stem(each) in OFFLINE) == (stem(name) in OFFLINE)]


@contextmanager
def _asked_for() -> Iterator[None]:
    """Lay what cannot be at the door of the person who asked for it."""
    try:
        yield
    except ReleaseError as error:
        raise ConfigError(str(error)) from error


def _first_keys(place: RepositoryFolder, ring: Keyring, passphrase: bytes) -> dict[str, Key]:
    return {
        name: ring.make(name, passphrase if stem(name) in OFFLINE else b"", key_folder(place.keys, name))
        for name in FIRST_KEYS
    }


def _target(path: str, source: Path) -> TargetFile:
    try:
        return TargetFile.from_file(path, str(source), ["sha256"])
    except OSError as error:
        raise InputError(
            f"{source} cannot be read ({error.strerror}): check the path and its rights"
        ) from error
