"""`edge-cl status`: what the learner knows, and what it is unsure of."""

import argparse
import contextlib
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cl.commands.terminal import listed, megabytes, percent, printable

if TYPE_CHECKING:
    from edge_cl.device.agent import Agent

LABEL_WIDTH = 28  # characters of a class name in the table
logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    subparsers.add_parser("status", help="see what it knows, and what it is unsure of")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read the state folder; works beside another process that learns, and on read-only storage."""
    from edge_cl.device.opening import has_log, open_agent
    from edge_cl.device.staged import bundle_name, settings_of

    settings_of(args.state)
    if not has_log(args.state):
        return _nothing_taught(args)
    with open_agent(args.state, read_only=True) as agent:
        for note in agent.notes:
            logger.warning("%s", note)
        facts = _facts(agent)
        return {
            "state": str(args.state),
            "backbone": bundle_name(args.state),
            "release": _release(args.state),
            "host": _host(args.state),
            **facts,
        }


def _nothing_taught(args: argparse.Namespace) -> dict[str, Any]:
    from edge_cl.device.install import read_current
    from edge_cl.device.staged import bundle_name

    has_backbone = read_current(args.state).bundle is not None
    return {
        "state": str(args.state),
        "backbone": bundle_name(args.state) if has_backbone else None,
        "release": _release(args.state),
        "host": _host(args.state),
        "classes": [],
        "samples": 0,
    }


def _host(state: Path) -> dict[str, Any] | None:
    """Return which host this device is enrolled with, and when it last heard of it; None: with none."""
    from edge_cl.device.sync.outbox import read_outbox
    from edge_cl.errors import StoreError

    with contextlib.suppress(StoreError), read_outbox(state) as outbox:  # read-only storage
        enrolment = None if outbox is None else outbox.enrolment()
        if outbox is not None and enrolment is not None:
            standing = outbox.standing()
            return {
                "url": enrolment.url,
                "device": enrolment.device,
                "round": standing.round,
                "synced_at": standing.synced_at or None,
                "failed_since": standing.attempt,
                "blocked": standing.blocked or None,
            }
    return None


def _release(state: Path) -> dict[str, Any] | None:
    """Return what came from the host: what runs, what is or was tried, and why it was undone."""
    from edge_cl.device.installation import probation, records, released
    from edge_cl.device.installation.states import PROBATION
    from edge_cl.errors import StoreError

    record, running = records.read(state), released.running(state)
    if running is None and not record.bundle:
        return None
    answers = None
    if record.state == PROBATION:
        with contextlib.suppress(StoreError):  # read-only storage
            answers = probation.Watch(state, record.staged).tally().predictions
    return {
        "bundle": running.manifest.bundle if running else 0,
        "installation": record.state,
        "tried": record.bundle,
        "reason": record.reason or None,
        "failures": record.failures,
        "answers_on_probation": answers,
        "retaught": {label: dict(counts) for label, counts in record.retaught.items()},
        "measured": dict(record.facts),
    }


def _facts(agent: "Agent") -> dict[str, Any]:
    report = agent.report()
    sizes = agent.sizes()
    sources = {shown.sample: shown.source for shown in agent.samples()}
    return {
        "samples": len(sources),
        "classes": [found._asdict() for found in report.classes],
        "accuracy_leave_one_out": report.accuracy_leave_one_out,
        "accuracy_before_learning": report.accuracy_before_learning,
        "confusions": [
            {"taught": taught, "answered": answered, "count": count}
            for taught, answered, count in report.confusions
        ],
        "suspects": [
            {**found._asdict(), "file": sources.get(found.sample, "")} for found in agent.learner.suspects()
        ],
        "density": agent.learner.density(),
        "state_bytes": agent.learner.state_bytes(),
        "sizes": sizes._asdict(),
        "flash_bytes_written": sizes.written_bytes_total,
        "notes": agent.notes,
    }


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    head = f"{printable(result['state'])}: {result['samples']} pictures of {len(result['classes'])} classes"
    if not result["samples"]:
        is_ready = result["backbone"] is not None
        head = "\n".join([head, *_lines(result)])
        return f"{head}\nnext: " + ("`edge-cl learn PHOTOS/`" if is_ready else "`edge-cl backbone add FILE`")
    lines = [head, f"backbone: {printable(result['backbone'])}", *_lines(result)]
    lines += ["", *_table(result["classes"]), ""]
    held_out, before = result["accuracy_leave_one_out"], result["accuracy_before_learning"]
    lines.append(f"estimated accuracy: {percent(held_out)} held out, {percent(before)} before being told")
    confusions = (
        f"{c['taught']} taken for {c['answered']}: {c['count']} times" for c in result["confusions"]
    )
    lines += listed("confusions that hurt most", confusions)
    suspects = (
        f"{s['sample']} {s['file']}: taught {s['label']}, looks like {s['suggestion']}"
        for s in result["suspects"]
    )
    lines += listed("labels to look at, by sample (`edge-cl relabel SAMPLE LABEL`)", suspects)
    return "\n".join([*lines, _sizes(result)])


def _lines(result: dict[str, Any]) -> list[str]:
    """Say what has to do with a host."""
    return [*_enrolled(result["host"]), *_installation(result["release"])]


def _enrolled(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    when = "never synced" if found["synced_at"] is None else f"last synced {_date(found['synced_at'])}"
    failed = f", {found['failed_since']} rounds failed since" if found["failed_since"] else ""
    lines = [f"host: {printable(found['url'])} as {found['device']}, {when}{failed}"]
    return lines if found["blocked"] is None else [*lines, printable(found["blocked"])]


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _installation(found: dict[str, Any] | None) -> list[str]:
    """Say what runs of the host's, how the last installation went, and what was taught again from what."""
    if found is None:
        return []
    tried, at = found["tried"], found["installation"]
    runs = f"bundle {found['bundle']} of the host" if found["bundle"] else "nothing of the host yet"
    if at == "probation":
        answered = (
            "" if found["answers_on_probation"] is None else f", {found['answers_on_probation']} answers"
        )
        runs += f", on probation{answered}"
    lines = [f"release: {runs}"]
    if at == "rollback":
        lines.append(f"bundle {tried} was undone (failure {found['failures']}): {printable(found['reason'])}")
    elif at not in ("idle", "commit", "probation"):
        lines.append(f"bundle {tried} is being installed: {at}")
    if at in ("probation", "commit"):
        again = (_retaught(label, counts) for label, counts in found["retaught"].items())
        lines += listed("taught again for the new backbone", again)
    return lines


