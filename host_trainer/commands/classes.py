"""`host-trainer classes`: which classes the fleet knows under which name, and that two of them are one."""

import time
from typing import Annotated, Any

import typer

from edge_cl.errors import ConfigError, LabelError
from edge_cl.sample import clean_label
from edge_cl.wire.fields import to_plain
from edge_cl.wire.labels import Assigned, Edit
from host_trainer.commands.fleet_options import Database, Folder, address
from host_trainer.commands.terminal import AsJson, print_json, say

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--from", metavar="CLASS", help="A class that gets another name; may be repeated.", show_default=False
    ),
]
Into = Annotated[
    str, typer.Option("--into", metavar="CLASS", help="What they are called from now on.", show_default=False)
]
Exceptions = Annotated[
    list[str] | None,
    typer.Option(
        "--except",
        metavar="DEVICE:SAMPLE=CLASS",
        help="A sample of a device that is another class, to split one; may be repeated.",
        show_default=False,
    ),
]


def classes(
    folder: Folder,
    sources: Sources = None,
    into: Into = "",
    exceptions: Exceptions = None,
    database: Database = "",
    as_json: AsJson = False,
) -> None:
    """Show the classes of the fleet, or rename, merge and split them: all devices follow at their next round.

    Names that differ only in capitals or in how an accent is written are one class anyway.
    """
    from host_trainer.server import classes as registry
    from host_trainer.server import overview
    from host_trainer.server.fleet import open_fleet

    if bool(sources) != bool(into):
        raise ConfigError("say both: which classes with --from, and what they become with --into")
    if exceptions and not sources:
        raise ConfigError("--except goes with --from and --into")
    assigned = [_assigned(each) for each in exceptions or ()]
    with open_fleet(folder, address(database, "", "")) as fleet:
        if sources:
            with fleet.database.writing() as session:
                old = [_label(each) for each in sources]
                edit = registry.edit(session, old, _label(into), int(time.time()), assigned)
        with fleet.database.reading() as session:
            made, labels = registry.edits(session), overview.labels(session)
    if as_json:
        print_json({"edits": [to_plain(each) for each in made], "classes": labels})
    elif sources:
        typer.echo(_line(edit))
        say("Devices follow at their next round, the head with the next training.")
    else:
        _print(labels, made)


def _label(words: str) -> str:
    try:
        return clean_label(words)
    except LabelError as error:
        raise ConfigError(str(error)) from error


def _assigned(words: str) -> Assigned:
    where, _, label = words.partition("=")
    device, _, sample = where.rpartition(":")
    try:
        return Assigned(device, int(sample), _label(label))
    except ValueError as error:
        raise ConfigError(
            f"--except {words} does not read: use DEVICE:SAMPLE=CLASS, as pi-1:17=fork"
        ) from error


def _print(labels: dict[str, list[str]], made: tuple[Edit, ...]) -> None:
    for model, names in labels.items():
        typer.echo(f"{model}: {', '.join(names)}")
    for each in made:
        typer.echo(_line(each))
    if not labels and not made:
        typer.echo("no bundle yet, and no class was renamed")


def _line(edit: Edit) -> str:
    special: dict[str, Any] = {}
    for each in edit.assigned:
        special[each.label] = special.get(each.label, 0) + 1
    but = "".join(f", {count} of them {label}" for label, count in special.items())
    return f"{edit.version}. {', '.join(edit.sources)} -> {edit.into}{but}"
