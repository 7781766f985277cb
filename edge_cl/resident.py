"""How much memory a process has had resident, as the kernel tells it."""

import resource
from pathlib import Path

KIBIBYTE = 1024


def peak_resident_bytes(process: int | None = None) -> int:
    """Return the most bytes that a process had resident; 0 where the kernel does not say.

    The kernel's own high-water mark (VmHWM) begins anew with a program. What getrusage tells does not: a
    program that a large one has started would answer with the large one's peak.

    Args:
        process: its number; this one where None.
    """
    path = Path("/proc") / ("self" if process is None else str(process)) / "status"
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0 if process else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
    return next((int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith("VmHWM:")), 0)
