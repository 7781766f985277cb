"""Opens a file that somebody named, without ever waiting on a pipe or reading a device."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from edge_cl.errors import InputError

MAX_REASON_CHARS = 200  # one line of a terminal or two; foreign messages run to pages


def open_plain(path: Path, refusal: type[InputError]) -> tuple[BinaryIO, int]:
    """Return a plain file opened for reading, and its size in bytes.

    Raises:
        refusal: absent, unreadable, a folder, a pipe or a device.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise refusal(
            f"{shown(path.name)}: cannot be opened ({reason}): check the path and its rights"
        ) from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise refusal(f"{shown(path.name)}: is not a plain file: give the path of a file")
    return os.fdopen(descriptor, "rb"), facts.st_size


def shown(name: str) -> str:
    """Return a file name that is safe to print on one line."""
    return name if name.isprintable() else repr(name)


def one_line(error: Exception | str) -> str:
    """Return a foreign message as one short line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= MAX_REASON_CHARS else text[: MAX_REASON_CHARS - 1] + "…"
