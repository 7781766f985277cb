"""What the commands that sign share: which repository, where its keys are, and their passphrase."""

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cl.errors import ConfigError
from host_trainer.commands.terminal import say

if TYPE_CHECKING:
    from host_trainer.release.folder import RepositoryFolder
    from host_trainer.release.keyring import Keyring

VARIABLE = "HOST_TRAINER_PASSPHRASE"
MAX_PASSPHRASE_BYTES = 1_000

Home = Annotated[
    Path,
    typer.Option(
        "--repository",
        metavar="DIR",
        envvar="HOST_TRAINER_REPOSITORY",
        help="The folder that `init` made.",
        show_default=False,
    ),
]
KeyFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        help="Where keys are that were moved away, such as a memory stick; may be repeated.",
        show_default=False,
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help=f"A file that holds the passphrase; else {VARIABLE}, else it is asked for.",
        show_default=False,
    ),
]
Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="The model it is a release of.", show_default=False)
]


def opened(
    repository: Path, keys: list[Path] | None, passphrase_file: Path | None
) -> "tuple[RepositoryFolder, Keyring]":
    """Return a repository's folder and the keys at hand; nothing is read yet."""
    from host_trainer.release.folder import RepositoryFolder
    from host_trainer.release.keyring import Keyring

    place = RepositoryFolder(repository)
    return place, Keyring(place.key_folders(tuple(keys or ())), lambda words: asked(words, passphrase_file))


def asked(words: str, passphrase_file: Path | None) -> bytes:
    """Return the passphrase from where it is given.

    Raises:
        ConfigError: it is given nowhere and nobody can be asked, or the file cannot be read.
    """
    given = _given(passphrase_file)
    if given:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"a key is under a passphrase: give it with --passphrase-file, or set {VARIABLE}")
    return str(typer.prompt(words, hide_input=True, err=True)).encode()


def chosen(passphrase_file: Path | None, wanted: bool) -> bytes:
    """Return the passphrase for new offline keys; b"" for none."""
    given = _given(passphrase_file)
    if given or not wanted:
        return given if wanted else b""
    if sys.stdin.isatty():
        words = "Passphrase for the offline keys (empty: none)"
        typed = typer.prompt(
            words, default="", hide_input=True, confirmation_prompt=True, err=True, show_default=False
        )
        given = str(typed).encode()
    if not given:
        say("The offline keys are under no passphrase: keep them where nobody else can read.")
    return given


def today() -> datetime:
    """Return the time by which documents are signed."""
    return datetime.now(timezone.utc)


def _given(passphrase_file: Path | None) -> bytes:
    if passphrase_file is None:
        return os.environ.get(VARIABLE, "").encode()
    try:
        found = passphrase_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"{passphrase_file} cannot be read ({error.strerror}): check its rights") from error
    if not found or len(found) > MAX_PASSPHRASE_BYTES:
        raise ConfigError(f"{passphrase_file} holds no passphrase of 1 to {MAX_PASSPHRASE_BYTES} bytes")
    return found
