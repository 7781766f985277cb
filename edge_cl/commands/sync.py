"""`edge-cl sync`: tell the host what was taught here, as far as that may leave, and take what it offers."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from edge_cl.commands.terminal import StopFlag, listed, printable
from edge_cl.errors import EdgeError, InputError

if TYPE_CHECKING:
    from edge_cl.device.sync.syncing import Synced
    from edge_cl.device.sync.triggers import Look

POLL_S = 2.0  # how long a button waits at most
PAUSE_S = 10.0  # after a round that failed
LOOK_S = 60  # between two looks at the learner, which costs seconds on a small board
logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "sync",
        help="tell the host what was taught here, and take what it offers",
        description="[sync] in config.toml says what may leave; nothing does before this device was enrolled"
        " by `edge-cl init --host URL --code CODE`.",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show exactly what would leave, and open no connection"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="stay, and sync when it is due: after a time, after new samples, when the accuracy falls, and at"
        " once on SIGUSR1 or when somebody makes the file `sync-now` in the state folder",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Sync, once or for as long as nobody stops it, or only say what would leave."""
    if args.dry_run:
        return _dry_run(args.state)
    return _watch(args) if args.watch else _once(args.state)


# -- once ------------------------------------------------------------------------------------------------


def _once(state: Path) -> dict[str, Any]:
    return {"action": "sync", **_facts(_synced(state))}


def _synced(state: Path) -> "Synced":
    from edge_cl.device.sync.syncing import sync

    found = sync(state, datetime.now(timezone.utc))
    for note in found.notes:
        logger.warning("%s", note)
    return found


def _facts(found: "Synced") -> dict[str, Any]:
    contents = found.sent.contents
    return {
        "round": found.round,
        "sent": [{"level": each.level, "size_bytes": each.size, "id": each.id} for each in contents],
        "waiting": found.sent.waiting,
        "up_bytes": found.traffic.up,
        "down_bytes": found.traffic.down,
        "bundle_offered": found.offered or None,
        "bundle_fetched": found.fetched,
        "installation": found.installed or None,
        "classes_followed": found.followed,
        "wait_s": found.wait_s,
        "notes": list(found.notes),
    }


# -- what would leave ------------------------------------------------------------------------------------


def _dry_run(state: Path) -> dict[str, Any]:
    from edge_cl.device.opening import has_log, open_agent
    from edge_cl.device.staged import settings_of
    from edge_cl.device.sync.knowledge import knowledge
    from edge_cl.device.sync.outbox import read_outbox
    from edge_cl.device.sync.preview import nothing, preview
    from edge_cl.device.sync.syncing import loaded

    settings = settings_of(state).sync
    with read_outbox(state) as outbox:
        enrolment = None if outbox is None else outbox.enrolment()
        facts = {"action": "dry-run", "host": enrolment and enrolment.url, "minimum": settings.minimum}
        if not has_log(state):
            return {**facts, **nothing(settings.level)}
        with open_agent(state, read_only=True) as agent:
            known = knowledge(agent)
            return {**facts, **preview(loaded(outbox, known, settings, settings.most_bytes), known)}


# -- for as long as nobody stops it ----------------------------------------------------------------------


