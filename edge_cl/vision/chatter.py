"""Holds back what native libraries print on standard error, which no Python setting reaches."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock

from edge_cl.vision.files import one_line

_redirecting = RLock()  # file descriptor 2 belongs to the whole process; a block may hold within another


@contextmanager
def native_chatter_held(is_noise: Callable[[bytes], bool]) -> Iterator[None]:
    """Hold standard error while the block runs; then write through the lines that are not noise.

    When the block fails, its ERROR lines are added to a ValueError or RuntimeError instead.
    """
    saved = _duplicate_of_stderr()
    if saved is None:
        yield
        return
    with _redirecting:
        held = os.memfd_create("chatter")
        os.dup2(held, 2)
        try:
            yield
        except (ValueError, RuntimeError) as error:
            said = _errors_in(_lines(held))
            if not said or said in str(error):
                raise
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(f"{error} {said}") from error
        else:
            os.write(saved, b"".join(line for line in _lines(held) if not is_noise(line)))
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(held)


def _duplicate_of_stderr() -> int | None:
    """Return a copy of descriptor 2; None where there is none, or no memory file to write to (not Linux)."""
    if not hasattr(os, "memfd_create"):
        return None
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        return os.dup(2)
    except OSError:
        return None


def _lines(held: int) -> list[bytes]:
    return os.pread(held, os.fstat(held).st_size, 0).splitlines(keepends=True)


def _errors_in(lines: list[bytes]) -> str:
    errors = b" ".join(line for line in lines if line.startswith(b"ERROR"))
    return one_line(errors.decode("utf-8", "replace")) if errors else ""
