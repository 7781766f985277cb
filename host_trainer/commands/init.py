"""`host-trainer init`: makes the keys and the repository of a fleet, or adds a model to one."""

from pathlib import Path
from typing import Annotated

import typer

from host_trainer.commands.keys import KeyFolders, PassphraseFile, chosen, opened, today
from host_trainer.commands.terminal import AsJson, print_json, say

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder to make, or that has been made.", show_default=False)
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model", metavar="NAME", help="A model the fleet runs; may be repeated.", show_default=False
    ),
]
WithPassphrase = Annotated[
    bool, typer.Option("--passphrase/--no-passphrase", help="Put the offline keys under a passphrase.")
]


def init(
    folder: Folder,
    model: Models,
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    passphrase: WithPassphrase = True,
    as_json: AsJson = False,
) -> None:
    """Make a repository of signed releases and its keys; in one that is there, add models.

    The keys in `keys/offline` belong on a medium that is not in this computer: root, targets, release.
    """
    from host_trainer.release.publisher import add_model, found_repository

    place, ring = opened(folder, keys, passphrase_file)
    if place.exists():
        for each in model:
            add_model(place, ring, each, today())
    else:
        found_repository(place, ring, model, chosen(passphrase_file, passphrase), today())
    root = place.metadata / "1.root.json"
    if as_json:
        print_json({"repository": str(folder), "models": model, "trusted_root": str(root)})
        return
    typer.echo(f"{root} is what devices are enrolled with")
    say(f"Move {place.keys / 'offline'} to a medium of its own, and a copy of it to another place.")
