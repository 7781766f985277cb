"""Touches the documents of the repository: tuf's client, by our time, and pushed through to the storage.

What is private in tuf is used in `_Updater` only; the tests of attacks fail when it changes.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tuf.api.metadata import Root, TargetFile, Targets
from tuf.ngclient import Updater, UpdaterConfig

from edge_cl.device.releases import clock
from edge_cl.device.releases.marks import Mark, Seen
from edge_cl.device.transport import Fetcher
from edge_cl.errors import ReleaseError
from edge_cl.memory.disk import sync_file, sync_folder
from edge_cl.wire.release import Offer, read_facts

METADATA, TARGETS = "metadata/", "targets/"  # below the repository's address
# Ours are 3 kB at most, but for a channel of a thousand releases.
CONFIG = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=4,
    root_max_length=64 << 10,
    timestamp_max_length=16 << 10,
    snapshot_max_length=512 << 10,
    targets_max_length=2 << 20,
)
TOP = ("root", "timestamp", "snapshot", "targets")
TimeOf = Callable[[Root], datetime]


class _Updater(Updater):
    """tuf's client that judges by a time handed in, and lets be seen what it trusts."""

    def __init__(self, *arguments: Any, time_of: TimeOf, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._time_of = time_of

    def _load_timestamp(self) -> None:
        # Here the root is the final one, and nothing has been judged by the time yet.
        self._trusted_set.reference_time = self._time_of(self._trusted_set.root)
        super()._load_timestamp()

    def channel(self, role: str) -> Targets:
        return self._load_targets(role, Targets.type)

    @property
    def trusted(self) -> Mapping[str, Any]:
        return self._trusted_set


class Listing(NamedTuple):
    """What a channel lists: offers, and of what cannot be offered the path and the reason."""

    offers: tuple[Offer, ...]
    unreadable: tuple[tuple[str, str], ...]


class Documents:
    """The documents in a folder, brought up to date once.

    Args:
        folder: where they lie; made when it is not there.
        url: of the repository, ending in `/`.
        root: the trusted one of enrolment.
        time_of: returns the time that counts, given the newest root.
    """

    def __init__(self, folder: Path, url: str, root: bytes, fetcher: Fetcher, time_of: TimeOf) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._updater = _Updater(
            str(folder), url + METADATA, fetcher=fetcher, config=CONFIG, bootstrap=root, time_of=time_of
        )

    def refresh(self, role: str) -> None:
        """Fetch and verify what is new, down to one channel.

        Raises:
            ReleaseError: there is no such channel.
            RepositoryError, DownloadError, OSError: as tuf's client.
        """
        self._updater.refresh()
        try:
            self._updater.trusted["targets"].get_delegated_role(role)
        except ValueError as error:
            raise ReleaseError(f"the host has no {role}: choose another model or channel") from error
        self._updater.channel(role)

    def sync(self) -> None:
        """Push every document and every name through to the storage."""
        for path in sorted(self._folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                sync_file(path)
        for folder in (*(path for path in self._folder.iterdir() if path.is_dir()), self._folder):
            sync_folder(folder)
        sync_folder(self._folder.parent)

    def seen(self, channel: str) -> dict[str, Seen]:
        """Return what is trusted now of the top roles and a channel; those not loaded are left out."""
        trusted = self._updater.trusted
        found = {"root": Seen(Mark(trusted["root"].version))}  # its chain from enrolment knows no way back
        for role in (name for name in (*TOP[1:], channel) if name in trusted):
            delegator = trusted["root"] if role in TOP else trusted["targets"]
            delegated, document = delegator.get_delegated_role(role), trusted[role]
            signed = (
                clock.issued(document.unrecognized_fields, document.expires) if role == "timestamp" else 0
            )
            found[role] = Seen(
                Mark(document.version, frozenset(delegated.keyids), issued=signed), delegated.threshold
            )
        return found

    def listing(self, role: str) -> Listing:
        """Return what a channel lists below the paths that are its own."""
        paths = f"{'/'.join(role.rsplit('-', 1))}/"
        offers, unreadable = [], []
        for path in sorted(self._updater.channel(role).targets):
            target = self._updater.get_targetinfo(path) if path.startswith(paths) else None
            try:
                offers.append(_offer(path, target))
            except ReleaseError as error:
                unreadable.append((path, str(error)))
        return Listing(tuple(offers), tuple(unreadable))


def _offer(path: str, target: TargetFile | None) -> Offer:
    if target is None:
        raise ReleaseError("this channel may not list it")
    if "sha256" not in target.hashes:
        raise ReleaseError("comes without a SHA-256")
    return Offer(path, target.length, target.hashes["sha256"], read_facts(target.custom))


def target_url(url: str, offer: Offer) -> str:
    """Return where a release's bytes are: under their hash, so that they never change."""
    folder, _, name = offer.path.rpartition("/")
    return f"{url}{TARGETS}{folder}/{offer.sha256}.{name}"