class _Button:
    """SIGUSR1 as a question."""

    def __init__(self) -> None:
        self._is_pressed, self._before = False, signal.signal(signal.SIGUSR1, self._press)

    def taken(self) -> bool:
        """Tell whether it was pressed since this was asked last."""
        was, self._is_pressed = self._is_pressed, False
        return was

    def give_back(self) -> None:
        """Let the signal mean what it did before."""
        signal.signal(signal.SIGUSR1, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._is_pressed = True


def _watch(args: argparse.Namespace) -> dict[str, Any]:
    from edge_cl.device.sync.outbox import open_outbox
    from edge_cl.device.sync.syncing import enrolled

    with open_outbox(args.state) as outbox:
        enrolled(outbox)  # who is not, hears it at once
    rounds = failed = 0
    button = _Button()
    try:
        with StopFlag() as should_stop:
            for reason in _reasons(args.state, button, should_stop):
                try:
                    _say(f"{reason}: {_words(_facts(_synced(args.state)))}")
                    rounds += 1
                except InputError:
                    raise  # a person must act
                except EdgeError as error:
                    failed += 1
                    _say(f"{reason}: {error}")
                    _sleep(PAUSE_S, should_stop)  # where the storage refused, nobody noted when to go on
    finally:
        button.give_back()
    return {"action": "watch", "rounds": rounds, "failed_rounds": failed, "interrupted": True}


def _reasons(state: Path, button: _Button, should_stop: StopFlag) -> Iterator[str]:
    """Yield why a round is due, whenever one is."""
    from edge_cl.device.staged import settings_of
    from edge_cl.device.sync.outbox import read_outbox, take_button
    from edge_cl.device.sync.triggers import Look, reason

    look, looked_at, seen = Look(), 0.0, None
    while not should_stop():
        now = time.time()
        if abs(now - looked_at) >= LOOK_S and (changed := _changed(state)) != seen:
            look, looked_at, seen = _look(state, look), now, changed
        with read_outbox(state) as outbox:
            if outbox is None:
                return
            standing = outbox.standing()
        is_pressed = button.taken() or take_button(state)
        found = reason(settings_of(state).sync, standing, look, int(now), is_pressed)
        if found:
            yield found
        _sleep(POLL_S, should_stop)


def _sleep(seconds: float, should_stop: StopFlag) -> None:
    end = time.monotonic() + seconds
    while not should_stop() and time.monotonic() < end:
        time.sleep(min(POLL_S, seconds))


def _changed(state: Path) -> tuple[int, ...]:
    """Return what differs once the learner was taught more."""
    from edge_cl.memory.store import DATABASE

    paths = [state / f"{DATABASE}{suffix}" for suffix in ("", "-wal")]
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


def _look(state: Path, before: "Look") -> "Look":
    from edge_cl.device.opening import has_log, open_agent
    from edge_cl.device.sync.knowledge import progress
    from edge_cl.device.sync.triggers import Look

    if not has_log(state):
        return before
    try:
        with open_agent(state, read_only=True) as agent:
            return Look(*progress(agent))
    except EdgeError as error:  # it is looked at again
        logger.info("%s", error)
        return before


def _say(line: str) -> None:
    print(f"edge-cl: {printable(line)}", file=sys.stderr, flush=True)


# -- words -----------------------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    if result["action"] == "sync":
        return _words(result)
    if result["action"] == "watch":
        return f"{result['rounds']} rounds, {result['failed_rounds']} that failed"
    return "\n".join(_preview(result))


def _words(found: dict[str, Any]) -> str:
    counts = dict.fromkeys(("statistics", "features", "images"), 0)
    for each in found["sent"]:
        counts[each["level"]] += 1
    told = ", ".join(f"{count} of {level}" for level, count in counts.items() if count)
    parts = [f"round {found['round']}: told {told or 'nothing new'}"]
    parts.append(f"{found['up_bytes']} bytes up, {found['down_bytes']} down")
    if found["waiting"]:
        parts.append(f"{found['waiting']} samples wait for the next")
    if found["classes_followed"]:
        parts.append(f"{found['classes_followed']} changes of class names followed")
    if found["bundle_offered"]:
        fetched = "fetched" if found["bundle_fetched"] else "offered"
        parts.append(f"bundle {found['bundle_offered']} {fetched}")
    if found["installation"] not in (None, "idle", "commit"):
        parts.append(f"installation: {found['installation']}")
    return "; ".join(parts)


def _preview(result: dict[str, Any]) -> list[str]:
    from edge_cl.device.sync.preview import words

    host = result["host"] or "a host, once this device is enrolled with one"
    if not result["contents"] and not result["classes"]:
        return [f"nothing was taught here yet: nothing would go to {printable(host)}"]
    lines = [f"this would go to {printable(host)}: {result['size_bytes']} bytes before packing"]
    lines += listed("by class", words(result))
    if result["spread_bytes"]:
        lines.append(
            f"spread, pooled over the classes told: {result['spread_bytes']} bytes; with the statistics"
            f" {result['packed_statistics_bytes']} bytes as sent"
        )
    if result["withdrawn_samples"]:
        lines.append(f"{len(result['withdrawn_samples'])} samples told before are to be destroyed there")
    lines += [
        f"{each['samples']} samples' {each['level']} wait for a later round" for each in result["waiting"]
    ]
    lines.append(
        f"besides: this device's name, how many samples and suspects, its accuracy; a class of fewer than"
        f" {result['minimum']} samples stays here at level `statistics`"
    )
    return lines
