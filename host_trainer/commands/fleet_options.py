"""What the commands about a fleet share: where its folder, its database and its objects are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cl.errors import ConfigError

if TYPE_CHECKING:
    from host_trainer.release.folder import RepositoryFolder
    from host_trainer.server.fleet import Address, Fleet

Folder = Annotated[
    Path, typer.Argument(metavar="FLEET", help="The folder that `init` made.", show_default=False)
]
Database = Annotated[
    str,
    typer.Option(
        "--database",
        metavar="ADDRESS",
        envvar="HOST_TRAINER_DATABASE",
        help="PostgreSQL, as in postgresql://USER@MACHINE/NAME.",
        show_default="SQLite in the folder",
    ),
]
Objects = Annotated[
    str,
    typer.Option(
        "--objects",
        metavar="ADDRESS",
        envvar="HOST_TRAINER_OBJECTS",
        help="Where what devices sent is kept, as in s3://BUCKET/PREFIX.",
        show_default="the folder",
    ),
]
Endpoint = Annotated[
    str,
    typer.Option(
        "--s3-endpoint",
        metavar="URL",
        envvar="HOST_TRAINER_S3_ENDPOINT",
        help="An S3-compatible server that is not Amazon's.",
        show_default="Amazon's",
    ),
]
InsecureLoopback = Annotated[
    bool,
    typer.Option(
        "--insecure-loopback",
        help="Plain HTTP, on this machine alone: to try it, or behind a proxy of yours.",
    ),
]
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def address(database: str, objects: str, endpoint: str) -> "Address":
    """Return where a fleet keeps what is not in its folder."""
    from host_trainer.server.fleet import Address

    return Address(database, objects, endpoint)


def seconds(words: str, option: str) -> int:
    """Return a length of time such as 90s, 15m, 1h, 7d in seconds; ConfigError for another."""
    number, unit = words[:-1], words[-1:]
    if unit not in UNITS_S or not number.isascii() or not number.isdigit() or not 0 < int(number) < 10**6:
        raise ConfigError(f"{option} {words} is no length of time: use 90s, 15m, 1h, 7d")
    return int(number) * UNITS_S[unit]


def model_of(fleet: "Fleet", wanted: str) -> str:
    """Return the model that is wanted, or the only one; ConfigError where that cannot be told."""
    return model_among(fleet.place, wanted)


def model_among(place: "RepositoryFolder", wanted: str) -> str:
    """Return the model of a repository that is wanted, or its only one; errors as `model_of`."""
    known = sorted({role.rpartition("-")[0] for role in place.read().channels})
    if wanted in known or (not wanted and len(known) == 1):
        return wanted or known[0]
    if wanted:
        raise ConfigError(f"this fleet has no model {wanted}, but {', '.join(known)}: add it with `init`")
    raise ConfigError(f"this fleet has several models: choose one with --model: {', '.join(known)}")
