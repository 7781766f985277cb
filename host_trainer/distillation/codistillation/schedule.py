"""Decides when a peer publishes, when it reads, whom it believes and how much: pure rules of step counts.

Anil et al. 2018, algorithm 1: after a burn-in alone, each peer also matches the mean prediction of the
others, as they were when last read. Nothing here waits, reads or writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_cl.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """When peers exchange.

    Attributes:
        burn_in: steps that every peer takes alone; beginners teach each other nothing (the paper: 3,000 of
            7,250 steps on ImageNet).
        interval: steps between two exchanges (the paper: 50, hardly worse at some hundreds).
        max_age: steps; older checkpoints do not count, so that a peer that is gone for good is forgotten.
            None believes them for ever.
        weight: of the others' prediction beside the labels; the paper's is 1.
    """

    burn_in: int
    interval: int
    max_age: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.burn_in < 0 or self.interval < 1 or not 0 < self.weight < float("inf"):
            raise ConfigError(
                "peers need a burn-in of 0 or more steps, 1 or more between exchanges, and a weight above 0"
            )
        if self.max_age is not None and self.max_age < self.interval:
            raise ConfigError(
                f"checkpoints older than {self.max_age} steps do not count, and they come every"
                f" {self.interval}: allow an age of {self.interval} or more"
            )


def exchanges(step: int, schedule: Schedule) -> bool:
    """Tell whether a peer with `step` steps behind it publishes itself and then reads the others."""
    return step >= schedule.burn_in and (step - schedule.burn_in) % schedule.interval == 0


def believed(step: int, held: Mapping[int, int], schedule: Schedule) -> tuple[int, ...]:
    """Return which peers teach at `step`, in order.

    Args:
        step: steps behind the peer that asks.
        held: peer to the step of its checkpoint, of those whose checkpoint was read.
    """
    if step < schedule.burn_in:
        return ()
    oldest = float("-inf") if schedule.max_age is None else step - schedule.max_age
    return tuple(sorted(peer for peer, published in held.items() if published >= oldest))


def kept(schedule: Schedule, save_every: int) -> int:
    """Return how many checkpoints of each peer the store keeps.

    A peer that died goes on at its own last save, and asks again for what the others published since: up to
    save_every / interval exchanges ago; one more is being written, and one more being read.
    """
    return -(-save_every // schedule.interval) + 2
