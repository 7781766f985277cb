"""`host-trainer rollout` and `rollback`: who of the fleet is offered a bundle, and that nobody is now."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cl.errors import ConfigError
from edge_cl.wire.release import CHANNELS
from host_trainer.commands.fleet_options import Database, Folder, address, model_of
from host_trainer.commands.keys import KeyFolders, PassphraseFile, opened, today
from host_trainer.commands.terminal import AsJson, meter, print_json, say

if TYPE_CHECKING:
    from host_trainer.retraining.republication import Again
    from host_trainer.server.fleet import Fleet
    from host_trainer.server.rules.rollout import Rollout

Number = Annotated[
    int, typer.Argument(metavar="BUNDLE", help="The number of the bundle.", show_default=False, min=1)
]
Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="The model it is of.", show_default="the only one")
]
Channel = Annotated[str, typer.Option("--channel", metavar="CHANNEL", help=f"Where: {', '.join(CHANNELS)}.")]
Share = Annotated[
    str,
    typer.Option(
        "--share",
        metavar="PERCENT,...",
        help="Offer it to so many of the devices first, then to more, as in 10,50,100.",
    ),
]
Success = Annotated[
    float,
    typer.Option(
        "--success",
        metavar="PERCENT",
        help="Go on once so many of those offered it keep it.",
        min=0.1,
        max=100,
    ),
]
Error = Annotated[
    float,
    typer.Option(
        "--error",
        metavar="PERCENT",
        help="Stop once so many of those offered it roll it back.",
        min=0.1,
        max=100,
    ),
]
Why = Annotated[
    str, typer.Option("--why", metavar="WORDS", help="For those who ask later.", show_default=False)
]
Alone = Annotated[bool, typer.Option("--alone", help="Publish nothing in its place.")]
SUCCESS, ERROR = 90.0, 20.0


def rollout(
    bundle: Number,
    folder: Folder,
    model: Model = "",
    channel: Channel = CHANNELS[0],
    share: Share = "100",
    success: Success = SUCCESS,
    error: Error = ERROR,
    database: Database = "",
    as_json: AsJson = False,
) -> None:
    """Say to how many devices of a channel a bundle is offered, step by step; also one that was stopped.

    Set before it is listed in the channel, nobody is offered it too early; `promote --share` does both.
    """
    from host_trainer.server import bundles
    from host_trainer.server.fleet import open_fleet

    if channel not in CHANNELS:
        raise ConfigError(f"--channel {channel} is none: choose {', '.join(CHANNELS)}")
    wanted = rollout_of(share, success, error)
    with open_fleet(folder, address(database, "", "")) as fleet:
        model = model_of(fleet, model)
        with fleet.database.writing() as session:
            bundles.roll_out(session, model, channel, bundle, wanted, int(time.time()))
    if as_json:
        print_json({"bundle": bundle, "model": model, "channel": channel, **wanted._asdict()})
        return
    typer.echo(
        f"bundle {bundle} of {model} in {channel} is offered to {share.partition(',')[0]} % of the devices"
    )


def rollback(
    bundle: Number,
    folder: Folder,
    model: Model = "",
    why: Why = "",
    alone: Alone = False,
    database: Database = "",
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Offer a bundle to nobody any more, in no channel, and the one before it again under a higher number.

    A device that runs it keeps it until a newer one comes, for it takes nothing older.
    """
    from host_trainer.server import bundles
    from host_trainer.server.fleet import open_fleet

    now = int(time.time())
    with open_fleet(folder, address(database, "", "")) as fleet:
        model = model_of(fleet, model)
        with fleet.database.writing() as session:
            bundles.adopt(session, fleet.place, now)
            session.flush()
            listings = bundles.withdraw(session, model, bundle, why)
        if not listings:
            raise ConfigError(
                f"bundle {bundle} of {model} is offered nowhere: `host-trainer fleet` lists them"
            )
        again = None if alone else _published_again(fleet, model, bundle, keys, passphrase_file)
    if as_json:
        number = again.now if again else 0
        print_json({"bundle": bundle, "model": model, "listings": listings, "again": number})
        return
    typer.echo(f"bundle {bundle} of {model} is offered to nobody any more")
    if again is not None:
        typer.echo(f"bundle {again.was} is offered again, as {again.now}")
    else:
        say("Devices that run it keep it until a newer bundle comes.")


def _published_again(
    fleet: "Fleet", model: str, bundle: int, keys: list[Path] | None, passphrase_file: Path | None
) -> "Again | None":
    from host_trainer.retraining.fleet_contents import FleetContents
    from host_trainer.retraining.job import World
    from host_trainer.retraining.republication import publish_again

    place, ring = opened(fleet.folder, keys, passphrase_file)
    around = World(today(), place, ring, FleetContents(fleet, model), meter, say)
    return publish_again(fleet.folder, model, bundle, around)


def rollout_of(share: str, success: float, error: float) -> "Rollout":
    """Return the rollout that the options describe; ConfigError for one that makes no sense."""
    from host_trainer.server.rules.rollout import Rollout, check

    first, *steps = (_per_mille(each) for each in share.split(","))
    found = Rollout(first, tuple(steps), round(success * 10), round(error * 10))
    check(found)
    return found


def _per_mille(percent: str) -> int:
    try:
        return round(float(percent) * 10)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--share {percent} is no percentage: use 10,50,100") from error
