"""Decides how many weights of each layer live, so that the network as a whole has exactly the density asked.

Sources: uniform, Gale et al. 2019; ERK, Evci et al. 2020 (RigL, section 3, after Mocanu et al. 2018):
a layer's density is proportional to (sum of its sizes) / (product of its sizes), at most 1.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from edge_cl.errors import ConfigError
from edge_cl.learning.masking import live_count

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def uniform(shapes: Shapes, density: float) -> dict[str, int]:
    """Return how many weights of each layer live when all have one density; the sum is exact."""
    _check(density, len(shapes))
    return _rounded(dict.fromkeys(shapes, Fraction(density)), shapes, density)


def erk(shapes: Shapes, density: float) -> dict[str, int]:
    """Return how many weights of each layer live by Erdos-Renyi-Kernel; the sum is exact.

    Small layers stay denser. Layers that would need more than all their weights are full, and the others
    share the rest.
    """
    _check(density, len(shapes))
    full: set[str] = set()
    while True:
        factor = _factor(shapes, density, full)
        densities = {name: Fraction(1) if name in full else factor * _raw(shapes[name]) for name in shapes}
        beyond = {name for name, one in densities.items() if one > 1}
        if not beyond:
            return _rounded(densities, shapes, density)
        full |= beyond


DISTRIBUTIONS: dict[str, Callable[[Shapes, float], dict[str, int]]] = {"uniform": uniform, "erk": erk}


def counts(shapes: Shapes, density: float, distribution: str) -> dict[str, int]:
    """Return how many weights of each layer live: {name: count}, their sum round(density * all).

    Raises:
        ConfigError: an unknown distribution, or a density outside of 0..1.
    """
    if distribution not in DISTRIBUTIONS:
        raise ConfigError(f"no distribution {distribution!r}: give {' or '.join(DISTRIBUTIONS)}")
    return DISTRIBUTIONS[distribution](shapes, density)


def _check(density: float, layers: int) -> None:
    if not 0 < density <= 1:
        raise ConfigError(
            f"a density of {density:g} keeps nothing or more than all: give more than 0, at most 1"
        )
    if not layers:
        raise ConfigError("the network has no layer that can be pruned")


def _raw(shape: Shape) -> Fraction:
    return Fraction(sum(shape), math.prod(shape))


def _factor(shapes: Shapes, density: float, full: set[str]) -> Fraction:
    """Solve factor * sum(raw * size) + size of the full layers = density * size of all."""
    wanted = Fraction(density) * sum(map(math.prod, shapes.values()))
    left = wanted - sum(math.prod(shapes[name]) for name in full)
    weights = sum(sum(shape) for name, shape in shapes.items() if name not in full)
    return max(Fraction(0), left) / weights if weights else Fraction(0)


def _rounded(densities: Mapping[str, Fraction], shapes: Shapes, density: float) -> dict[str, int]:
    """Round by largest remainder to an exact sum; every layer keeps one weight at least."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = max(live_count(sum(sizes.values()), density), len(sizes))
    exact = {name: densities[name] * sizes[name] for name in shapes}
    found = {name: min(sizes[name], max(1, math.floor(exact[name]))) for name in shapes}
    missing = total - sum(found.values())
    step = 1 if missing > 0 else -1
    while missing:
        able = [name for name in shapes if (found[name] < sizes[name] if step > 0 else found[name] > 1)]
        chosen = sorted(able, key=lambda name: (-step * (exact[name] - found[name]), name))[: abs(missing)]
        for name in chosen:
            found[name] += step
        missing -= step * len(chosen)
    return found
