"""Decides which devices get a bundle first, and when more get it or no more do.

The devices of a channel stand in one order for each bundle, by a hash, so that not always the same ones are
the first; a growing share of that order is offered the bundle. Shares are whole per mille.
"""

import hashlib
from typing import NamedTuple

from edge_cl.errors import ConfigError

ALL = 1000


class Rollout(NamedTuple):
    """How far a bundle is rolled out.

    Attributes:
        share: of the devices that are offered it now.
        steps: shares that follow, rising.
        success: share of the group that must keep the bundle before the next step.
        error: share of the group whose failures stop the rollout.
        reason: why it is stopped; "" while it runs.
    """

    share: int = ALL
    steps: tuple[int, ...] = ()
    success: int = 900
    error: int = 200
    reason: str = ""


class Tally(NamedTuple):
    """How a group fared: its devices, and how many of them kept the bundle or rolled it back."""

    group: int = 0
    kept: int = 0
    failed: int = 0


def check(rollout: Rollout) -> None:
    """Raise ConfigError for a rollout that makes no sense."""
    shares = (rollout.share, *rollout.steps)
    if (
        not 1 <= shares[0]
        or shares[-1] > ALL
        or any(a >= b for a, b in zip(shares, shares[1:], strict=False))
    ):
        raise ConfigError("the shares of a rollout rise from step to step, up to 100 %: as in 10,50,100")
    if not 1 <= rollout.success <= ALL or not 1 <= rollout.error <= ALL:
        raise ConfigError("the thresholds of a rollout are above 0 and at most 100 %")


def place(device: str, model: str, number: int) -> int:
    """Return where a device stands in the order for a bundle: 0 to 999, about equally many at each."""
    text = f"{model}\n{number}\n{device}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") * ALL >> 64


def includes(rollout: Rollout, device: str, model: str, number: int) -> bool:
    """Tell whether a device is offered the bundle; once it is, it stays so as the share grows."""
    return not rollout.reason and place(device, model, number) < rollout.share


def advanced(rollout: Rollout, tally: Tally) -> Rollout:
    """Return the rollout after its group fared so: stopped, one step further, or as it was."""
    if rollout.reason or not tally.group:
        return rollout
    if tally.failed * ALL >= rollout.error * tally.group:
        return rollout._replace(
            reason=f"{tally.failed} of {tally.group} devices rolled it back; {_percent(rollout.error)} end it"
        )
    if rollout.steps and tally.kept * ALL >= rollout.success * tally.group:
        return rollout._replace(share=rollout.steps[0], steps=rollout.steps[1:])
    return rollout


def _percent(share: int) -> str:
    return f"{share / 10:g} %"
