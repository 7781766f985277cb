"""Writes a model card: what an exported file is, where it comes from, how it was made, what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Card(NamedTuple):
    """The facts of one export.

    Attributes:
        name: what a person calls the network.
        target, quantise: what it was made for, and how its numbers are kept.
        origin: of the network, plain values: data, teacher, recipe.
        data: the pictures that ranges and figures come from, in words.
        command: that made the file.
        files: {name: (sha256, bytes)} of everything beside the card.
        figures: {what was measured: value in words}.
        notes: whatever else must be known, a sentence each.
    """

    name: str
    target: str
    quantise: str
    origin: Mapping[str, Any]
    data: str
    command: str
    files: Mapping[str, tuple[str, int]]
    figures: Mapping[str, str]
    notes: Sequence[str] = ()


def to_markdown(card: Card) -> str:
    """Return the card as Markdown; equal facts give equal text."""
    lines = [f"# {card.name}, for {card.target} ({card.quantise})", ""]
    lines += ["## Where it comes from", "", *_listed(card.origin), f"- pictures: {_plain(card.data)}", ""]
    lines += ["## How it was made", "", f"    {card.command}", ""]
    lines += ["## What was measured", "", *_table(("figure", "value"), card.figures.items()), ""]
    files = [(name, str(size), digest) for name, (digest, size) in sorted(card.files.items())]
    lines += ["## Files", "", *_table(("file", "bytes", "sha256"), files)]
    if card.notes:
        lines += ["", "## To know", "", *(f"- {_plain(note)}" for note in card.notes)]
    return "\n".join(lines) + "\n"


def _listed(values: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Return nested facts as a Markdown list; what is empty is left out."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{'  ' * depth}- {_plain(key)}:", *_listed(value, depth + 1)]
        elif value not in (None, "", [], (), {}):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            lines.append(f"{'  ' * depth}- {_plain(key)}: {_plain(shown)}")
    return lines


def _table(head: Sequence[str], rows: Any) -> list[str]:
    cells = [tuple(_plain(cell) for cell in row) for row in rows]
    return [_row(head), "|" + " --- |" * len(head), *map(_row, cells)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(value: Any) -> str:
    """Return a value on one line that Markdown reads as it stands."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
