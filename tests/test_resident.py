"""The peak of memory is a process's own."""

import subprocess
import sys

from edge_cl.resident import peak_resident_bytes

MEGABYTE = 10**6
TOLD = """
import sys
from edge_cl.resident import peak_resident_bytes
held = bytearray(b"1") * int(sys.argv[1])
print(peak_resident_bytes())
"""


def told_by_a_child(held_bytes: int) -> int:
    said = subprocess.run(
        [sys.executable, "-c", TOLD, str(held_bytes)], capture_output=True, text=True, check=True
    )
    return int(said.stdout)


def test_it_grows_with_what_is_held():
    less, more = told_by_a_child(0), told_by_a_child(100 * MEGABYTE)
    assert 90 * MEGABYTE < more - less < 120 * MEGABYTE


def test_a_small_program_started_by_a_large_one_tells_its_own():
    """getrusage would tell the large one's."""
    held = bytearray(300 * MEGABYTE)
    held[::4096] = b"\1" * len(held[::4096])
    assert told_by_a_child(0) < 100 * MEGABYTE < 300 * MEGABYTE < peak_resident_bytes()


def test_a_process_that_is_not_there_held_nothing():
    assert peak_resident_bytes(2**30) == 0
