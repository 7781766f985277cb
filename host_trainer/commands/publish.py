"""`host-trainer publish` and `promote`: list a release in a channel, and in the next one."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cl.wire.release import ANY, CHANNELS, Facts
from host_trainer.commands.fleet_options import Database, address
from host_trainer.commands.keys import Home, KeyFolders, Model, PassphraseFile, opened, today
from host_trainer.commands.rollout import ERROR, SUCCESS, Error, Success, rollout_of
from host_trainer.commands.terminal import AsJson, print_json

if TYPE_CHECKING:
    from host_trainer.release.folder import RepositoryFolder
    from host_trainer.release.publisher import Listed
    from host_trainer.server.rules.rollout import Rollout

File = Annotated[Path, typer.Argument(metavar="FILE", help="The release; any bytes.", show_default=False)]
Name = Annotated[
    str, typer.Option("--name", metavar="NAME", help="Its name in the channel.", show_default="the file's")
]
Channel = Annotated[
    str, typer.Option("--channel", metavar="CHANNEL", help=f"Where to list it: {', '.join(CHANNELS)}.")
]
Bundle = Annotated[
    int,
    typer.Option("--bundle", metavar="N", help="Its number.", show_default="one more than any of the model"),
]
Hardware = Annotated[
    list[str],
    typer.Option("--hardware", metavar="CLASS", help="A class of boards it runs on; may be repeated."),
]
RuntimeFrom = Annotated[
    str, typer.Option("--runtime-from", metavar="VERSION", help="The oldest edge-cl that can run it.")
]
RuntimeBelow = Annotated[
    str,
    typer.Option(
        "--runtime-below",
        metavar="VERSION",
        help="The first edge-cl that cannot.",
        show_default="none is known",
    ),
]
Listed_ = Annotated[
    str, typer.Argument(metavar="NAME", help="A release of the channel before.", show_default=False)
]
To = Annotated[
    str, typer.Option("--to", metavar="CHANNEL", help=f"{' or '.join(CHANNELS[1:])}.", show_default=False)
]
FirstTo = Annotated[
    str,
    typer.Option(
        "--share",
        metavar="PERCENT,...",
        help="Offer it to so many of the devices first, then to more, as in 10,50,100.",
        show_default="all at once",
    ),
]
ANY_BOARD = (ANY,)


def publish(
    file: File,
    repository: Home,
    model: Model,
    channel: Channel = CHANNELS[0],
    name: Name = "",
    bundle: Bundle = 0,
    hardware: Hardware = list(ANY_BOARD),  # noqa: B006 - typer copies it
    runtime_from: RuntimeFrom = "0",
    runtime_below: RuntimeBelow = "",
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """List a file in a channel, signed; devices that it suits take it at their next sync."""
    from host_trainer.release.publisher import publish as listed_in

    place, ring = opened(repository, keys, passphrase_file)
    facts = Facts(bundle, tuple(hardware), runtime_from, runtime_below)
    _tell(listed_in(place, ring, file, model, channel, facts, today(), name), as_json)


def promote(
    name: Listed_,
    repository: Home,
    model: Model,
    to: To,
    share: FirstTo = "",
    success: Success = SUCCESS,
    error: Error = ERROR,
    database: Database = "",
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """List a release of canary in beta as well, or one of beta in stable: the same bytes, the same number.

    For stable the release key must be at hand beside the trainer's. Compare the SHA-256 that is printed with
    the one of the release you tried. With --share, the server offers it step by step (see `rollout`).
    """
    from host_trainer.release.publisher import promote as listed_in

    place, ring = opened(repository, keys, passphrase_file)
    if share:
        _roll_out(place, name, model, to, rollout_of(share, success, error), database)
    _tell(listed_in(place, ring, name, model, to, today()), as_json)


def _roll_out(
    place: "RepositoryFolder", name: str, model: str, to: str, rollout: "Rollout", database: str
) -> None:
    """Say to how many a release is to be offered, before it is listed: so nobody is offered it too early."""
    from host_trainer.release.publisher import bundle_below
    from host_trainer.server import bundles
    from host_trainer.server.fleet import open_fleet

    number = bundle_below(place, name, model, to, today())
    with open_fleet(place.folder, address(database, "", "")) as fleet, fleet.database.writing() as session:
        bundles.roll_out(session, model, to, number, rollout, int(time.time()))


def _tell(listed: "Listed", as_json: bool) -> None:
    if as_json:
        print_json({**listed._asdict(), "file": str(listed.file)})
    else:
        typer.echo(f"{listed.path} is listed as bundle {listed.bundle}, SHA-256 {listed.sha256}")
