"""Writes docs/commands.md and docs/workshop.md from the parsers of `edge-cl` and `host-trainer`.

So the pages say what the programs do; tests/test_docs.py fails while one is old.

python docs/commands.py
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge_cl.cli import build_parser
from edge_cl.config import default_state

PAGE = Path(__file__).with_suffix(".md")
WORKSHOP = PAGE.with_name("workshop.md")
WIDTH = 100  # characters of a line of help
HEAD = """\
# Commands

<!-- Written by `make docs` from the program itself; do not edit. -->

Every command takes `--json` and then prints exactly one JSON object on standard output; progress and log
lines go to standard error. Exit status 0: done. 2: bad usage or bad input, with one line that says what and
how to mend it. 1: anything else. 130: stopped by Ctrl-C; what was acknowledged is kept.
"""

WORKSHOP_HEAD = """\
# Commands of the workshop

<!-- Written by `make docs` from the program itself; do not edit. -->

`host-trainer` runs on a PC, not on the device; `pip install 'edge-cl[host]'` brings what it needs, TensorFlow
included. Set `KERAS_BACKEND=jax` to train on JAX instead, on a GPU for example; exporting needs TensorFlow.
Every command takes `--json` and then prints exactly one JSON object on standard output. Exit status 0: done.
1: a check that was asked for failed (parity under its gate, a file that the Edge TPU does not take whole). 2:
bad usage or bad input, with one line that says what and how to mend it. 130: stopped by Ctrl-C; the same
command goes on.
"""


class Command(NamedTuple):
    """A command's parser, and the line that the list of commands says about it."""

    parser: argparse.ArgumentParser
    help: str


def commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield all commands, each before those inside it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for shown in action._choices_actions:
                inner = action.choices[shown.dest]
                yield Command(inner, shown.help or "")
                yield from commands(inner)


def page(parser: argparse.ArgumentParser) -> str:
    """Return the whole page as Markdown."""
    return "\n".join([HEAD, *(_section(command) for command in commands(parser))])


def workshop_page() -> str:
    """Return the workshop's page as Markdown: the help of each command, as the program prints it."""
    group = workshop()
    parts = [WORKSHOP_HEAD]
    for name, command in group.commands.items():
        with command.make_context(f"host-trainer {name}", [], resilient_parsing=True) as context:
            context.terminal_width = WIDTH
            parts.append(f"## `host-trainer {name}`\n\n```\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


def workshop() -> Any:
    """Return the group of the workshop's commands, as its command line sees them."""
    from typer.main import get_command

    from host_trainer.commands import app

    return get_command(app)


def _section(command: Command) -> str:
    parser = command.parser
    words = f"{command.help[:1].upper()}{command.help[1:]}. {parser.description or ''}"
    rows = [_row(parser, action) for action in parser._actions if is_shown(action)]
    lines = [f"## `{parser.prog}`", "", _plain(words).strip(), ""]
    if rows:
        lines += ["| | |", "| --- | --- |", *rows, ""]
    if parser.epilog:
        lines += ["```", _plain(parser.epilog).strip("\n"), "```", ""]
    return "\n".join(lines)


def is_shown(action: argparse.Action) -> bool:
    """Tell whether an argument is for people: not `--help`, and not hidden from it."""
    hidden = isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS
    return not hidden and not isinstance(action, argparse._SubParsersAction)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"| `{_call(action)}` | {_cell(_plain(meaning))} |"


def _call(action: argparse.Action) -> str:
    """Return how an argument is written, such as `--label NAME` or `[FILE ...]`."""
    word = "" if action.nargs == 0 else _word(action).replace("|", "\\|")
    words = {"*": f"[{word} ...]", "+": f"{word} ...", "?": f"[{word}]"}.get(str(action.nargs), word)
    return " ".join([", ".join(action.option_strings), words]).strip()


def _word(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar:
        return action.metavar
    if action.choices:
        return "|".join(str(choice) for choice in action.choices)
    return action.dest.upper()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return the text without what is true of this person's machine only."""
    cache = os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache"
    for here, anywhere in (
        (str(default_state(os.environ)), "~/.local/state/edge-cl"),
        (f"{cache}/", "~/.cache/"),
        (f"{Path.home()}/", "~/"),
    ):
        text = text.replace(here, anywhere)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(build_parser()), encoding="utf-8")
    WORKSHOP.write_text(workshop_page(), encoding="utf-8")
