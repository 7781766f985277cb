"""`host-trainer doctor`: says which parts of the workshop are installed here."""

from rich.console import Console
from rich.table import Table

from edge_cl import __version__
from edge_cl.errors import EngineError
from host_trainer.commands.terminal import AsJson, print_json
from host_trainer.doctor import Finding, advice
from host_trainer.parts import find_parts, visible_gpus


def doctor(as_json: AsJson = False) -> None:
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
        print_json({"version": __version__, "parts": parts, "gpus": gpus, "advice": steps})
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
