"""`host-trainer fleet`: the devices of a fleet, what they run, how they fare."""

import time
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from host_trainer.commands.fleet_options import Database, Folder, address
from host_trainer.commands.terminal import AsJson, print_json

WIDE = 200  # characters

if TYPE_CHECKING:
    from host_trainer.server.overview import Rolled, Seen


def fleet(folder: Folder, database: Database = "", as_json: AsJson = False) -> None:
    """Show the devices of a fleet: what they run, when they were last seen, how they fare."""
    from host_trainer.server import overview
    from host_trainer.server.fleet import open_fleet

    now = int(time.time())
    with open_fleet(folder, address(database, "", "")) as opened, opened.database.reading() as session:
        found: dict[str, Any] = {
            "count": overview.count(session, now),
            "devices": overview.devices(session),
            "rollouts": overview.rollouts(session, now),
            "bundles": overview.releases(session),
            "contents": overview.contents(session),
            "jobs": overview.jobs(session),
        }
    if as_json:
        print_json({name: _plain(value) for name, value in found.items()})
        return
    _print(found["devices"], found["rollouts"], now)


def _plain(value: Any) -> Any:
    return [each._asdict() for each in value] if isinstance(value, list) else value._asdict()


def _print(devices: "list[Seen]", rollouts: "list[Rolled]", now: int) -> None:
    from host_trainer.server.words import ago, percent

    if not devices:
        typer.echo("no devices yet: `host-trainer enroll NAME FLEET` prints the code for the first one")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("device", "last seen", "bundle", "state", "accuracy", "suspects", "channel", "tells"):
        table.add_column(title)
    for each in devices:
        is_revoked = each.state == "revoked"
        state = each.install if not each.tried else f"{each.install} {each.tried}"
        row = (
            *(
                each.name,
                "revoked" if is_revoked else ago(each.seen_at, now),
                str(each.bundle or "own"),
                state,
            ),
            *(percent(each.accuracy), str(each.suspects), f"{each.model}, {each.channel}", each.level),
        )
        table.add_row(*(Text(cell) for cell in row), style="dim" if is_revoked else "")
    console = Console()
    if not console.is_terminal:
        console.width = WIDE  # whoever reads a pipe wants whole lines
    console.print(table)
    for rollout in rollouts:
        typer.echo(_line(rollout))


def _line(rollout: "Rolled") -> str:
    from host_trainer.server.words import percent

    where = f"bundle {rollout.number} of {rollout.model} in {rollout.channel}"
    if rollout.reason:
        return f"{where}: stopped, {rollout.reason}"
    then = f", then {', '.join(map(percent, rollout.steps))}" if rollout.steps else ""
    kept = f"{rollout.kept} of {rollout.group} kept it, {rollout.failed} rolled it back"
    return f"{where}: offered to {percent(rollout.share)}{then}; {kept}"
