"""A device and the repository folder of a host, as the device sees it through a plain web server."""

from datetime import datetime, timezone
from pathlib import Path

from simulators.loopback import serving

from edge_cl.device.releases.client import Answer, enrol, open_releases
from edge_cl.device.transport import Transport
from edge_cl.wire.release import Board

BOARD = Board(("cpu",), "0.1.0")


def served(fleet: Path) -> dict[str, bytes]:
    """Return every file that a web server would serve of a repository's folder."""
    root = fleet / "repository"
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def sync(
    state: Path,
    fleet: Path,
    model: str = "waste",
    channel: str = "stable",
    files: dict[str, bytes] | None = None,
) -> tuple[Answer, bytes | None]:
    """Enrol a device where it is not, ask, and fetch what is offered: (answer, its bytes)."""
    files = served(fleet) if files is None else files
    if not (state / "tuf").exists():
        enrol(state, files["metadata/1.root.json"])
    with serving(files) as server, open_releases(state, server.url, Transport()) as releases:
        answer = releases.ask(model, channel, BOARD, datetime.now(timezone.utc))
        return answer, None if answer.offer is None else releases.fetch(answer.offer).read_bytes()
