"""Decides what a later run must know of a release: where its parts lie, and what went into it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_cl.errors import ConfigError
from edge_cl.learning import head
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.statistics import Statistics
from edge_cl.wire import bundle
from edge_cl.wire.bundle import Manifest
from host_trainer.retraining import samples, told
from host_trainer.retraining.assembly import opened
from host_trainer.retraining.runs import read_tensors, runs
from host_trainer.retraining.samples import Samples
from host_trainer.retraining.told import Told

PUBLICATION = "7-publication"


@dataclass(frozen=True)
class Deployed:
    """A release, as its run's last stage tells it; paths are relative to the fleet's folder.

    Attributes:
        model, bundle, run: which release this is.
        whole: its whole bundle.
        keyframe, keyframe_file: number and file of the whole bundle that lean ones go on from.
        backbone, golden: the file that devices run, and its golden answers.
        latency_ms: of a picture, when it was measured here.
        own: samples of the host's own pictures.
        samples: of the devices; "" for none.
        told: {device: what it told}, all of it in the head.
        taken: {device: newest statistics that the head contains whole}.
        contents: all that was learned from, by hash.
        pictures: that devices sent: [device, number, class, hash, path] of each.
        untrained: hashes of the pictures that the network was not trained on yet.
        adopted: devices whose samples were looked at with a new backbone, and stand for what they will tell.
        registry: version of the label registry that labels and samples follow.
        held_out: folder of the pictures by which releases are judged; "" for none.
        network: folder of the continual training that the backbone comes from; "" for none.
        data: folder of the host's own pictures, as it was given.
        mirror, views: how samples are made of pictures.
    """

    model: str
    bundle: int
    run: int
    whole: str
    keyframe: int
    keyframe_file: str
    backbone: str
    golden: str
    latency_ms: float
    own: str
    samples: str = ""
    told: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    pictures: list[list[Any]] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    registry: int = 0
    held_out: str = ""
    network: str = ""
    data: str = ""
    mirror: bool = True
    views: int = 4

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def find(fleet: Path, model: str, number: int) -> Deployed:
    """Return the release of a model with this bundle number.

    Raises:
        ConfigError: no run here made it.
    """
    for run in reversed(runs(fleet)):
        if run.place(PUBLICATION).is_dir():
            facts = run.facts(PUBLICATION)
            if (facts["model"], facts["bundle"]) == (model, number):
                return Deployed(**facts)
    raise ConfigError(
        f"bundle {number} of {model} was not made by `host-trainer retrain` here: its training is unknown,"
        " make a release anew with --first"
    )


def manifest_of(fleet: Path, release: Deployed) -> Manifest:
    """Return the manifest of a release's whole bundle."""
    return bundle.read_manifest((fleet / release.whole).read_bytes())[0]


def learner_of(fleet: Path, release: Deployed, config: LearnerConfig) -> EdgeLearner:
    """Return the learner that devices make of a release."""
    return opened((fleet / release.whole).read_bytes(), config)[1]


def keyframe_of(fleet: Path, release: Deployed) -> tuple[Manifest, Statistics]:
    """Return the manifest that lean bundles go on from, and the statistics that its head tells."""
    found = bundle.unpack((fleet / release.keyframe_file).read_bytes())
    return found.manifest, head.to_statistics(bundle.head(found))


def own_of(fleet: Path, release: Deployed) -> Samples:
    """Return the samples of the host's own pictures."""
    return samples.from_tensors(read_tensors(fleet / release.own))


def samples_of(fleet: Path, release: Deployed) -> Samples | None:
    """Return the samples of devices, None where there are none."""
    return samples.from_tensors(read_tensors(fleet / release.samples)) if release.samples else None


def told_of(fleet: Path, release: Deployed) -> dict[str, Told]:
    """Return what each device has told that the release contains."""
    return {
        device: told.from_tensors(read_tensors(fleet / path)) for device, path in sorted(release.told.items())
    }
