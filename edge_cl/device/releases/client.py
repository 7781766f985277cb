"""Touches the folder `tuf` of a device: asks the host what is new, and fetches what was chosen, all verified.

tuf/trusted-root.json   from enrolment; every start begins with it
tuf/metadata/           the documents
tuf/marks.db            what was seen of them
tuf/downloads/          release files, by their SHA-256
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tuf.api.exceptions import (
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root

from edge_cl.device.install import write_atomically
from edge_cl.device.releases import clock
from edge_cl.device.releases.documents import Documents, target_url
from edge_cl.device.releases.download import MAX_BYTES, download
from edge_cl.device.releases.marks import Marks, check, raised
from edge_cl.device.transport import Fetcher, checked_url
from edge_cl.errors import ConfigError, MismatchError, ProtocolError, ReleaseError, TransportError
from edge_cl.memory.database import lock_folder
from edge_cl.memory.disk import guarded
from edge_cl.wire.release import MAX_BUNDLE, Board, Offer, newest, role_of

FOLDER = "tuf"
TRUSTED_ROOT = "trusted-root.json"
DOCUMENTS, DOWNLOADS = "metadata", "downloads"
LATER = "is not what the host offers this device now"


class Answer(NamedTuple):
    """What the host has for this board.

    Attributes:
        offer: the release to fetch; None when there is none.
        left: of every other the path, and why it was left.
        bundle: the highest bundle fetched here so far, 0 for none: `offer` is not below it.
        warning: about this board's clock, one line; "" when there is nothing to say.
    """

    offer: Offer | None
    left: tuple[tuple[str, str], ...]
    bundle: int
    warning: str


def enrol(state: Path, root: bytes) -> None:
    """Keep the root that everything will be measured by; it comes with enrolment, not from the host later.

    A device that is let in again keeps the root it has where that vouches for the one it is given: the
    documents lead from it to the newest by themselves.

    Raises:
        ReleaseError: it is no root, or not signed as it says itself.
        MismatchError: this device is enrolled with another one.
    """
    try:
        document = Metadata[Root].from_bytes(root)
        document.signed.verify_delegate("root", document.signed_bytes, document.signatures)
    except (RepositoryError, AttributeError, ValueError) as error:
        raise ReleaseError(
            f"this is no root of a repository ({error}): get it from `host-trainer init`"
        ) from error
    place = state / FOLDER
    known = _read_root(place)
    if known is not None and _vouches(known, document):
        return
    if known is not None and known != root:
        raise MismatchError(
            f"{state} is enrolled with another host: remove {place} to start over with this one"
        )
    with guarded("enrolling"):
        place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / TRUSTED_ROOT, root)


@contextlib.contextmanager
def open_releases(
    state: Path, url: str, fetcher: Fetcher, max_bytes: int = MAX_BYTES
) -> Iterator["Releases"]:
    """Open what a device knows of a host's releases; one process at a time.

    Args:
        state: the device's state folder, enrolled.
        url: of the repository: HTTPS, or HTTP to this machine.
        fetcher: the network.
        max_bytes: of a release file; a larger one is refused.

    Raises:
        ConfigError: not enrolled, or an address that may not be used.
        StoreBusyError: another process has it open.
        StoreDamagedError: the marks do not read back.
    """
    checked_url(url)
    place = state / FOLDER
    root = _read_root(place)
    if root is None:
        raise ConfigError(f"{state} is not enrolled with a host: run `edge-cl init --host URL --code CODE`")
    lock = lock_folder(place)
    try:
        with contextlib.closing(Marks(place)) as marks:
            yield Releases(place, url if url.endswith("/") else f"{url}/", root, fetcher, marks, max_bytes)
    finally:
        os.close(lock)


class Releases:
    """A host's releases as this device trusts them; made by `open_releases`."""

    def __init__(
        self, place: Path, url: str, root: bytes, fetcher: Fetcher, marks: Marks, max_bytes: int
    ) -> None:
        self._place, self._url, self._root, self._fetcher = place, url, root, fetcher
        self._marks, self._max_bytes = marks, max_bytes

    def ask(
        self, model: str, channel: str, board: Board, now: datetime, most: int = MAX_BUNDLE, size: int = 0
    ) -> Answer:
        """Bring the documents up to date, and choose the newest release of a channel that suits a board.

        Args:
            model, channel, board: what is asked for.
            now: the time.
            most: the highest bundle that the host offers this device: a later one is for others first.
            size: bytes of the file of that bundle that the host offers; 0: any. A bundle may come whole, and
                without what its parent has.

        Raises:
            TransportError: no answer, or too slow; later it may help.
            ProtocolError: more bytes than allowed.
            ReleaseError: not signed as it must be, expired, older than what was seen, or no such channel.
            StoreError: the storage refuses.
        """
        role = role_of(model, channel)
        listing = self._refreshed(role, now).listing(role)
        bundle = self._marks.read()[role].bundle
        passed = [each for each in listing.offers if _is_offered(each, most, size)]
        choice = newest(passed, board, bundle)
        later = tuple((each.path, LATER) for each in listing.offers if each not in passed)
        warning = clock.warning(now, self._floor())
        return Answer(choice.offer, (*choice.left, *later, *listing.unreadable), bundle, warning)

    def fetch(self, offer: Offer) -> Path:
        """Return the verified file of an offer of `ask`; one that was cut goes on, one that is here is taken.

        Raises:
            EdgeError: as `download`; a TransportError may be tried again at once or weeks later.
        """
        url, (model, channel, _) = target_url(self._url, offer), offer.path.split("/")

        def fetch_from(start: int) -> Iterator[bytes]:
            return self._fetcher.fetch_from(url, start, offer.size_bytes)

        with _translated():
            path = download(offer, self._place / DOWNLOADS, fetch_from, self._max_bytes)
        marks, role = self._marks.read(), role_of(model, channel)
        higher = max(marks[role].bundle, offer.facts.bundle)
        self._marks.write({**marks, role: marks[role]._replace(bundle=higher)})
        return path

    def _refreshed(self, role: str, now: datetime) -> Documents:
        """Return the documents once nothing of them can be lost or taken back any more."""
        try:
            with _translated(), guarded("keeping the host's documents"):
                documents = Documents(
                    self._place / DOCUMENTS,
                    self._url,
                    self._root,
                    self._fetcher,
                    lambda root: clock.reference(now, self._floor(root)),
                )
                try:
                    documents.refresh(role)
                finally:  # a root that revokes a stolen key counts even where the rest did not come
                    self._remember(documents, role)
        except ExpiredMetadataError as error:
            raise clock.expired(str(error), clock.reference(now, self._floor())) from error
        return documents

    def _remember(self, documents: Documents, role: str) -> None:
        documents.sync()
        marks, seen = self._marks.read(), documents.seen(role)
        check(marks, seen)
        self._marks.write(raised(marks, seen))

    def _floor(self, root: Root | None = None) -> datetime:
        """Return the time that it is at least, by the timestamp's keys in a root; None: by those it had."""
        marks = self._marks.read()
        if root is None:
            return clock.floor(marks, marks[clock.TIMESTAMP].keys if clock.TIMESTAMP in marks else (), 1)
        stamp = root.get_delegated_role(clock.TIMESTAMP)
        return clock.floor(marks, stamp.keyids, stamp.threshold)


