"""The command `host-trainer`: turns words on the command line into calls, and errors into exit statuses."""

import sys

from edge_cl.errors import EdgeError

INTERRUPTED = 130  # as shells say it of a program that Ctrl-C ended


def main() -> None:
    """Run `host-trainer`.

    Exit status: 0 done; 2 bad usage or bad input, with one line that says what and how to mend it; 130
    stopped by Ctrl-C; 1 anything else.
    """
    try:
        from host_trainer.commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"typer", "rich"}:
            raise
        _end(f"{error.name} is not installed: install the workshop with `pip install 'edge-cl[host]'`", 2)
    try:
        app()
    except EdgeError as error:
        _end(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        _end(f"{error.name} is not installed: `host-trainer doctor` says what to install", 2)
    except KeyboardInterrupt:
        _end("stopped; what was saved stays", INTERRUPTED)


def _end(line: str, status: int) -> None:
    print(f"host-trainer: {line}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