def _retaught(label: str, counts: dict[str, int]) -> str:
    parts = [f"{counts['pictures']} kept pictures"] if counts["pictures"] else []
    if counts["without"]:
        stand_in = f"{counts['exemplars']} exemplars" if counts["exemplars"] else "the release's head"
        parts.append(f"{stand_in} in place of {counts['without']} without a picture")
    return f"{label}: from {', '.join(parts)}"


def _table(classes: list[dict[str, Any]]) -> list[str]:
    rows = [f"{'class':{LABEL_WIDTH}} {'taught':>6} {'kept':>5} {'held out':>9} {'before':>8}  enough?"]
    for found in classes:
        name = printable(found["label"])
        short = name if len(name) <= LABEL_WIDTH else name[: LABEL_WIDTH - 1] + "…"
        rows.append(
            f"{short:{LABEL_WIDTH}} {found['taught']:6d} {found['buffered']:5d}"
            f" {percent(found['leave_one_out']):>9} {percent(found['before_learning']):>8}"
            f"  {printable(found['advice'])}"
        )
    return rows


def _sizes(result: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {megabytes(size)}" for name, size in result["state_bytes"].items())
    database = megabytes(result["sizes"]["database_bytes"])
    written = megabytes(result["flash_bytes_written"])
    return f"memory: {parts}; database {database}; written to flash so far: {written}"