def _is_offered(offer: Offer, most: int, size: int) -> bool:
    bundle = offer.facts.bundle
    return bundle < most or (bundle == most and size in (0, offer.size_bytes))


def _read_root(place: Path) -> bytes | None:
    path = place / TRUSTED_ROOT
    with guarded("reading the trusted root"):
        return path.read_bytes() if path.exists() else None


def _vouches(known: bytes, later: Metadata[Root]) -> bool:
    """Tell whether the keys of a root that is trusted have signed a later one (TUF 5.3.4, one step)."""
    try:
        before = Metadata[Root].from_bytes(known).signed
        if later.signed.version <= before.version:
            return False
        before.verify_delegate("root", later.signed_bytes, later.signatures)
    except (RepositoryError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise what tuf's client raises as our errors; expiry is left to the caller, who knows the time."""
    try:
        yield
    except ExpiredMetadataError:
        raise
    except DownloadLengthMismatchError as error:
        raise ProtocolError(f"the host sends more than it may ({error}): what runs goes on") from error
    except DownloadError as error:
        raise TransportError(
            f"the host cannot be asked ({error}): it is tried again at the next sync"
        ) from error
    except RepositoryError as error:
        raise ReleaseError(
            f"the host's documents are not to be believed ({error}); what runs goes on"
        ) from error
