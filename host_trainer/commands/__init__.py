"""The commands of the workshop, one module each: reads options, calls, prints. Needs the `host` extra."""

from typing import Annotated

import typer

from edge_cl import __version__
from host_trainer.commands.check_edgetpu import check_edgetpu
from host_trainer.commands.classes import classes
from host_trainer.commands.codistill import codistill
from host_trainer.commands.distill import distill
from host_trainer.commands.doctor import doctor
from host_trainer.commands.enroll import enroll, revoke
from host_trainer.commands.export import export
from host_trainer.commands.fleet import fleet
from host_trainer.commands.init import init
from host_trainer.commands.publish import promote, publish
from host_trainer.commands.retrain import retrain
from host_trainer.commands.rollout import rollback, rollout
from host_trainer.commands.rotate_key import renew, rotate_key
from host_trainer.commands.serve import serve
from host_trainer.commands.train import train

app = typer.Typer(
    name="host-trainer",
    help="Train, compress and publish what the devices run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # `[:WIDTH]` in a help text is no markup
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"host-trainer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Train, compress and publish what the devices run."""


app.command("train")(train)
app.command("distill")(distill)
app.command("codistill")(codistill)
app.command("export")(export)
app.command("check-edgetpu")(check_edgetpu)
app.command("init")(init)
app.command("publish")(publish)
app.command("promote")(promote)
app.command("retrain")(retrain)
app.command("rotate-key")(rotate_key)
app.command("renew")(renew)
app.command("serve")(serve)
app.command("enroll")(enroll)
app.command("revoke")(revoke)
app.command("fleet")(fleet)
app.command("rollout")(rollout)
app.command("rollback")(rollback)
app.command("classes")(classes)
app.command("doctor")(doctor)
