"""A short life of a whole learner, as a process of its own: made to be killed at any moment.

    pupil.py BACKBONE STATE PHOTOS

Every line it prints is a promise that was kept before the line: `ready` (the learner exists), `kept N` (N
samples are acknowledged), `forgot S` (this sample is gone). Limits are small, so that a dozen pictures see
several commits, consolidations and checkpoints.
"""

import os
import sys
from pathlib import Path

from edge_cl import cli
from edge_cl.device import agent as agents
from edge_cl.device import teaching
from edge_cl.device.folders import from_folder
from edge_cl.device.opening import open_agent

COMMIT_ROWS, UPDATE_SAMPLES, CHECKPOINT_SAMPLES = 2, 4, 4
FORGOTTEN = 2  # the sample that is taken out at the end


def promise(line: str) -> None:
    """Print a line in one call: half a promise is none."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main(backbone: Path, state: Path, photos: Path) -> int:
    """Make a learner, teach it, let it forget one picture."""
    teaching.COMMIT_ROWS, agents.UPDATE_SAMPLES = COMMIT_ROWS, UPDATE_SAMPLES
    agents.CHECKPOINT_SAMPLES = CHECKPOINT_SAMPLES
    status = cli.main(["init", "--json", "--state", str(state), "--backbone", str(backbone), "--seed", "1"])
    if status:
        return status
    promise("ready")
    with open_agent(state, with_backbone=True) as agent:
        agent.teach(
            from_folder(photos).pictures,
            steps=2,
            watch=lambda taught, _: promise(f"kept {taught.learned.total()}"),
        )
        agent.save()
        agent.forget([FORGOTTEN])
        promise(f"forgot {FORGOTTEN}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
