"""`edge-cl init`: make a learner, and enrol it with a host."""

import argparse
from pathlib import Path
from typing import Any

from edge_cl.commands.backbone import add_staging_options, describe, stage
from edge_cl.commands.terminal import add_engine_options, fraction, printable, size_bytes, whole_number
from edge_cl.config import (
    MAX_VIEWS,
    SETTINGS,
    EngineSettings,
    Settings,
    Teaching,
    read_settings,
    write_settings,
)
from edge_cl.device import shipped
from edge_cl.errors import ConfigError

MAX_SEED = 2**63 - 1
MAX_STEPS = 100_000  # SGD steps of one consolidation; a minute on a small board


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("init", help="make a learner (a state folder)")
    parser.add_argument(
        "--backbone",
        type=Path,
        metavar="FILE",
        help="a .tflite or .onnx image model (default: the small one that ships)",
    )
    group = parser.add_argument_group("learner (fixed for its life)")
    group.add_argument("--views", type=whole_number(1, MAX_VIEWS), metavar="N",
                       help="views kept of a picture (default: 4)")  # fmt: skip
    group.add_argument("--buffer-bytes", type=size_bytes, metavar="SIZE",
                       help="memory for rehearsal, such as 4M (default: 4M)")  # fmt: skip
    group.add_argument("--density", type=fraction, metavar="RATIO",
                       help="share of the trained weights that live (default: 0.1)")  # fmt: skip
    group.add_argument("--lam", type=float, metavar="RATIO",
                       help="chance that a place in a batch is an old sample (default: 0.5)")  # fmt: skip
    group.add_argument("--steps-per-update", type=whole_number(0, MAX_STEPS), metavar="N",
                       help="SGD steps of a consolidation (default: 64)")  # fmt: skip
    group.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), metavar="N", help="of all randomness (default: 0)"
    )
    group.add_argument("--no-residual", action="store_true", help="keep to the analytic base alone")
    group.add_argument("--no-audit", action="store_true", help="believe every label")
    parser.add_argument(
        "--keep-jpeg", action="store_true", help="keep the pictures too, not only their features"
    )
    add_staging_options(parser)
    add_engine_options(parser)
    host = parser.add_argument_group("host (also of a learner that is here already)")
    host.add_argument("--host", metavar="URL", help="enrol with the host at this address")
    host.add_argument("--code", metavar="CODE", help="the one-time code that `host-trainer enroll` printed")
    host.add_argument(
        "--name", default="", metavar="NAME", help="name of this device there, if the code has none"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make the state folder, enrol it where asked, and return what is in it."""
    if (args.host is None) != (args.code is None) or (args.name and args.host is None):
        raise ConfigError(
            "--host and --code go together: the code is what `host-trainer enroll` printed there"
        )
    is_there = args.host is not None and read_settings(args.state) is not None
    if is_there:
        _refuse_options(args)
    if args.host is not None:
        _check_enrolment(args)  # a slip there should not leave half of what was asked for
    made = {"state": str(args.state), "is_new": not is_there} | ({} if is_there else _made(args))
    return {**made, "enrolment": None if args.host is None else _enrolled(args)}


def _refuse_options(args: argparse.Namespace) -> None:
    """Refuse options that make a learner where there is one: they would be ignored."""
    names = ("backbone", "views", "buffer_bytes", "density", "lam", "steps_per_update", "seed")
    given = [name for name in names if getattr(args, name) is not None]
    given += [name for name in ("keep_jpeg", "no_residual", "no_audit") if getattr(args, name)]
    if given:
        raise ConfigError(
            f"{args.state} holds a learner already: enrol it without --{given[0].replace('_', '-')},"
            " or choose another --state"
        )


def _check_enrolment(args: argparse.Namespace) -> None:
    from edge_cl.device.sync.enrolment import checked

    checked(args.host, args.code, args.name)


def _enrolled(args: argparse.Namespace) -> dict[str, Any]:
    from edge_cl.device.staged import settings_of
    from edge_cl.device.sync.enrolment import enrol
    from edge_cl.device.sync.syncing import hardware

    settings = settings_of(args.state)
    found = enrol(args.state, args.host, args.code, hardware(settings.engine.delegate), args.name)
    return {
        "host": found.url,
        "device": found.device,
        "model": found.model,
        "channel": found.channel,
        "most": found.level,
        "level": settings.sync.level,
    }


def _made(args: argparse.Namespace) -> dict[str, Any]:
    """Make the learner; the settings come last and make it valid."""
    from edge_cl.device.staged import learner_config

    _refuse_taught(args.state)
    settings = Settings(
        _learner(args),
        Teaching(mirror=not args.no_mirror, keep_jpeg=args.keep_jpeg),
        EngineSettings(args.threads or 1, bool(args.isolate), args.delegate or ""),
    )
    learner_config(settings)
    file = args.backbone or shipped.find()
    backbone = stage(args, file, settings.engine) if file else None
    write_settings(args.state, settings)
    return {
        "settings": str(args.state / SETTINGS),
        "backbone": backbone,
        "is_shipped": file is not None and args.backbone is None,
    }


def _refuse_taught(state: Path) -> None:
    from edge_cl.device.opening import has_log

    if has_log(state):
        raise ConfigError(
            f"{state} holds a learner that was taught: see `edge-cl status`, or choose another --state"
        )
    if state.is_dir() and read_settings(state) is None and any(state.iterdir()) and not _is_ours(state):
        raise ConfigError(f"{state} is not empty and holds no learner: choose another --state")


def _is_ours(state: Path) -> bool:
    """Tell whether all that lies there is from an `init` that did not finish."""
    known = {"bundles", "checkpoints", "current.json", "engines", "lock", "sync", "tuf"}
    return all(path.name in known or path.name.startswith(".part-") for path in state.iterdir())


def _learner(args: argparse.Namespace) -> dict[str, Any]:
    """Return the whole configuration of the learner: later versions may have other defaults."""
    from edge_cl.learning.learner import LearnerConfig

    values = LearnerConfig().to_dict()
    for name in ("views", "buffer_bytes", "lam", "steps_per_update", "seed"):
        asked = getattr(args, name)
        if asked is not None:
            values[name] = asked
    if args.density is not None:
        values["network"] = {**values["network"], "density": args.density}
    if not 0 <= values["lam"] <= 1:
        raise ConfigError(f"--lam is a chance: give 0 to 1, not {values['lam']}")
    return {**values, "residual": not args.no_residual, "audit": not args.no_audit}


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    return "\n".join([*(_new(result) if result["is_new"] else []), *_host(result)])


def _new(result: dict[str, Any]) -> list[str]:
    lines = [f"a new learner lives in {printable(result['state'])}"]
    if result["backbone"] is None:
        return [*lines, "next: `edge-cl backbone add FILE` with a .tflite image model"]
    lines += describe(result["backbone"])
    if result["is_shipped"]:
        lines.append("it ships with edge-cl; `edge-cl init --backbone FILE` takes another")
    return [*lines, "next: `edge-cl learn PHOTOS/`"]


def _host(result: dict[str, Any]) -> list[str]:
    found = result["enrolment"]
    if found is None:
        return []
    level = found["level"]
    told = f"up to {level}, as [sync] in config.toml says" if level != "never" else "nothing, as [sync] says"
    return [
        f"enrolled with {printable(found['host'])} as {found['device']},"
        f" for bundles of {found['model']} ({found['channel']})",
        f"it is told {told}, and never more than {found['most']}",
        "next: `edge-cl sync --dry-run` shows what would leave, `edge-cl sync` tells it",
    ]
