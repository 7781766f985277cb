"""`host-trainer rotate-key` and `renew`: put a new key in a key's place, and sign what would expire."""

from datetime import datetime
from typing import Annotated

import typer

from host_trainer.commands.keys import Home, KeyFolders, PassphraseFile, opened, today
from host_trainer.commands.terminal import AsJson, print_json, say

Key = Annotated[str, typer.Argument(metavar="KEY", help="Such as trainer-1 or root-2.", show_default=False)]


def rotate_key(
    key: Key,
    repository: Home,
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, put it in the place of one that was stolen or lost, and sign all that this touches.

    Two root keys sign a change of root, targets, snapshot or timestamp keys; the targets key one of trainer
    or release keys. Devices follow at their next sync, and believe the old key no more.
    """
    from host_trainer.release.publisher import rotate_key as rotated

    place, ring = opened(repository, keys, passphrase_file)
    done = rotated(place, ring, key, today())
    if as_json:
        print_json({**done._asdict(), "file": str(done.file), "roles": list(done.roles)})
    else:
        typer.echo(
            f"{done.new} signs {', '.join(done.roles)} in the place of {done.old}; it is in {done.file}"
        )


def renew(
    repository: Home, keys: KeyFolders = None, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Sign snapshot and timestamp anew, and whatever is half through its life and has its keys at hand.

    Run it every day: a timestamp older than that stops devices from installing, never from running.
    """
    from host_trainer.release.publisher import renew as renewed

    place, ring = opened(repository, keys, passphrase_file)
    done = renewed(place, ring, today())
    if as_json:
        print_json({"renewed": _by_role(done.renewed), "waiting": _by_role(done.waiting)})
        return
    typer.echo("signed anew: " + ", ".join(f"{role} until {time:%Y-%m-%d}" for role, time in done.renewed))
    for role, time in done.waiting:
        say(f"{role} expires on {time:%Y-%m-%d}: run this again with the folder of its keys as --keys")


def _by_role(expiries: tuple[tuple[str, datetime], ...]) -> dict[str, str]:
    return {role: time.isoformat() for role, time in expiries}
