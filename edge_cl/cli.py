"""Decides what `edge-cl` does with its arguments: parses, dispatches, prints, and maps errors to exit status.

Every command returns one dict. `--json` prints it as one object; without, the command's `show` puts it into
words. Nothing heavy is imported before a command runs.
"""

import argparse
import contextlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from edge_cl import __version__
from edge_cl.config import default_state
from edge_cl.errors import EdgeError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# In the order in which a newcomer meets them.
COMMANDS = {
    "init": "init",
    "learn": "learn",
    "predict": "predict",
    "status": "status",
    "relabel": "relabel",
    "forget": "forget",
    "sync": "sync",
    "backbone": "backbone",
    "eval": "evaluate",
    "doctor": "doctor",
    "backup": "backup",
    "restore": "restore",
}

DESCRIPTION = """\
Teach this machine to recognise things, from a few labelled pictures, for good.

  edge-cl init                               make a learner
  edge-cl learn PHOTOS/                      teach it PHOTOS/CLASS/*.jpg
  edge-cl learn --label mug a.jpg b.jpg      teach it one class
  edge-cl predict new.jpg                    ask it
  edge-cl status                             see what it knows, and what it is unsure of

Nothing leaves this machine unless you enrol it with a host. What was acknowledged survives a pulled plug.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, as every error here is."""

    def error(self, message: str) -> NoReturn:
        """Print one line and end with status 2."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `edge-cl` and return its exit status."""
    # Matrices here are small: more threads cost memory, gain nothing, and could change the last bit of a
    # sum, so that a replayed log would differ. Must be set before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):  # file names need not be valid Unicode
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _complain("stopped; everything acknowledged is kept", INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the whole command line, or what one command needs of it: start-up is felt on a small board."""
    parser = Parser(
        prog="edge-cl", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"edge-cl {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser, required=True)
    for name in [only] if only in COMMANDS else COMMANDS:
        command = importlib.import_module(f"edge_cl.commands.{COMMANDS[name]}")
        command.add_parser(subparsers)
        added = subparsers.choices[name]
        added.set_defaults(module=command)
        for leaf in _leaves(added):
            _add_common_options(leaf)
    return parser


def _leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parser itself, or those of its subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [leaf for choice in action.choices.values() for leaf in _leaves(choice)]
    return [parser]


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes, unless the command has added it itself."""
    known = {option for action in parser._actions for option in action.option_strings}
    common = parser.add_argument_group("common options")
    if "--state" not in known:
        state = default_state(os.environ)
        common.add_argument(
            "--state", type=Path, default=state, metavar="DIR", help="state folder (default: %(default)s)"
        )
    if "--json" not in known:
        common.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    if "--verbose" not in known:
        common.add_argument("--verbose", action="store_true", help="say more on standard error")


def _run(arguments: Sequence[str] | None) -> int:
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        args = build_parser(words[0] if words else None).parse_args(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="edge-cl: %(message)s", force=True
    )
    try:
        result = args.module.run(args)
        _print(args.module, result, args.json)
    except BrokenPipeError:
        raise
    except EdgeError as error:
        return _complain(str(error), error.exit_status)
    except MemoryError:
        return _complain("out of memory: stop other programs, or use a smaller backbone", FAILED)
    except OSError as error:
        return _complain(f"{error}: look at the file and the storage it is on", FAILED)
    except Exception as error:
        return _fault(error, args.verbose)
    if result.get("interrupted"):
        return INTERRUPTED
    return FAILED if result.get("failed") else DONE


def _print(module: ModuleType, result: dict[str, Any], as_json: bool) -> None:
    show = getattr(module, "show", None)
    if as_json or show is None:
        text = json.dumps(result, indent=None if as_json else 2, allow_nan=False)
    else:
        text = show(result)
    if text:
        print(text)
    sys.stdout.flush()


def _fault(error: Exception, is_verbose: bool) -> int:
    """Report an error of the program itself, in one line; all of it with --verbose."""
    if is_verbose:
        logging.getLogger(__name__).exception("an error of the program")
    kind = type(error).__name__
    return _complain(f"an error of the program ({kind}: {error}); --verbose shows where, please report it", 1)


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"edge-cl: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
