"""Decides what a release says of itself, under which name it is listed, and which one suits a board.

A release is a target of a TUF repository: opaque bytes at `<model>/<channel>/<name>`, listed by the role
`<model>-<channel>`, with these facts in its field `custom` (whole numbers and text: signed metadata are
canonical JSON, which has no fractions):

    {"bundle": 7, "hardware": ["any"], "runtime": {"from": "0.1.0", "below": "0.3.0"}}
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edge_cl.errors import ReleaseError

CHANNELS = ("canary", "beta", "stable")  # a release is promoted from each to the next
ANY = "any"  # the hardware class of a release that every board can run
ISSUED = "issued"  # field of the timestamp: when it was signed, as "2026-11-25T06:12:31Z"
ISSUED_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MAX_BUNDLE = (1 << 53) - 1  # beyond it, readers of JSON in other languages round
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MODEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
HARDWARE = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
RUNTIME = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")


class Facts(NamedTuple):
    """What a release says of itself.

    Attributes:
        bundle: its number; of two releases the higher one is the newer.
        hardware: classes of boards it runs on, such as ("edgetpu",) or ("any",).
        runtime_from: the oldest edge-cl that can run it, as in "0.1.0".
        runtime_below: the first edge-cl that cannot; "" while none is known.
    """

    bundle: int
    hardware: tuple[str, ...] = (ANY,)
    runtime_from: str = "0"
    runtime_below: str = ""


class Offer(NamedTuple):
    """A release that a channel lists: its path in the repository, length, SHA-256 (hex), and facts."""

    path: str
    size_bytes: int
    sha256: str
    facts: Facts


class Board(NamedTuple):
    """What a release must suit: the classes of this board's hardware, the best first, and its edge-cl."""

    hardware: tuple[str, ...]
    runtime: str


class Choice(NamedTuple):
    """The offer to take, None where there is none; and of each other the path and why it was left."""

    offer: Offer | None
    left: tuple[tuple[str, str], ...]


def role_of(model: str, channel: str) -> str:
    """Return the name of the role that lists a channel; ReleaseError when a name cannot be."""
    if not MODEL.fullmatch(model):
        raise ReleaseError(f"{model!r} names no model: use up to 60 of a-z, 0-9, `-` and `_`")
    if channel not in CHANNELS:
        raise ReleaseError(f"{channel!r} is no channel: choose {', '.join(CHANNELS)}")
    return f"{model}-{channel}"


def path_of(model: str, channel: str, name: str) -> str:
    """Return the path of a target in the repository; ReleaseError when a name cannot be."""
    role_of(model, channel)
    if not NAME.fullmatch(name):
        raise ReleaseError(f"{name!r} names no release: use up to 100 letters, digits, `.`, `-` and `_`")
    return f"{model}/{channel}/{name}"


def to_custom(facts: Facts) -> dict[str, Any]:
    """Return the facts as a target's field `custom`; ReleaseError when they make no sense."""
    runtime = {"from": facts.runtime_from}
    if facts.runtime_below:
        runtime["below"] = facts.runtime_below
    custom = {"bundle": facts.bundle, "hardware": list(facts.hardware), "runtime": runtime}
    read_facts(custom)
    return custom


def read_facts(custom: Any) -> Facts:
    """Return the facts of a target's field `custom`; fields not known here are left to newer readers.

    Raises:
        ReleaseError: something is missing, or is not what it should be.
    """
    if not isinstance(custom, Mapping):
        raise ReleaseError("the release says nothing of itself")
    runtime = custom.get("runtime")
    bounds = runtime if isinstance(runtime, Mapping) else {}
    facts = Facts(
        custom.get("bundle", 0),
        _classes(custom.get("hardware")),
        bounds.get("from", ""),
        bounds.get("below", ""),
    )
    _check(facts)
    return facts


def _classes(found: Any) -> tuple[str, ...]:
    is_list = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return tuple(found) if is_list else ()


def _check(facts: Facts) -> None:
    number = facts.bundle
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MAX_BUNDLE:
        raise ReleaseError(f"bundle number {number!r} is not a whole number from 1 to 2^53 - 1")
    if not facts.hardware or not all(HARDWARE.fullmatch(each) for each in facts.hardware):
        raise ReleaseError(
            f"hardware classes {list(facts.hardware)} are not words such as `{ANY}`, `edgetpu`"
        )
    for bound in (facts.runtime_from, facts.runtime_below or "0"):
        if not isinstance(bound, str) or not RUNTIME.fullmatch(bound):
            raise ReleaseError(f"runtime {bound!r} is not a version such as 0.1.0")
    if facts.runtime_below and _version(facts.runtime_below) <= _version(facts.runtime_from):
        raise ReleaseError(f"no runtime is from {facts.runtime_from} and below {facts.runtime_below}")


def misfit(facts: Facts, board: Board) -> str:
    """Return why a release does not suit a board, in one line; "" when it does."""
    if _rank(facts, board) is None:
        return f"is for {', '.join(facts.hardware)}, not for {', '.join(board.hardware) or 'this board'}"
    mine = _version(board.runtime)
    if mine < _version(facts.runtime_from):
        return f"needs edge-cl {facts.runtime_from} or newer, this is {board.runtime}"
    if facts.runtime_below and mine >= _version(facts.runtime_below):
        return f"needs an edge-cl below {facts.runtime_below}, this is {board.runtime}"
    return ""


def newest(offers: Iterable[Offer], board: Board, floor: int = 0) -> Choice:
    """Choose the highest bundle that suits a board and is not below `floor`, built for its best hardware."""
    fitting: list[tuple[int, int, str, Offer]] = []
    left: list[tuple[str, str]] = []
    for offer in offers:
        reason = misfit(offer.facts, board)
        if not reason and offer.facts.bundle < floor:
            reason = f"is bundle {offer.facts.bundle}, older than {floor} that was here already"
        if reason:
            left.append((offer.path, reason))
        else:
            fitting.append((offer.facts.bundle, -(_rank(offer.facts, board) or 0), offer.path, offer))
    fitting.sort(reverse=True)
    left += [(path, "a newer or better one suits") for _, _, path, _ in fitting[1:]]
    return Choice(fitting[0][3] if fitting else None, tuple(left))


def _rank(facts: Facts, board: Board) -> int | None:
    """Return the place of the best class both name, 0 the best; None where they share none."""
    wanted = (*board.hardware, ANY)
    return next((place for place, each in enumerate(wanted) if each in facts.hardware), None)


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version without zeros at its end: 0.1 is 0.1.0; 0.2.0.dev1 counts as 0.2."""
    found = RUNTIME.match(text)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
