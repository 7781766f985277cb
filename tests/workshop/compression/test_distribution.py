"""Every distribution gives exactly the density that was asked for, and every schedule ends there."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.compression.distribution import DISTRIBUTIONS, counts
from host_trainer.compression.masks import density_of, moved, regrown
from host_trainer.compression.schedule import Cubic

sizes = st.integers(1, 24)
layers = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.tuples(sizes, sizes) | st.tuples(st.just(3), st.just(3), sizes, sizes),
    min_size=1,
    max_size=6,
)
densities = st.floats(0.001, 1.0)


@pytest.mark.parametrize("distribution", sorted(DISTRIBUTIONS))
@given(shapes=layers, density=densities)
def test_the_density_is_exact_and_no_layer_is_empty_or_overfull(
    distribution: str, shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    found = counts(shapes, density, distribution)

    total = sum(math.prod(shape) for shape in shapes.values())
    assert sum(found.values()) == max(len(shapes), round(total * density))
    assert all(1 <= found[name] <= math.prod(shape) for name, shape in shapes.items())


def test_uniform_gives_every_layer_the_same_density() -> None:
    assert counts({"a": (10, 10), "b": (20, 50)}, 0.1, "uniform") == {"a": 10, "b": 100}


def test_erk_keeps_small_layers_denser_by_its_formula() -> None:
    shapes = {"small": (10, 10), "large": (100, 100)}
    found = counts(shapes, 0.1, "erk")
    # densities are e (10 + 10) / 100 and e (100 + 100) / 10,000 with 100 * d1 + 10,000 * d2 = 1,010
    assert found == {"small": 92, "large": 918}


def test_erk_fills_layers_that_would_need_more_than_all() -> None:
    found = counts({"tiny": (2, 2), "large": (100, 100)}, 0.5, "erk")
    assert found == {"tiny": 4, "large": 4998}


@pytest.mark.parametrize(
    ("density", "distribution"), [(0.0, "erk"), (1.5, "erk"), (-1, "uniform"), (0.5, "even")]
)
def test_what_cannot_be_distributed_is_refused(density: float, distribution: str) -> None:
    with pytest.raises(ConfigError):
        counts({"a": (4, 4)}, density, distribution)


@given(
    final=st.floats(0.01, 1.0), begin=st.integers(0, 50), length=st.integers(0, 400), every=st.integers(1, 60)
)
def test_the_schedule_falls_from_all_to_the_final_density(
    final: float, begin: int, length: int, every: int
) -> None:
    schedule = Cubic(final, begin, begin + length, every)
    steps = [step for step in range(begin + length + 1) if schedule.prunes(step)]
    along = [schedule.density(step) for step in steps]

    assert steps[0] == begin and steps[-1] == begin + length
    assert along == sorted(along, reverse=True) and along[-1] == final
    assert schedule.density(begin - 1) == 1.0 and schedule.density(10_000) == final


def test_the_schedule_is_zhu_and_guptas() -> None:
    schedule = Cubic(final=0.2, begin=100, end=500)
    assert schedule.density(300) == pytest.approx(1 - (0.8 + (0 - 0.8) * (1 - 200 / 400) ** 3))


@pytest.mark.parametrize(
    "wrong", [{"final": 0.0}, {"final": 1.1}, {"begin": 9}, {"every": 0}, {"initial": 0.1}]
)
def test_a_schedule_that_does_not_fall_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Cubic(**{"final": 0.5, "begin": 0, "end": 5, **wrong})


@given(seed=st.integers(0, 99), first=st.integers(2, 60), second=st.integers(2, 60), share=st.floats(0, 0.9))
def test_masks_keep_exact_counts_and_the_best_weights_whatever_the_order(
    seed: int, first: int, second: int, share: float
) -> None:
    scores = {"w": np.random.default_rng(seed).random((6, 10))}
    masks = moved({"w": np.ones((6, 10), bool)}, scores, {"w": first}, (seed, 0))
    assert masks["w"].sum() == first
    assert scores["w"][masks["w"]].min() >= scores["w"][~masks["w"]].max(initial=0)

    more = regrown(masks, share, (seed, 1))
    assert (more["w"] | masks["w"]).sum() == more["w"].sum() >= first

    after = moved(more, scores, {"w": second}, (seed, 2))
    assert after["w"].sum() == second and density_of(after) == second / 60
