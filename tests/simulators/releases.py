"""A host that makes releases: real photographs, a real backbone, the workshop's own assembly."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from simulators.times import START, later

from edge_cl.device.installation.installation import Installation
from edge_cl.device.opening import open_agent
from edge_cl.learning import increment, named
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import Backbone, open_backbone
from edge_cl.vision.frames import read_image
from edge_cl.vision.preprocess import prepare, views
from edge_cl.wire import bundle as bundles
from edge_cl.wire.bundle import Gates
from edge_cl.wire.release import Board, Facts
from host_trainer.export import golden
from host_trainer.retraining.assembly import Budgets, Ingredients, Label, input_of, lean, manifest_id, whole
from host_trainer.retraining.samples import Samples

VIEWS = 4
GOLDEN = 4  # pictures
BOARD = Board(("cpu", "any"), "0.1.0")
GATES = Gates(0, 20, 4, 990, 0, 0)

__all__ = ["START", "Host", "install", "later", "of_folder", "own_of", "repacked", "written"]

Photos = Mapping[str, Sequence[Path]]


class Made(NamedTuple):
    """A release as a file, and the hash of its manifest."""

    file: Path
    manifest: str


class Host:
    """A workshop around one backbone.

    Args:
        backbone: a TFLite file.
        photos: {class: pictures} that it teaches its head.
        known: what devices have told, added to the head.
    """

    def __init__(
        self, backbone: Path, photos: Photos, known: Named | None = None, config: LearnerConfig | None = None
    ) -> None:
        self.backbone = backbone.read_bytes()
        with open_backbone(backbone) as opened:
            self.space, self.input = opened.space, input_of(opened.manifest())
            self.samples = _embedded(opened, photos)
            pictures = [path for paths in photos.values() for path in paths][:GOLDEN]
            shown = np.stack([prepare(read_image(p), opened.input_size, opened.policy) for p in pictures])
            self.golden = golden.record(opened, shown)
        self.known, self.config = known, config or LearnerConfig()
        self.learner = _taught(self.space, self.config, self.samples, known)

    def hear(self, known: Named) -> None:
        """Know what devices have told by now instead of what they had told before."""
        self.known = known
        self.learner = _taught(self.space, self.config, self.samples, known)

    def release(self, place: Path, number: int = 1, gates: Gates = GATES, **changes: Any) -> Made:
        """Write a whole release into a folder."""
        ingredients = self.ingredients()._replace(**changes)
        return written(place, whole(ingredients, _label(number, gates), Budgets(golden=GOLDEN)))

    def lean_release(self, place: Path, number: int, parent: Path, known: Any) -> Made:
        """Write a release of a head alone, which goes on from a whole one."""
        manifest = bundles.unpack(parent.read_bytes()).manifest
        data = lean(self.ingredients(), _label(number, GATES), Budgets(golden=GOLDEN), (manifest, known))
        return written(place, data)

    def ingredients(self) -> Ingredients:
        """Return what a release is made of."""
        return Ingredients(self.learner, self.backbone, self.golden, self.samples, self.input)


def written(place: Path, data: bytes) -> Made:
    """Write a release's bytes into a folder."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / hashlib.sha256(data).hexdigest()
    file.write_bytes(data)
    return Made(file, manifest_id(data))


def repacked(made: Made, place: Path, files: Mapping[str, bytes], **changes: Any) -> Made:
    """Write a release again with other parts, or another manifest, as a publisher who errs would."""
    found = bundles.unpack(made.file.read_bytes())
    parts = {**found.files, **files}
    described = tuple(bundles.described(name, data) for name, data in parts.items())
    manifest = replace(found.manifest, parts=described, **changes)
    return written(place, bundles.pack(manifest, parts))


def of_folder(photos: Path, *labels: str) -> dict[str, list[Path]]:
    """Return {class: pictures} of PHOTOS/CLASS/*.jpg."""
    return {label: sorted((photos / label).iterdir()) for label in labels}


def own_of(state: Path) -> Named:
    """Return what a device was taught, exactly; what it would tell in the long run."""
    with open_agent(state, read_only=True) as agent:
        return Named(agent.learner.labels, agent.learner.own_statistics())


def install(
    state: Path, made: Made, taken: str | None = None, told: Mapping[str, Named] | None = None, **more: Any
):
    """Let a device try a release; return the installation and where it stands."""
    installation = Installation(state, BOARD, (told or {}).get)
    installation.consider(made.file, made.manifest, taken, START)
    return installation, installation.advance(START, **more)


def _embedded(backbone: Backbone, photos: Photos) -> Samples:
    features, labels = [], []
    for label, paths in photos.items():
        for path in paths:
            shown = views(read_image(path), VIEWS, backbone.input_size, backbone.policy)
            features.append(backbone.embed_many(shown))
            labels.append(label)
    count = len(labels)
    return Samples(np.stack(features), tuple(labels), ("",) * count, np.arange(1, count + 1))


def _taught(space: FeatureSpace, config: LearnerConfig, samples: Samples, known: Named | None) -> EdgeLearner:
    learner = EdgeLearner(space, config)
    order = np.random.default_rng(0).permutation(len(samples))
    learner.learn_many(samples.features[order], [samples.labels[i] for i in order])
    learner.consolidate()
    if known is not None:
        for label in increment.union(learner.labels, known.labels)[len(learner.labels) :]:
            learner.add_class(label)
        learner.base.absorb(named.on(known, learner.labels))
        learner.base.refresh(learner.base.shrinkage)
    return learner


def _label(number: int, gates: Gates) -> Label:
    return Label("signs", Facts(number, ("any",), "0.1.0", ""), 0, gates, f"run-{number}")
