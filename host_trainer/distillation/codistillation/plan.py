"""What a codistillation is asked to do, as one value that travels to every peer as JSON."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_cl.errors import ConfigError, ModelError
from host_trainer.distillation.codistillation.schedule import Schedule
from host_trainer.training.session import Options
from host_trainer.training.trainer import Recipe

ENGINES = ("processes", "ray", "inline")
MAX_PEERS = 16  # each holds a copy of every other one
PEER_SEEDS = 1000  # apart, so that the peers of two runs with seeds side by side do not share one


@dataclass(frozen=True)
class Plan:
    """A codistillation.

    Attributes:
        options: data, network and recipe, as of one training; `seed` is the first peer's.
        peers: how many train at once; 1 is a training without others.
        burn_in: share of the steps that each takes alone; 0.4 as in the paper. Before some 300 steps the
            running statistics of batch normalisation are those of the first weights: nothing to learn from.
        interval: steps between two exchanges.
        max_age: steps; older checkpoints of others do not count. None believes them for ever.
        weight: of the others' mean prediction beside the labels.
        validation: share of the training pictures that no peer learns from; they choose the one that ships.
        engine: `processes` on this machine, `ray` actors, or `inline`, in turn in this process.
        lockstep: peers wait for each other at exchanges; the result then depends on the seeds alone.
        restarts: how often a peer that died is started again.
        threads: of each peer; 0 shares the cores evenly.
    """

    options: Options
    peers: int = 2
    burn_in: float = 0.4
    interval: int = 50
    max_age: int | None = None
    weight: float = 1.0
    validation: float = 0.1
    engine: str = "processes"
    lockstep: bool = False
    restarts: int = 3
    threads: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.peers <= MAX_PEERS:
            raise ConfigError(f"{self.peers} peers cannot teach each other: give 1 to {MAX_PEERS}")
        if not 0 <= self.burn_in < 1 or not 0 < self.validation < 1:
            raise ConfigError(
                "burn-in is a share of the steps from 0, validation one of the pictures above 0"
            )
        if self.engine not in ENGINES:
            raise ConfigError(f"no engine {self.engine!r}: give {', '.join(ENGINES)}")
        if self.restarts < 0 or self.threads < 0:
            raise ConfigError("restarts and threads must not be negative")

    def seed(self, number: int) -> int:
        """Return the seed of a peer's first weights, order and augmentation."""
        return self.options.seed + PEER_SEEDS * number

    def recipe(self, steps: int, number: int) -> Recipe:
        """Return how one peer trains."""
        options = self.options
        return Recipe(
            steps=steps,
            batch=options.batch,
            rate=options.rate,
            seed=self.seed(number),
            save_every=options.save_every,
        )

    def schedule(self, steps: int) -> Schedule:
        """Return when the peers exchange, in steps."""
        return Schedule(round(self.burn_in * steps), self.interval, self.max_age, self.weight)

    def facts(self) -> dict[str, Any]:
        """Return what must be the same when a stopped codistillation goes on: plain JSON values."""
        plain = _plain(asdict(self))
        for free in ("engine", "restarts", "threads"):
            del plain[free]
        for free in ("out", "cache", "events", "data"):
            del plain["options"][free]
        return plain


def to_json(plan: Plan) -> str:
    """Return the plan as JSON text."""
    return json.dumps(_plain(asdict(plan)), indent=1, sort_keys=True)


def from_json(text: str) -> Plan:
    """Read a plan back.

    Raises:
        ModelError: not a plan.
    """
    try:
        values = json.loads(text)
        options = values.pop("options")
        paths = {
            name: None if options[name] is None else Path(options[name])
            for name in ("data", "out", "cache", "events")
        }
        known = {each.name for each in fields(Options)}
        kept = {name: options[name] for name in known & options.keys()}
        return Plan(Options(**{**kept, **paths, "augment": tuple(options["augment"])}), **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"this is no plan of a codistillation ({error}): start it anew") from error


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found
