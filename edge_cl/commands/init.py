"""`edge-cl init`: make a learner."""

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


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make the state folder and return what is in it; the settings come last and make it valid."""
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
        "state": str(args.state),
        "settings": str(args.state / SETTINGS),
        "backbone": backbone,
        "is_shipped": file is not None and args.backbone is None,
    }


def _refuse_taught(state: Path) -> None:
    from edge_cl.device.agent import has_log

    if has_log(state):
        raise ConfigError(
            f"{state} holds a learner that was taught: see `edge-cl status`, or choose another --state"
        )
    if state.is_dir() and read_settings(state) is None and any(state.iterdir()) and not _is_ours(state):
        raise ConfigError(f"{state} is not empty and holds no learner: choose another --state")


def _is_ours(state: Path) -> bool:
    """Tell whether all that lies there is from an `init` that did not finish."""
    known = {"bundles", "checkpoints", "current.json", "engines", "lock"}
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
    lines = [f"a new learner lives in {printable(result['state'])}"]
    if result["backbone"] is None:
        return "\n".join([*lines, "next: `edge-cl backbone add FILE` with a .tflite image model"])
    lines += describe(result["backbone"])
    if result["is_shipped"]:
        lines.append("it ships with edge-cl; `edge-cl init --backbone FILE` takes another")
    return "\n".join([*lines, "next: `edge-cl learn PHOTOS/`"])
