"""Decides which documents must be signed after an edit, by which keys, and in which order they go out."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Key, Metadata

from edge_cl.errors import ConfigError, ReleaseError
from host_trainer.release.repository import Repository, metafile, name_of, roles_of

SignerOf = Callable[[Key], Signer | None]  # the private half of a public key; None where it is not at hand
TIMESTAMP = "timestamp.json"  # the one document without a version in its file's name


class Sealed(NamedTuple):
    """A signed repository, and the files that are new in it, in the order in which they must be written.

    Whatever of them was written last, what is there is one whole valid repository: no file is used before the
    timestamp names it, and the root comes after what it asks for.
    """

    repository: Repository
    files: tuple[tuple[str, bytes], ...]


def seal(before: Repository | None, after: Repository, signer_of: SignerOf) -> Sealed:
    """Sign what `after` says anew, with the snapshot and the timestamp above it.

    A document is signed by the keys of before and of after, as far as they are at hand: so it holds under the
    old root as well as under the new one.

    Raises:
        ConfigError: not enough keys are at hand; the message names those that could help.
    """
    sealed = copy.deepcopy(after)
    files: list[tuple[str, bytes]] = []

    def sign(role: str) -> None:
        document = sealed.document(role)
        _sign(document, _signers(role, before, sealed, signer_of))
        _check(role, before, sealed, document)
        data = document.to_bytes()
        files.append((TIMESTAMP if role == "timestamp" else f"{document.signed.version}.{role}.json", data))
        if role not in ("root", "snapshot", "timestamp"):
            sealed.snapshot.signed.meta[f"{role}.json"] = metafile(document, data)
        if role == "snapshot":
            sealed.timestamp.signed.snapshot_meta = metafile(document, data)

    for role in _changed(before, sealed, ("targets", *sealed.channels)):
        sign(role)
    if before is not None:
        sealed.snapshot.signed.version = before.snapshot.signed.version + 1
        sealed.timestamp.signed.version = before.timestamp.signed.version + 1
    for role in ("snapshot", "timestamp", *_changed(before, sealed, ("root",))):
        sign(role)
    return Sealed(sealed, tuple(files))


def verify(repository: Repository) -> None:
    """Check every document against the keys that may sign it; ReleaseError names the first that fails."""
    for role in roles_of(repository):
        document = repository.document(role)
        try:
            repository.delegator(role).verify_delegate(role, document.signed_bytes, document.signatures)
        except UnsignedMetadataError as error:
            raise ReleaseError(
                f"the repository is not to be trusted ({error}): restore a copy of it"
            ) from error


def can_sign(repository: Repository, role: str, signer_of: SignerOf) -> bool:
    """Tell whether enough keys of a role are at hand."""
    held = [key for key in repository.keys_of(role) if signer_of(key) is not None]
    return len(held) >= repository.delegator(role).get_delegated_role(role).threshold


def _changed(before: Repository | None, after: Repository, roles: Iterable[str]) -> list[str]:
    known = set(roles_of(before)) if before is not None else set()
    return [
        role
        for role in roles
        if before is None
        or role not in known
        or before.document(role).signed.version != after.document(role).signed.version
    ]


def _signers(role: str, before: Repository | None, after: Repository, signer_of: SignerOf) -> list[Signer]:
    keys = {key.keyid: key for key in after.keys_of(role)}
    if before is not None and role in roles_of(before):
        keys |= {key.keyid: key for key in before.keys_of(role)}
    return [signer for key in keys.values() if (signer := signer_of(key)) is not None]


def _sign(document: Metadata[Any], signers: Iterable[Signer]) -> None:
    document.signatures.clear()
    for signer in signers:
        document.sign(signer, append=True)


def _check(role: str, before: Repository | None, after: Repository, document: Metadata[Any]) -> None:
    """Refuse a document that too few have signed; a root needs those of the root before it as well."""
    judges = [after.delegator(role)]
    if role == "root" and before is not None:
        judges.append(before.root.signed)
    for judge in judges:
        result = judge.get_verification_result(role, document.signed_bytes, document.signatures)
        if not result:
            names = ", ".join(sorted(name_of(key) for key in result.unsigned.values()))
            raise ConfigError(
                f"{role} lacks {result.missing} of {result.threshold} signatures:"
                f" give the folder that holds {names} with --keys"
            )
