"""`host-trainer retrain`: a fleet's next release, from what its devices sent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cl.errors import ConfigError
from host_trainer.commands.fleet_options import Database, Endpoint, Folder, Objects, address
from host_trainer.commands.keys import KeyFolders, Model, PassphraseFile, opened, today
from host_trainer.commands.terminal import AsJson, meter, print_json, quiet_libraries, say, stopping

if TYPE_CHECKING:
    from host_trainer.retraining.contents import Contents

First = Annotated[bool, typer.Option("--first", help="Make the model's first release.")]
Backbone = Annotated[
    Path | None,
    typer.Option("--backbone", metavar="FILE", help="With --first: the .tflite file that devices run."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="With --first: pictures to begin with, train/CLASS/* or CLASS/*."
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        metavar="DIR",
        help="Pictures CLASS/* that no device supplied, to judge releases by.",
        show_default="those of the release before, or test/ of --data",
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(
        "--network",
        metavar="DIR",
        help="With --first: what `train --method` made; devices run its file, and it is trained on later.",
    ),
]
HeadOnly = Annotated[bool, typer.Option("--head-only", help="Leave the backbone as it is.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        metavar="N",
        min=1,
        help="Of a network that is trained on.",
        show_default="as it was trained",
    ),
]
NoMirror = Annotated[
    bool, typer.Option("--no-mirror", help="With --first: a mirrored picture means something else.")
]
ContentsFolder = Annotated[
    Path | None,
    typer.Option(
        "--contents", metavar="DIR", help="Learn from contents in a folder, instead of those of the server."
    ),
]
Cap = Annotated[
    float,
    typer.Option(
        "--cap",
        metavar="SHARE",
        min=0.01,
        max=1.0,
        help="Largest share of one device where others speak too.",
    ),
]


def retrain(
    fleet: Folder,
    model: Model,
    first: First = False,
    backbone: Backbone = None,
    network: Network = None,
    data: Data = None,
    held_out: HeldOut = None,
    no_mirror: NoMirror = False,
    head_only: HeadOnly = False,
    epochs: Epochs = None,
    contents: ContentsFolder = None,
    cap: Cap = 0.5,
    database: Database = "",
    objects: Objects = "",
    endpoint: Endpoint = "",
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a release of what devices sent, prove it, and list it in canary - or say why not.

    Each stage leaves its result in FLEET/runs; killed, the same command goes on. Exit status 1: the gate
    rejected it.
    """
    quiet_libraries()
    from host_trainer.retraining.job import Options, World
    from host_trainer.retraining.session import retrain as run

    only = {"--backbone": backbone, "--network": network, "--data": data}
    for name, value in only.items():
        if value is not None and not first:
            raise ConfigError(f"{name} belongs to a first release: give --first too")
    place, ring = opened(fleet, keys, passphrase_file)
    options = Options(
        fleet=fleet,
        model=model,
        first=first,
        backbone=backbone,
        network=network,
        data=data,
        held_out=held_out,
        mirror=not no_mirror,
        head_only=head_only,
        epochs=epochs,
        cap=cap,
    )
    where = address(database, objects, endpoint)
    with stopping() as stopped, _heard(fleet, model, contents, where) as heard:
        result = run(options, World(today(), place, ring, heard, meter, say, stopped, time.monotonic))
    if as_json:
        print_json(result)
    else:
        _show(result)
    raise typer.Exit(0 if result["accepted"] else 1)


@contextmanager
def _heard(fleet: Path, model: str, folder: Path | None, where: Any) -> "Iterator[Contents]":
    """Yield what devices sent: in a folder that was named, else in the database of the fleet."""
    from host_trainer.retraining.contents import FolderContents

    if folder is not None:
        yield FolderContents(folder)
        return
    from host_trainer.retraining.fleet_contents import FleetContents
    from host_trainer.server.fleet import open_fleet

    with open_fleet(fleet, where) as opened_fleet:
        yield FleetContents(opened_fleet, model)


def _show(result: dict[str, Any]) -> None:
    for device, reason in result["suspects"].items():
        typer.echo(f"{device} is not believed: {reason}")
    if result["accepted"]:
        typer.echo(f"bundle {result['bundle']} of {result['model']} is listed in canary")
    for reason in result["reasons"]:
        typer.echo(f"rejected: {reason}")
    typer.echo(f"look at {result['report']}")
