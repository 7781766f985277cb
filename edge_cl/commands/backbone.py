"""`edge-cl backbone`: the frozen network that turns pictures into features."""

import argparse
from pathlib import Path
from typing import Any

from edge_cl.commands.terminal import add_engine_options, listed, megabytes, percent, printable
from edge_cl.config import POLICIES
from edge_cl.device import shipped


def add_parser(subparsers: Any) -> None:
    """Add the command and its subcommands to the command line."""
    parser = subparsers.add_parser("backbone", help="choose the network that looks at the pictures")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="take a TFLite file; a classifier is cut at its embedding")
    add.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a .tflite image model (int8, uint8 or float), or .onnx for TensorRT"
        " (default: the small one that ships)",
    )
    add_staging_options(add)
    add_engine_options(add)
    actions.add_parser("list", help="list the backbones in the state folder")
    actions.add_parser("show", help="show the backbone in use")


def add_staging_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how a backbone is taken; also used by `init`."""
    group = parser.add_argument_group("backbone")
    fit = "how pictures of another shape are made to fit (default: %(default)s)"
    group.add_argument("--policy", choices=POLICIES, default=POLICIES[0], help=fit)
    span = "what the network saw in training for pixels 0 and 255 (default: as the file says)"
    group.add_argument("--input-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=span)
    group.add_argument("--no-mirror", action="store_true", help="left and right differ in meaning")
    group.add_argument("--as-is", action="store_true", help="do not cut: the output is the feature")
    judged = "pictures of yours to judge the feature by"
    group.add_argument("--images", nargs="+", type=Path, default=[], metavar="FILE", help=judged)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Do what was asked and return it as plain values."""
    if args.action == "add":
        return add_backbone(args)
    return _list(args.state) if args.action == "list" else _show(args.state)


def add_backbone(args: argparse.Namespace) -> dict[str, Any]:
    """Stage the file of `backbone add`."""
    from edge_cl.device.staged import settings_of

    settings = settings_of(args.state).with_engine(
        threads=args.threads, isolate=args.isolate, delegate=args.delegate
    )
    return stage(args, shipped.named_or_shipped(args.file), settings.engine)


def stage(args: argparse.Namespace, file: Path, engine: Any) -> dict[str, Any]:
    """Stage a backbone with the options of `add_staging_options`."""
    from edge_cl.device.staging import StagingOptions, stage_backbone
    from edge_cl.vision.preprocess import Resize

    asked = tuple(args.input_range) if args.input_range else None
    as_is = args.as_is or file == shipped.find()  # it ends in its feature: cutting would need LiteRT's schema
    options = StagingOptions(Resize(args.policy), asked, not args.no_mirror, as_is, tuple(args.images))
    found = stage_backbone(args.state, file, options, engine)
    return {
        "action": "add",
        "bundle": found.bundle,
        "name": found.name,
        "space": found.space_id,
        "kernels": found.kernels,
        "zero_fraction": round(found.zero_fraction, 4),
        "judged_on": found.judged_on,
        "warnings": list(found.warnings),
        **_facts(found.manifest),
    }


def _list(state: Path) -> dict[str, Any]:
    from edge_cl.device.staged import bundles

    return {"action": "list", "backbones": [found._asdict() for found in bundles(state)]}


def _show(state: Path) -> dict[str, Any]:
    from edge_cl.device import install
    from edge_cl.device.staged import bundle_name, model_path, read_manifest
    from edge_cl.errors import EngineError
    from edge_cl.vision.extractor import inspect_model

    manifest, path = read_manifest(state), model_path(state)
    try:
        operators = inspect_model(path.read_bytes()).operators
    except EngineError:  # the schema is not installed on this board
        operators = {}
    return {
        "action": "show",
        "bundle": install.read_current(state).bundle,
        "name": bundle_name(state),
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "operators": operators,
        **_facts(manifest),
    }


def _facts(manifest: Any) -> dict[str, Any]:
    return {
        "sha256": manifest.sha256,
        "input_size": list(manifest.input_size),
        "input_range": list(manifest.input_range),
        "policy": manifest.resize.value,
        "mirror": manifest.mirror,
        "feature_size": manifest.feature_size,
        "feature_dtype": manifest.feature_dtype,
        "cut_from": manifest.cut_from,
    }


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    if result["action"] == "list":
        lines = [_line(found) for found in result["backbones"]]
        return "\n".join(lines) or "no backbone yet: `edge-cl backbone add FILE`"
    return "\n".join(describe(result))


def _line(found: dict[str, Any]) -> str:
    mark = "*" if found["in_use"] else " "
    return f"{mark} {found['bundle'][:12]}  {found['feature_size']:5d} values  {printable(found['name'])}"


def describe(result: dict[str, Any]) -> list[str]:
    """Return a few lines about one backbone."""
    height, width = result["input_size"]
    came = f", cut at {result['cut_from']}" if result["cut_from"] else ""
    lines = [
        f"backbone {printable(result['name'])}: {width} x {height} pixels ({result['policy']}) to"
        f" {result['feature_size']} values of {result['feature_dtype']}{printable(came)}"
    ]
    if "zero_fraction" in result:
        lines.append(f"{percent(result['zero_fraction'])} of them zero on {result['judged_on']}")
    if "size_bytes" in result:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(result["operators"].items()))
        lines.append(f"{megabytes(result['size_bytes'])}: {counted or 'operations not readable here'}")
    return lines + listed("warnings", result.get("warnings", []))
