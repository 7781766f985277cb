"""The command `host-trainer`: turns words on the command line into calls, and errors into exit statuses."""

import sys


def main() -> None:
    """Run `host-trainer`; exit status 2 with one line when the workshop's packages are not installed."""
    try:
        from host_trainer.commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"typer", "rich"}:
            raise
        remedy = "install the workshop with `pip install 'edge-cl[host]'`"
        print(f"host-trainer: {error.name} is not installed: {remedy}", file=sys.stderr)
        sys.exit(2)
    app()
