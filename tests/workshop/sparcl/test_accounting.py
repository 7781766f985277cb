"""Operations are counted from the real network, and give the published tables."""

from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ModelError
from host_trainer.backbones.networks import Spec, build, with_head
from host_trainer.sparcl.accounting import Flops, Work, dense_like, flops, forward_macs, honest, published
from host_trainer.sparcl.weights import sparse_kernels

TASKS, EPOCHS, PICTURES = 5, 50, 10_000
KEPT = (10_000, 9_250, 8_500, 7_750, *[7_000] * 6)  # by stage of five epochs: the authors' schedule
GRADIENT = {0.75: 0.80, 0.90: 0.91, 0.95: 0.955}
SMALL = {"stem": 1_000, "middle": 20_000, "head": 300}
DRAWS = {"er": 1, "derpp": 2}


@pytest.fixture(scope="module")
def resnet() -> Any:
    return with_head(build(Spec("resnet18", 1.0, 32)), 10)


@pytest.fixture(scope="module")
def macs(resnet: Any) -> dict[str, int]:
    return forward_macs(resnet)


def split_cifar(draws: int, removal: bool = False, **masks: Any) -> list[Work]:
    """The published schedule, replay from the second task on."""
    return [
        Work(samples, draws * samples * (task > 0), draws=draws, **masks)
        for task in range(TASKS)
        for samples in ((KEPT[epoch // 5] if removal else PICTURES) for epoch in range(EPOCHS))
    ]


def sparcl(resnet: Any, draws: int, sparsity: float) -> list[Work]:
    paths = sparse_kernels(resnet)
    moving = dict.fromkeys(paths, 1 - GRADIENT[sparsity])
    return split_cifar(draws, removal=True, live=dict.fromkeys(paths, 1 - sparsity), moving=moving)


@pytest.mark.parametrize(("size", "classes", "gigamacs"), [(32, 10, 0.5554), (64, 200, 2.2218)])
def test_a_forward_of_the_resnet_costs_what_the_reference_says(
    size: int, classes: int, gigamacs: float
) -> None:
    counted = forward_macs(with_head(build(Spec("resnet18", 1.0, size)), classes))
    assert sum(counted.values()) / 1e9 == pytest.approx(gigamacs, abs=5e-5)


def test_the_stem_stays_dense_behind_a_fixed_transform_too(resnet: Any) -> None:
    haar = build(Spec("resnet18", 1.0, 32, haar=True))
    assert not {"haar/kernel", "stem/kernel"} & sparse_kernels(haar).keys()
    assert sparse_kernels(haar).keys() == sparse_kernels(resnet).keys()


@pytest.mark.parametrize(("draws", "cell"), [(0, 8.33), (1, 11.11), (2, 13.89)])
def test_dense_cells_of_the_published_table(macs: dict[str, int], draws: int, cell: float) -> None:
    assert flops(split_cifar(draws), macs).published / 1e15 == pytest.approx(cell, rel=1e-3)


@pytest.mark.parametrize(
    ("method", "sparsity", "cell"),
    [
        ("er", 0.75, 1.98),
        ("er", 0.90, 0.87),
        ("er", 0.95, 0.47),
        ("derpp", 0.75, 2.55),
        ("derpp", 0.90, 1.12),
        ("derpp", 0.95, 0.61),
    ],
)
def test_sparse_cells_of_the_published_table(
    resnet: Any, macs: dict[str, int], method: str, sparsity: float, cell: float
) -> None:
    works = sparcl(resnet, DRAWS[method], sparsity)
    assert flops(works, macs).published / 1e15 == pytest.approx(cell, rel=0.02)


@pytest.mark.parametrize(
    ("removal", "gradients", "cell"), [(False, False, 3.62), (True, False, 2.81), (False, True, 3.28)]
)
def test_the_published_ablation(
    resnet: Any, macs: dict[str, int], removal: bool, gradients: bool, cell: float
) -> None:
    paths = sparse_kernels(resnet)
    moving = dict.fromkeys(paths, 0.2) if gradients else None
    works = split_cifar(2, removal, live=dict.fromkeys(paths, 0.25), moving=moving)
    assert flops(works, macs).published / 1e15 == pytest.approx(cell, rel=0.005)


@pytest.mark.parametrize(("draws", "total"), [(0, 8.3), (1, 15.0), (2, 21.7)])
def test_honest_dense_totals(macs: dict[str, int], draws: int, total: float) -> None:
    assert flops(split_cifar(draws), macs).honest / 1e15 == pytest.approx(total, rel=0.005)


@pytest.mark.parametrize(
    ("method", "sparsity", "total"),
    [
        ("er", 0.75, 2.84),
        ("er", 0.90, 1.28),
        ("er", 0.95, 0.72),
        ("derpp", 0.75, 4.10),
        ("derpp", 0.90, 1.84),
        ("derpp", 0.95, 1.04),
    ],
)
def test_honest_sparse_totals(
    resnet: Any, macs: dict[str, int], method: str, sparsity: float, total: float
) -> None:
    assert flops(sparcl(resnet, DRAWS[method], sparsity), macs).honest / 1e15 == pytest.approx(
        total, rel=0.02
    )


def test_each_kind_of_layer_is_counted_by_hand() -> None:
    image = keras.Input((8, 8, 4))
    maps = keras.layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="plain")(image)
    maps = keras.layers.Conv2D(6, 3, groups=2, padding="valid", name="grouped")(maps)
    maps = keras.layers.BatchNormalization()(maps)
    maps = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(maps)
    maps = keras.layers.GlobalAveragePooling2D()(maps)
    counted = forward_macs(keras.Model(image, keras.layers.Dense(5, name="head")(maps)))
    assert counted == {
        "plain/kernel": 4 * 4 * 3 * 3 * 4 * 6,
        "grouped/kernel": 2 * 2 * 3 * 3 * 3 * 6,
        "deep/kernel": 2 * 2 * 3 * 3 * 6 * 2,
        "head/kernel": 12 * 5,
    }


def test_what_cannot_be_counted_is_refused() -> None:
    image = keras.Input((8, 8, 4))
    other = keras.Model(image, keras.layers.SeparableConv2D(4, 3, name="odd")(image))
    with pytest.raises(ModelError, match=r"odd \(SeparableConv2D\)"):
        forward_macs(other)
    free = keras.Input((None, None, 3))
    with pytest.raises(ModelError, match="fix the network's input size"):
        forward_macs(keras.Model(free, keras.layers.Conv2D(4, 3, name="wide")(free)))


def test_the_honest_count_is_right_by_hand() -> None:
    live, moving = {"middle": 0.5}, {"middle": 0.25}
    answer, back, learn = 11_300, 10_300, 6_300
    shown = Work(10, replayed=20, draws=2, live=live, moving=moving)
    assert honest(shown, SMALL) == 2 * 30 * (answer + back + learn)
    assert honest(Work(0, forward_only=7, live=live, moving=moving), SMALL) == 2 * 7 * answer
    assert honest(Work(0, assessed=3, live=live, moving=moving), SMALL) == 2 * 3 * (2 * answer + back)


def test_a_frozen_layer_takes_no_weight_gradient() -> None:
    frozen = Work(1, moving={"middle": 0.0})
    assert honest(Work(1), SMALL) - honest(frozen, SMALL) == 2 * SMALL["middle"]


def test_the_dense_equivalent_shows_every_picture_that_was_offered() -> None:
    work = Work(700, 700, 1400, 64, draws=1, live={"middle": 0.1}, moving={"middle": 0.05})
    assert dense_like(work, 1000) == Work(1000, 1000, draws=1)
    assert dense_like(work, 1000, draws=2) == Work(1000, 2000, draws=2)
    assert dense_like(work._replace(replayed=0), 1000, draws=2) == Work(1000, draws=2)


shares = st.floats(0, 1)
counts = st.integers(0, 10**6)


@settings(deadline=None)
@given(counts, counts, counts, counts, st.integers(0, 2), shares, shares)
def test_masks_never_cost_operations(
    samples: int, replayed: int, only: int, assessed: int, draws: int, live: float, part: float
) -> None:
    masked = Work(samples, replayed, only, assessed, draws, {"middle": live}, {"middle": live * part})
    dense = masked._replace(live={}, moving=None)
    for convention in (published, honest):
        assert 0 <= convention(masked, SMALL) <= convention(dense, SMALL) * (1 + 1e-12)


@settings(deadline=None)
@given(st.lists(st.builds(Work, counts, counts, counts, counts, st.integers(0, 2)), max_size=5))
def test_parts_add_up(works: list[Work]) -> None:
    each = [flops([work], SMALL) for work in works]
    assert flops(works, SMALL) == Flops(sum(e.published for e in each), sum(e.honest for e in each))
