"""Reads what `edge-cl init` put into a state folder: its settings, and the backbone in use."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edge_cl.config import Settings, read_settings
from edge_cl.device import install
from edge_cl.errors import ConfigError, MismatchError, ModelError, StoreDamagedError
from edge_cl.learning.learner import LearnerConfig
from edge_cl.vision.backbone import Backbone, Manifest, open_backbone

BUNDLE_FACTS = "bundle.json"
BUNDLE_FORMAT = 1
MODEL, MODEL_EDGETPU, MODEL_ONNX = "backbone.tflite", "backbone_edgetpu.tflite", "backbone.onnx"
ENGINES = "engines"  # of the state folder: what TensorRT built here; of no use elsewhere, so in no backup


class BundleInfo(NamedTuple):
    """A bundle in a state folder: its hash, the file it came from, D, and whether it is in use."""

    bundle: str
    name: str
    feature_size: int
    in_use: bool


def settings_of(folder: Path) -> Settings:
    """Return the settings of a state folder.

    Raises:
        ConfigError: it has none, or they make no sense.
    """
    settings = read_settings(folder)
    if settings is None:
        raise ConfigError(f"{folder} holds no learner: run `edge-cl init` first, or choose another --state")
    return settings


def learner_config(settings: Settings) -> LearnerConfig:
    """Return the learner's configuration, checked value by value against the defaults' types.

    Raises:
        ConfigError: an unknown name, or a value of another type.
    """
    defaults = LearnerConfig().to_dict()
    _check_types(settings.learner, defaults, "learner")
    return LearnerConfig.from_dict(settings.learner)


def read_manifest(folder: Path, bundle: str | None = None) -> Manifest:
    """Return the manifest of the backbone of a bundle, or of the one in use.

    Raises:
        ConfigError: none is in use.
        StoreDamagedError: its bundle is not whole.
    """
    return Manifest.from_json(json.dumps(_bundle_facts(folder, bundle)["backbone"]))


def bundle_name(folder: Path) -> str:
    """Return the file name that the backbone in use was added under."""
    return str(_bundle_facts(folder)["name"])


def bundle_facts(name: str, manifest: Manifest) -> bytes:
    """Return the content of a bundle's `bundle.json`."""
    facts = {"format": BUNDLE_FORMAT, "name": name, "backbone": json.loads(manifest.to_json())}
    return (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode("utf-8")


def open_staged(folder: Path, settings: Settings, bundle: str | None = None) -> Backbone:
    """Open the backbone of a bundle, or of the one in use, as its manifest and the settings say.

    Raises:
        ConfigError: none is in use.
        EdgeError: as `open_backbone`.
    """
    engine = settings.engine
    return open_backbone(
        model_path(folder, bundle),
        num_threads=engine.threads,
        isolate=engine.isolate,
        delegate=engine.delegate or None,
        manifest=read_manifest(folder, bundle),
        engine_cache=folder / ENGINES,
    )


def model_path(folder: Path, bundle: str | None = None) -> Path:
    """Return the file of the backbone of a bundle, or of the one in use.

    One for an accelerator lies beside its CPU twin.
    """
    place = install.bundle_folder(folder, bundle or install.read_current(folder).bundle or "")
    accelerated = (place / MODEL_EDGETPU, place / MODEL_ONNX)
    return next((path for path in accelerated if path.exists()), place / MODEL)


def bundles(folder: Path) -> list[BundleInfo]:
    """List the whole bundles of a state folder by name."""
    current = install.read_current(folder).bundle
    found = []
    for place in (folder / install.BUNDLES).glob("*"):
        with contextlib.suppress(StoreDamagedError, ModelError):
            install.check_bundle(folder, place.name)
            facts = _facts_in(place)
            size = Manifest.from_json(json.dumps(facts["backbone"])).feature_size
            found.append(BundleInfo(place.name, str(facts["name"]), size, place.name == current))
    return sorted(found, key=lambda bundle: bundle.name)


def _bundle_facts(folder: Path, bundle: str | None = None) -> dict[str, Any]:
    digest = bundle or install.read_current(folder).bundle
    if digest is None:
        raise ConfigError(f"{folder} has no backbone yet: run `edge-cl backbone add FILE`")
    install.check_bundle(folder, digest)
    return _facts_in(install.bundle_folder(folder, digest))


def _facts_in(place: Path) -> dict[str, Any]:
    try:
        facts = json.loads((place / BUNDLE_FACTS).read_text(encoding="utf-8"))
        is_newer = facts["format"] > BUNDLE_FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(
            f"bundle {place.name[:12]} has no {BUNDLE_FACTS}: add the backbone again"
        ) from error
    if is_newer:
        raise MismatchError("the backbone was added by a newer edge-cl: upgrade edge-cl")
    return dict(facts)


def _check_types(found: Mapping[str, Any], defaults: Mapping[str, Any], table: str) -> None:
    for name, value in found.items():
        if name not in defaults:
            raise ConfigError(f"config.toml: [{table}] knows no {name!r}: remove it")
        wanted = defaults[name]
        if isinstance(wanted, dict) and isinstance(value, dict):
            _check_types(value, wanted, f"{table}.{name}")
        elif type(value) is not type(wanted) and not (isinstance(wanted, float) and type(value) is int):
            kind = type(wanted).__name__
            raise ConfigError(f"config.toml: {name} in [{table}] must be of type {kind}, not {value!r}")
