"""`host-trainer enroll` and `revoke`: let a device into a fleet by a one-time code, and shut it out."""

import sys
import time
from io import StringIO
from typing import Annotated

import typer

from edge_cl.errors import ConfigError
from edge_cl.wire.messages import LEVELS, STATISTICS
from edge_cl.wire.release import CHANNELS
from host_trainer.commands.fleet_options import (
    Database,
    Folder,
    InsecureLoopback,
    address,
    model_of,
    seconds,
)
from host_trainer.commands.serve import PORT
from host_trainer.commands.terminal import AsJson, print_json, say

MAX_USES = 10_000

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What to call the device, as in pi-kitchen.", show_default=False)
]
Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="Whose bundles it gets.", show_default="the only one")
]
Channel = Annotated[
    str, typer.Option("--channel", metavar="CHANNEL", help=f"From where: {', '.join(CHANNELS)}.")
]
Level = Annotated[
    str,
    typer.Option(
        "--level",
        metavar="LEVEL",
        help=f"The most that this host wants of it: {', '.join(LEVELS)}. Its owner may tell less.",
    ),
]
Ttl = Annotated[
    str, typer.Option("--ttl", metavar="TIME", help="How long the code is good, as in 15m, 1h, 7d.")
]
Uses = Annotated[
    int,
    typer.Option(
        "--uses",
        metavar="N",
        min=1,
        max=MAX_USES,
        help="Let so many devices in by one code; they are NAME, NAME-2, NAME-3.",
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="HOST_TRAINER_URL",
        help="This host as the device reaches it.",
        show_default=f"https://THIS-MACHINE:{PORT}",
    ),
]
Qr = Annotated[bool, typer.Option("--qr/--no-qr", help="Show the command as a QR code, on a terminal.")]
Discard = Annotated[
    bool, typer.Option("--discard", help="Also set aside what it sent: nobody learns from it any more.")
]


def enroll(
    name: Name,
    folder: Folder,
    model: Model = "",
    channel: Channel = CHANNELS[-1],
    level: Level = STATISTICS,
    ttl: Ttl = "1h",
    uses: Uses = 1,
    url: Url = "",
    qr: Qr = True,
    database: Database = "",
    insecure_loopback: InsecureLoopback = False,
    as_json: AsJson = False,
) -> None:
    """Print a one-time code that lets a device into the fleet; type it on the device.

    The code names this host's certificate, so that the device knows the host before it tells the code. A
    device that was in the fleet under this name gets a new key, and the old one ends.
    """
    from edge_cl.wire.enrolment import Code, write_code
    from host_trainer.server.certificate import certificate_of, machine_name
    from host_trainer.server.devices import Terms, make_code
    from host_trainer.server.fleet import open_fleet

    _check(channel, level)
    lasting = seconds(ttl, "--ttl")
    with open_fleet(folder, address(database, "", "")) as fleet:
        terms = Terms(name, model_of(fleet, model), channel, level)
        fingerprint = b"" if insecure_loopback else certificate_of(folder).fingerprint
        now = int(time.time())
        with fleet.database.writing() as session:
            token = make_code(session, terms, now, lasting, uses)
    code = write_code(Code(token, fingerprint))
    url = url or (f"http://127.0.0.1:{PORT}" if insecure_loopback else f"https://{machine_name()}:{PORT}")
    line = f"edge-cl init --host {url} --code {code}"
    if as_json:
        print_json({"device": name, "code": code, "command": line, "expires_at": now + lasting, "uses": uses})
        return
    if qr and sys.stdout.isatty():
        say(_picture(line))
    typer.echo(line)
    times = "once" if uses == 1 else f"{uses} times"
    say(f"Run this on the device. The code is good {times}, for {ttl}; whoever has it can join.")


def revoke(
    name: Name,
    folder: Folder,
    discard: Discard = False,
    database: Database = "",
    as_json: AsJson = False,
) -> None:
    """Shut a device out of the fleet from its next request on; it goes on by itself with what it knows."""
    from host_trainer.server import devices
    from host_trainer.server.fleet import open_fleet

    with open_fleet(folder, address(database, "", "")) as fleet, fleet.database.writing() as session:
        devices.revoke(session, name, discard)
    if as_json:
        print_json({"device": name, "state": "revoked", "discarded": discard})
        return
    typer.echo(f"{name} is revoked")


def _check(channel: str, level: str) -> None:
    if channel not in CHANNELS:
        raise ConfigError(f"--channel {channel} is none: choose {', '.join(CHANNELS)}")
    if level not in LEVELS:
        raise ConfigError(f"--level {level} is none: choose {', '.join(LEVELS)}")


def _picture(line: str) -> str:
    """Return the QR code of a line, in characters of a terminal."""
    import segno

    drawn = StringIO()
    segno.make(line, error="l", micro=False).terminal(drawn, compact=True, border=2)
    return drawn.getvalue()
