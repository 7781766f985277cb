"""A device that installs a release, as a process of its own: made to be killed at any moment.

    installer.py STATE RELEASE MANIFEST PHOTOS keep|undo

Every line it prints is a promise that was kept before the line: `probation`, `taught N` (N samples are
acknowledged), `kept` or `undone`. Started again it goes on from where it was.
"""

import os
import sys
from pathlib import Path

from simulators.times import START, later

from edge_cl.device.folders import from_files
from edge_cl.device.installation import probation
from edge_cl.device.installation.installation import Installation
from edge_cl.device.installation.states import COMMIT, IDLE, PROBATION, ROLLBACK
from edge_cl.device.opening import open_agent
from edge_cl.errors import EdgeError
from edge_cl.wire.release import Board

BOARD = Board(("cpu", "any"), "0.1.0")
NEW_SIGN, NEW = "6", 2  # taught on probation
ANSWERS = 3


def promise(line: str) -> None:
    """Print a line by a call that no test fails."""
    os.writev(1, [f"{line}\n".encode()])


def live(state: Path, file: Path, manifest: str, photos: Path, end: str) -> None:
    """Install, be taught, and keep the release or undo it."""
    installation = Installation(state, BOARD)
    if installation.standing().state == IDLE:
        installation.consider(file, manifest, None, START)
    record = installation.advance(START)
    promise(record.state)
    if record.state != PROBATION:
        return
    with open_agent(state, with_backbone=True) as agent:
        agent.teach(from_files(NEW_SIGN, sorted((photos / NEW_SIGN).iterdir())[:NEW]).pictures, steps=2)
        promise(f"taught {len(agent.samples())}")
    if end == "undo":
        probation.fail(state, installation.standing(), "a test")
        assert installation.advance(START).state == ROLLBACK
        promise("undone")
        return
    with open_agent(state, with_backbone=True, read_only=True) as agent:
        for path in sorted((photos / NEW_SIGN).iterdir())[:ANSWERS]:
            agent.answer(path)
    assert installation.advance(later(11)).state == COMMIT
    promise("kept")


def main() -> int:
    state, file, manifest, photos, end = sys.argv[1:]
    try:
        live(Path(state), Path(file), manifest, Path(photos), end)
    except EdgeError as error:
        promise(f"error {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
