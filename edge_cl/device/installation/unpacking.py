"""Decides whether a release's file may be tried on this board, and puts its parts into the state folder.

Parts that it leaves out come from the bundle in use, by their hashes. Of several backbones the one for this
board is taken, and the CPU's beside it where an accelerator may fail.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_cl.config import EngineSettings
from edge_cl.device import install
from edge_cl.device.installation import released
from edge_cl.device.staged import BUNDLE_FACTS, MODEL, MODEL_EDGETPU, MODEL_ONNX, bundle_facts, model_path
from edge_cl.errors import MismatchError, ReleaseError
from edge_cl.learning import head
from edge_cl.memory.disk import file_digest, guarded
from edge_cl.vision.backbone import ONNX, TFLITE
from edge_cl.vision.backbone import Manifest as BackboneManifest
from edge_cl.vision.preprocess import Resize
from edge_cl.wire import bundle as bundles
from edge_cl.wire.bundle import EXEMPLARS, GOLDEN, HEAD, Bundle, Manifest, Part, check_part
from edge_cl.wire.release import Board, misfit


class Parcel(NamedTuple):
    """A release that may be tried: its parts that this board needs, and the backbone among them."""

    bundle: Bundle
    backbone: str


def verify(folder: Path, file: Path, manifest: str, board: Board, engine: EngineSettings) -> Parcel:
    """Read a release's file, trusting nothing in it, and complete it.

    Args:
        folder: the state folder.
        file: as it was fetched.
        manifest: the hash that the host named.
        board: what this board is.
        engine: what runs the backbone here.

    Raises:
        ReleaseError: not the release that was named, not for this board, or something of it is not at hand.
        ProtocolError: bytes that no publisher wrote.
    """
    found = bundles.unpack(_read(file))
    if released.manifest_hash(found.manifest) != manifest:
        raise ReleaseError("the file is not the release that the host named: sync again")
    reason = misfit(found.manifest.facts, board)
    if reason:
        raise ReleaseError(f"bundle {found.manifest.bundle} {reason}")
    backbones = _backbones(folder, found.manifest, engine)
    parcel = Parcel(_completed(folder, found, backbones), backbones[0])
    _check_parts(folder, parcel)
    return parcel


def stage(folder: Path, parcel: Parcel) -> str:
    """Put a release into the state folder, whole or not at all, and return the hash under which it lies.

    Raises:
        StoreError: the storage refuses; nothing of it is there.
    """
    manifest = parcel.bundle.manifest
    facts = bundle_facts(f"{manifest.model}-{manifest.bundle}", backbone_manifest(manifest, parcel.backbone))
    extra = {BUNDLE_FACTS: facts, released.MANIFEST: released.manifest_bytes(manifest)}
    return install.stage_bundle(folder, {**parcel.bundle.files, **extra})


def backbone_manifest(manifest: Manifest, backbone: str) -> BackboneManifest:
    """Return what must be repeated to stay in the release's feature space, for one of its backbones."""
    part, space, seen = manifest.part(backbone), manifest.space, manifest.input
    if part is None:
        raise ValueError(f"the release has no {backbone}")
    return BackboneManifest(
        sha256=part.sha256,
        input_size=(seen.height, seen.width),
        input_range=(seen.low, seen.high),
        resize=Resize(seen.resize),
        feature_size=space.size,
        feature_dtype=space.dtype,
        feature_scale=space.scale,
        feature_zero_point=space.zero_point,
        mirror=seen.mirror,
        format=ONNX if backbone == MODEL_ONNX else TFLITE,
    )


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > bundles.MAX_SIZE:
            raise ReleaseError(f"{file.name} is larger than any release")
        return file.read_bytes()
    except OSError as error:
        raise ReleaseError(f"the release's file cannot be read ({error.strerror}): sync again") from error


def _backbones(folder: Path, manifest: Manifest, engine: EngineSettings) -> tuple[str, ...]:
    """Return the backbone for this board, and the CPU's after one for an accelerator."""
    wanted = MODEL
    if engine.delegate.startswith("edgetpu"):
        wanted = MODEL_EDGETPU
    elif engine.delegate.startswith("tensorrt") or _runs_onnx(folder):
        wanted = MODEL_ONNX
    names = [part.name for part in manifest.parts]
    if wanted not in names:
        raise ReleaseError(f"bundle {manifest.bundle} has no {wanted}, which this board runs")
    return (wanted, MODEL) if wanted != MODEL and MODEL in names else (wanted,)


def _runs_onnx(folder: Path) -> bool:
    return install.read_current(folder).bundle is not None and model_path(folder).name == MODEL_ONNX


def _completed(folder: Path, found: Bundle, backbones: tuple[str, ...]) -> Bundle:
    """Return the parts that this board needs, those left out taken from the bundle in use."""
    needed = [part for part in found.manifest.parts if part.name in (*backbones, HEAD, GOLDEN, EXEMPLARS)]
    files = {part.name: found.files[part.name] for part in needed if part.name in found.files}
    held = dict(_held(folder)) if len(files) < len(needed) else {}
    for part in needed:
        if part.name not in files:
            files[part.name] = _taken_over(part, held.get(part.sha256))
    return Bundle(found.manifest, files)


def _held(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield hash and place of every file of the bundle in use."""
    current = install.read_current(folder).bundle
    if current is not None:
        with guarded("reading the bundle in use"):
            for path in install.bundle_folder(folder, current).iterdir():
                yield file_digest(path).hexdigest(), path


def _taken_over(part: Part, path: Path | None) -> bytes:
    if path is None:
        raise ReleaseError(
            f"the release leaves out {part.name}, which is not here: the host has to send a whole one"
        )
    with guarded("reading the bundle in use"):
        data = path.read_bytes()
    check_part(part, data)
    return data


def _check_parts(folder: Path, parcel: Parcel) -> None:
    """Read every part as it will be read later, so that what cannot be used is found before it is staged."""
    bundle = parcel.bundle
    tensors = bundles.head(bundle)
    parent = head.parent_of(tensors)
    if parent and released.head_statistics(folder, parent) is None:
        raise ReleaseError(f"the head goes on from bundle {parent}, which is not here: a whole one is needed")
    bundles.exemplars(bundle)
    made_with = bundles.golden(bundle).sha256
    if made_with not in {part.sha256 for part in bundle.manifest.parts if part.name in bundles.BACKBONES}:
        raise MismatchError("the golden answers are of a backbone that the release does not have")
    model = bundle.files[parcel.backbone]
    if hashlib.sha256(model).hexdigest() != backbone_manifest(bundle.manifest, parcel.backbone).sha256:
        raise MismatchError(f"{parcel.backbone} is not the one of the manifest")
