"""Decides whether of two that answered the same samples the second is worse, and not by luck.

What counts are the samples that one got right and the other did not (McNemar 1947). A fall beyond what is let
pass counts only when a sign test on the pairs beyond it says so: ten pictures are not judged like a thousand.
"""

import math


def is_fall(lost: int, won: int, count: int, allowed: float, luck: float) -> bool:
    """Tell whether more than `allowed` of `count` samples were lost, and not by luck.

    Args:
        lost: right before, wrong now.
        won: wrong before, right now.
        count: of all samples.
        allowed: fraction that is let pass.
        luck: probability of saying yes where losses beyond it and gains are equally likely.
    """
    beyond = lost - math.floor(allowed * count)
    if beyond <= won:
        return False
    return at_least(beyond, beyond + won, 0.5) <= luck


def at_least(least: int, count: int, chance: float) -> float:
    """Return the probability of `least` or more of `count` draws, each with this chance."""
    return sum(
        math.comb(count, hits) * chance**hits * (1 - chance) ** (count - hits)
        for hits in range(least, count + 1)
    )
