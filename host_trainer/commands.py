"""The commands of the workshop: reads options, calls, prints. Importing it needs the `host` extra."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge_cl import __version__
from edge_cl.errors import EngineError
from host_trainer.doctor import Finding, advice
from host_trainer.parts import find_parts, visible_gpus

app = typer.Typer(
    name="host-trainer",
    help="Train, compress and publish what the devices run.",
    no_args_is_help=True,
    add_completion=False,
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


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Say which parts of the workshop are installed here, and what to install. Exit 0 whatever is missing."""
    findings = find_parts()
    try:
        gpus = visible_gpus()
    except EngineError as error:
        gpus, steps = [], [str(error)]
    else:
        steps = advice(findings, gpus)
    if as_json:
        parts = {finding.part.module: finding.version for finding in findings}
        typer.echo(json.dumps({"version": __version__, "parts": parts, "gpus": gpus, "advice": steps}))
        return
    console = Console()
    console.print(_table(findings))
    console.print("GPU: " + (", ".join(gpus) or "none visible"), highlight=False)
    for step in steps:
        console.print(f"- {step}", highlight=False, markup=False, soft_wrap=True)


def _table(findings: list[Finding]) -> Table:
    table = Table("part", "version", "for", title="host-trainer doctor", title_justify="left")
    for part, version in findings:
        table.add_row(part.module, version or "not installed", part.purpose)
    return table
