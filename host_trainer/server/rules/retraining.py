"""Decides when what the fleet sent is worth a training."""

from typing import NamedTuple


class Policy(NamedTuple):
    """When to train by itself; 0 for never.

    Attributes:
        contents: when so many wait.
        hours: when the oldest has waited so long.
    """

    contents: int = 0
    hours: int = 0


def is_due(policy: Policy, waiting: int, oldest_s: int) -> bool:
    """Tell whether to train, where `waiting` contents wait and the oldest of them for `oldest_s` seconds."""
    enough = 0 < policy.contents <= waiting
    return waiting > 0 and (enough or 0 < policy.hours * 3600 <= oldest_s)
