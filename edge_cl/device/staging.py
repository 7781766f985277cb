"""Decides whether a model file may become a state folder's backbone, and puts it there."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_cl.config import EngineSettings
from edge_cl.device import install
from edge_cl.device.staged import BUNDLE_FACTS, ENGINES, MODEL, MODEL_EDGETPU, MODEL_ONNX, bundle_facts
from edge_cl.errors import EngineError, ImageError, MismatchError, ModelError
from edge_cl.memory.database import DATABASE
from edge_cl.memory.opening import open_store
from edge_cl.vision.backbone import (
    ONNX,
    Backbone,
    Manifest,
    ModelFile,
    cpu_twin,
    open_backbone,
    read_model_file,
)
from edge_cl.vision.extractor import Cut, collapse_fraction, cut_at_embedding, is_collapsed
from edge_cl.vision.frames import read_image
from edge_cl.vision.ports import InputRange
from edge_cl.vision.preprocess import Resize, prepare

SYNTHETIC_SEED = 1  # of the patterns a feature is judged by when no pictures are given
SYNTHETIC_PICTURES = 8
MAX_JUDGED_PICTURES = 64  # real ones; more do not change the verdict


@dataclass(frozen=True)
class StagingOptions:
    """How a backbone is to be taken."""

    policy: Resize = Resize.SQUASH  # how pictures of another shape are made to fit
    input_range: InputRange | None = None  # what the network saw for pixels 0 and 255; None: as the file says
    mirror: bool = True  # a mirrored picture means the same thing
    as_is: bool = False  # do not cut: the file's output is the feature
    pictures: tuple[Path, ...] = ()  # real ones, to judge the feature by


class Staged(NamedTuple):
    """What was put in place.

    Attributes:
        bundle: its hash.
        name: the file it came from.
        manifest: what must be repeated to stay in its feature space.
        space_id: id of that space.
        kernels: who computes it here.
        zero_fraction: share of the feature's values at zero.
        judged_on: what that was measured on.
        warnings: what a person should know, a line each.
    """

    bundle: str
    name: str
    manifest: Manifest
    space_id: str
    kernels: str
    zero_fraction: float
    judged_on: str
    warnings: tuple[str, ...]


def stage_backbone(folder: Path, source: Path, options: StagingOptions, engine: EngineSettings) -> Staged:
    """Cut a classifier at its embedding, try it, and make it the backbone of a state folder.

    Raises:
        ModelError: the file cannot serve; the message says why.
        MismatchError: the folder holds samples of another backbone.
        EngineError: no interpreter works here, or the delegate is absent or failed.
    """
    file = read_model_file(source)
    cut = None if options.as_is or file.is_edgetpu or file.format == ONNX else _cut(source)
    with _openable(source, cut) as path, _opened(path, options, engine, folder / ENGINES) as backbone:
        manifest = backbone.manifest(options.mirror, cut.tensor if cut and cut.removed else None)
        zeros, judged_on, warnings = _judge(backbone, options.pictures)
        files: dict[str, bytes | Path] = {BUNDLE_FACTS: bundle_facts(source.name, manifest)}
        files |= _model_files(file, cut)
        with _locked(folder, backbone.space.id):
            bundle = install.stage_bundle(folder, files)
            install.point_to(folder, bundle=bundle)
        assumed = (backbone.assumption,) if backbone.assumption else ()
        return Staged(
            bundle, source.name, manifest, backbone.space.id, backbone.kernels, zeros, judged_on,
            (*assumed, *warnings),
        )  # fmt: skip


def _cut(source: Path) -> Cut:
    try:
        return cut_at_embedding(source.read_bytes())
    except OSError as error:
        raise ModelError(f"{source.name} cannot be read ({error.strerror}): check its rights") from error
    except ModelError as error:
        raise ModelError(f"{source.name}: {error}") from error
    except EngineError as error:
        raise EngineError(f"{error}; if its output is the feature already, add --as-is") from error


@contextlib.contextmanager
def _openable(source: Path, cut: Cut | None) -> Iterator[Path]:
    """Give a path to the bytes that will be staged; a cut file lies in memory until it has proved itself."""
    if cut is None or not cut.removed:
        yield source
        return
    descriptor = os.memfd_create(source.name)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(cut.data)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")  # readable by an isolated engine too
    finally:
        os.close(descriptor)


def _opened(path: Path, options: StagingOptions, engine: EngineSettings, cache: Path) -> Backbone:
    return open_backbone(
        path,
        num_threads=engine.threads,
        isolate=engine.isolate,
        delegate=engine.delegate or None,
        policy=options.policy,
        input_range=options.input_range,
        engine_cache=cache,
    )


def _model_files(file: ModelFile, cut: Cut | None) -> dict[str, bytes | Path]:
    if not file.is_edgetpu and file.format != ONNX:
        return {MODEL: cut.data if cut and cut.removed else file.path}
    twin = cpu_twin(file.path)
    name = MODEL_ONNX if file.format == ONNX else MODEL_EDGETPU
    return {name: file.path, **({MODEL: twin} if twin else {})}


@contextlib.contextmanager
def _locked(folder: Path, space_id: str) -> Iterator[None]:
    """Hold the folder's lock where something was taught in it, and refuse another backbone there."""
    if not (folder / DATABASE).exists():
        yield
        return
    with open_store(folder, None) as store:
        if install.read_current(folder).fallback is not None:
            raise MismatchError(
                f"{folder} tries a release of its host: wait until that is kept or undone (`edge-cl status`)"
            )
        if store.space.id != space_id:
            raise MismatchError(
                f"{folder} was taught with another backbone, and features of two never mix:"
                " make a new learner with `edge-cl init --state OTHER --backbone FILE`"
            )
        yield


def _judge(backbone: Backbone, pictures: Iterable[Path]) -> tuple[float, str, tuple[str, ...]]:
    """Measure how much a feature tells, on real pictures where given: (zeros, measured on, warnings)."""
    shown, unreadable = _real(backbone, tuple(pictures)[:MAX_JUDGED_PICTURES])
    judged_on = f"{len(shown)} pictures"
    if not shown:
        shown = _synthetic(backbone.input_size)
        judged_on = f"{len(shown)} made-up patterns (give --images for real ones)"
    features = np.stack([backbone.embed(pixels) for pixels in shown])
    zeros = collapse_fraction(features, backbone.space.zero_point)
    warnings = tuple(f"{name} could not be read" for name in unreadable)
    if is_collapsed(zeros):
        warnings += (
            f"{100 * zeros:.0f} % of the feature's values are zero on {judged_on}: it hardly tells pictures"
            " apart; choose another backbone",
        )
    elif len(shown) > 1 and (features == features[0]).all():
        warnings += (f"the feature is the same for all of {judged_on}: choose another backbone",)
    return zeros, judged_on, warnings


def _real(backbone: Backbone, pictures: Iterable[Path]) -> tuple[list[NDArray[Any]], list[str]]:
    shown, unreadable = [], []
    for path in pictures:
        try:
            shown.append(prepare(read_image(path), backbone.input_size, backbone.policy))
        except ImageError:
            unreadable.append(path.name)
    return shown, unreadable


def _synthetic(size: tuple[int, int]) -> list[NDArray[Any]]:
    """Return patterns from coarse to fine: noise of 2, 4, 8 ... cells a side, smoothly enlarged."""
    rng = np.random.default_rng(SYNTHETIC_SEED)
    patterns = []
    for number in range(SYNTHETIC_PICTURES):
        cells = min(2 ** (number + 1), *size)
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        enlarged = Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        patterns.append(np.asarray(enlarged))
    return patterns
