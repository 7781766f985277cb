"""Holds what all stages of a run are given: what was asked, what is deployed, and their part of the world."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.retraining.assembly import Budgets
from host_trainer.retraining.contents import Contents
from host_trainer.retraining.deployed import Deployed
from host_trainer.retraining.gate import Policy, policy_facts
from host_trainer.retraining.heads import HeadConfig
from host_trainer.retraining.runs import Run
from host_trainer.training.session import OpenMeter, Say

INTAKE, UPDATE, EXPORT, HEAD, BUNDLE, GATE = (
    "1-intake",
    "2-update",
    "3-export",
    "4-head",
    "5-bundle",
    "6-gate",
)


@dataclass(frozen=True)
class Options:
    """What a person asks of a retraining; see `host-trainer retrain --help` for each."""

    fleet: Path
    model: str
    first: bool = False
    backbone: Path | None = None
    network: Path | None = None
    data: Path | None = None
    held_out: Path | None = None
    mirror: bool = True
    head_only: bool = False
    cap: float = 0.5
    epochs: int | None = None
    engine: str = "processes"
    workers: int = 1
    policy: Policy = field(default_factory=Policy)
    head: HeadConfig = field(default_factory=HeadConfig)
    budgets: Budgets = field(default_factory=Budgets)

    def order(self, incumbent: int) -> dict[str, Any]:
        """Return what must be the same when a killed run goes on, as plain JSON values."""
        paths = {
            name: str(path.resolve()) if path else None
            for name, path in (
                ("backbone", self.backbone),
                ("network", self.network),
                ("data", self.data),
                ("held_out", self.held_out),
            )
        }
        return {
            "model": self.model,
            "incumbent": incumbent,
            "first": self.first,
            **paths,
            "mirror": self.mirror,
            "head_only": self.head_only,
            "cap": self.cap,
            "epochs": self.epochs,
            "policy": policy_facts(self.policy),
            "distilled": self.head.distilled,
            "learner": self.head.learner.to_dict(),
            "budgets": vars(self.budgets),
        }


class World(NamedTuple):
    """What a retraining needs of the world.

    Attributes:
        now: when documents are signed.
        place, ring: of the repository.
        contents: what the devices sent.
        open_meter, say: a person who waits.
        stopped: whether to stop now.
        clock: seconds, for what a training took.
    """

    now: datetime
    place: RepositoryFolder
    ring: Keyring
    contents: Contents
    open_meter: OpenMeter
    say: Say
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = lambda: 0.0


class Job(NamedTuple):
    """A run, what was asked, what is deployed (None before the first release), and the world."""

    run: Run
    options: Options
    incumbent: Deployed | None
    world: World

    @property
    def fleet(self) -> Path:
        """The fleet's folder."""
        return self.options.fleet

    def relative(self, path: Path) -> str:
        """Return a path below the fleet's folder as facts keep it."""
        return path.relative_to(self.fleet).as_posix()
