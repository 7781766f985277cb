"""`edge-cl learn`: teach pictures with labels."""

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cl.commands.terminal import (
    Progress,
    StopFlag,
    add_engine_options,
    listed,
    percent,
    printable,
    whole_number,
)
from edge_cl.config import MAX_VIEWS
from edge_cl.errors import ConfigError, InputError
from edge_cl.resident import peak_resident_bytes

if TYPE_CHECKING:
    from edge_cl.device.agent import Agent
    from edge_cl.device.folders import Offer, Picture
    from edge_cl.device.teaching import Taught

MAX_STEPS = 100_000  # SGD steps of one consolidation; a minute on a small board

logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "learn",
        help="teach pictures with labels",
        description="Teach a folder of classes (DIR/CLASS/*), some files of one class, or a list in CSV."
        " May be stopped or killed at any moment: run it again and it carries on.",
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="DIR|FILE", help="image folder, or files with --label"
    )
    parser.add_argument("--label", metavar="CLASS", help="what the files show")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a CSV file with the columns path and label")
    parser.add_argument(
        "--views", type=whole_number(1, MAX_VIEWS), metavar="N", help="views made of a picture"
    )
    parser.add_argument("--no-mirror", action="store_true", help="left and right differ in meaning")
    parser.add_argument("--steps-per-update", type=whole_number(0, MAX_STEPS), metavar="N",
                        help="SGD steps after each 64 pictures")  # fmt: skip
    add_engine_options(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Teach, and return what came of it."""
    start = time.perf_counter()
    offer = _offer(args)
    from edge_cl.device.opening import open_agent

    with (
        StopFlag() as stop,
        open_agent(
            args.state, with_backbone=True, threads=args.threads, isolate=args.isolate, delegate=args.delegate
        ) as agent,
    ):
        _log_notes(agent)
        with Progress(len(offer.pictures)) as progress:
            taught = agent.teach(
                offer.pictures,
                views=args.views,
                mirror=False if args.no_mirror else None,
                steps=args.steps_per_update,
                overrule=args.label is not None,
                should_stop=stop,
                watch=_Watch(progress),
            )
        agent.save()
        result = _result(agent, taught, offer)
    result["timings"] = agent.timings.to_dict(1000 * (time.perf_counter() - start))
    result["peak_rss_bytes"] = peak_resident_bytes()
    _refuse_nothing(taught, result)
    return result


def _offer(args: argparse.Namespace) -> "Offer":
    from edge_cl.device import folders

    if args.csv is not None and (args.paths or args.label is not None):
        raise ConfigError("--csv names pictures and labels itself: give no files and no --label with it")
    if args.csv is not None:
        offer = folders.from_csv(args.csv)
    elif args.label is not None:
        offer = folders.from_files(args.label, args.paths)
    elif len(args.paths) == 1:
        offer = folders.from_folder(args.paths[0])
    else:
        raise ConfigError("give one image folder, or files with --label, or --csv FILE")
    if not offer.pictures:
        first = f" ({offer.refused[0].name}: {offer.refused[0].reason})" if offer.refused else ""
        raise ConfigError(f"there are no pictures to learn{first}")
    return offer


class _Watch:
    """Shows progress after each picture, and logs each class as it is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done, self._label = progress, 0, ""

    def __call__(self, taught: "Taught", picture: "Picture") -> None:
        self._done += 1
        accuracy = percent(taught.accuracy_before_learning)
        self._progress.show(self._done, f"{picture.label}; right before being told: {accuracy}")
        if picture.label != self._label:
            logger.info("teaching %s; right before being told so far: %s", printable(picture.label), accuracy)
            self._label = picture.label


def _result(agent: "Agent", taught: "Taught", offer: "Offer") -> dict[str, Any]:
    refused = [*offer.refused, *taught.refused]
    return {
        "learned": sum(taught.learned.values()),
        "per_class": dict(taught.learned),
        "skipped": taught.skipped,
        "relabelled": [{"file": path, "was": was, "label": label} for path, was, label in taught.relabelled],
        "refused": [{"file": name, "reason": reason} for name, reason in refused],
        "accuracy_before_learning": taught.accuracy_before_learning,
        "classes": len(agent.learner.labels),
        "steps": taught.steps,
        "density": agent.learner.density(),
        "flash_bytes_written": agent.store.written_bytes(),
        "notes": agent.notes,
        "interrupted": taught.was_stopped,
    }


def _log_notes(agent: "Agent") -> None:
    for note in agent.notes:
        logger.warning("%s", note)


def _refuse_nothing(taught: "Taught", result: dict[str, Any]) -> None:
    """Fail when there was work and none of it could be done."""
    done = result["learned"] + taught.skipped + len(taught.relabelled)
    if done or taught.was_stopped or not result["refused"]:
        return
    first = result["refused"][0]
    count = len(result["refused"])
    raise InputError(
        f"none of {count} pictures could be learned; the first: {first['file']}: {first['reason']}"
    )


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    lines = [f"learned {result['learned']} pictures; {result['classes']} classes are known"]
    lines += [f"  {printable(label)}: {count}" for label, count in result["per_class"].items()]
    if result["accuracy_before_learning"] is not None:
        lines.append(f"right before being told: {percent(result['accuracy_before_learning'])}")
    if result["skipped"]:
        lines.append(f"{result['skipped']} were known already")
    relabelled = (f"{found['file']}: {found['was']} -> {found['label']}" for found in result["relabelled"])
    lines += listed("relabelled", relabelled)
    lines += listed("not learned", (f"{found['file']}: {found['reason']}" for found in result["refused"]))
    if result["interrupted"]:
        lines.append("stopped; everything acknowledged is kept, run it again to carry on")
    return "\n".join(lines)
