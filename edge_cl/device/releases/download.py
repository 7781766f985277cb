"""Touches release files on their way in: each goes on where it was cut, and counts once its hash is right."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_cl.errors import ProtocolError, ReleaseError, TransportError
from edge_cl.memory.disk import file_digest, guarded, size_bytes, sync_file, sync_folder
from edge_cl.wire.release import Offer

PART = ".part"
MAX_BYTES = 256 << 20  # of a file; ours has about 1 MB

FetchFrom = Callable[[int], Iterator[bytes]]  # the pieces of the file from a byte on


def download(offer: Offer, folder: Path, fetch_from: FetchFrom, max_bytes: int = MAX_BYTES) -> Path:
    """Return the verified file of an offer, fetched as far as it is not there yet.

    Raises:
        ReleaseError: larger than this device takes, or the bytes are not those that were signed.
        ProtocolError: the host sends more than was signed; nothing of it is kept.
        TransportError: cut; the next call goes on from there.
        StoreError: no space. Whatever `fetch_from` raises; then too the next call goes on.
    """
    if offer.size_bytes > max_bytes:
        raise ReleaseError(f"{offer.path} has {offer.size_bytes} bytes, more than {max_bytes} allowed here")
    whole, part = folder / offer.sha256, folder / f"{offer.sha256}{PART}"
    with guarded("fetching a release"):
        folder.mkdir(parents=True, exist_ok=True)
        _forget_others(folder, part)
        if size_bytes(whole) == offer.size_bytes and file_digest(whole).hexdigest() == offer.sha256:
            return whole
        whole.unlink(missing_ok=True)
        was_resumed = 0 < size_bytes(part) <= offer.size_bytes
    if not _filled(offer, part, fetch_from) and not (was_resumed and _filled(offer, part, fetch_from)):
        raise ReleaseError(f"{offer.path} is not what was signed: the host, or someone between, changed it")
    with guarded("keeping a release"):
        part.rename(whole)
        sync_folder(folder)
        sync_folder(folder.parent)
    return whole


def _filled(offer: Offer, part: Path, fetch_from: FetchFrom) -> bool:
    """Bring a part to its full length; False, and it is gone, when its hash is wrong."""
    if size_bytes(part) > offer.size_bytes:
        part.unlink()
    digest, have = file_digest(part) if part.exists() else hashlib.sha256(), size_bytes(part)
    try:
        with guarded("fetching a release"), part.open("ab") as file:
            for piece in fetch_from(have) if have < offer.size_bytes else ():
                have += len(piece)
                if have > offer.size_bytes:
                    raise ProtocolError(
                        f"the host sends more than the {offer.size_bytes} bytes of {offer.path}"
                    )
                file.write(piece)
                digest.update(piece)
    except ProtocolError:
        part.unlink()
        raise
    finally:
        with guarded("keeping a release"):
            if part.exists():
                sync_file(part)
    if have < offer.size_bytes:
        raise TransportError(
            f"{offer.path} was cut after {have} of {offer.size_bytes} bytes: sync again to go on"
        )
    if digest.hexdigest() != offer.sha256:
        part.unlink()
        return False
    return True


def _forget_others(folder: Path, part: Path) -> None:
    """Remove what was begun of another release, so that what is never finished does not fill the storage."""
    for path in folder.glob(f"*{PART}"):
        if path != part:
            path.unlink()
