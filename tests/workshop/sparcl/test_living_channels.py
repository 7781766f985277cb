"""A compact network is the masked-dense one, and masks that move change no answer.

In double precision, where what differs is the wiring and not the order of sums: fifty normalisations over few
pixels make a single-precision difference of 1e-7 into one of 1e-5.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("keras", reason="the workshop's networks need keras")

from edge_cl.errors import ConfigError
from edge_cl.learning.masking import grow, random_mask, shrink, weight_importance
from host_trainer.backbones.networks import build, parse_spec, with_head
from host_trainer.checkpoints import set_weights, weights_of
from host_trainer.quantisation.graph import redrawn
from host_trainer.sparcl import channels as ch

NETWORKS = ["resnet18:0.25/16", "mobilenetv2:0.35/32", "separable:0.5/16"]
CLASSES = 4
TOLERANCE = 1e-9


class Case(NamedTuple):
    model: Any
    structure: ch.Structure
    full: ch.Values  # lived-in weights
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    """A network that has lived, so that no statistic is at its first value."""
    single = with_head(build(parse_spec(request.param), 1), CLASSES)
    rng = np.random.default_rng(2)
    full = {path: _lived(path, values, rng) for path, values in weights_of(single).items()}
    model = redrawn(single, _doubled, lambda layer, *inputs, **options: layer(*inputs, **options))
    size = model.input.shape[1]
    images = rng.uniform(-1, 1, (16, size, size, 3))
    return Case(model, ch.structure_of(model), full, images, rng.integers(0, CLASSES, 16))


def _lived(path: str, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if path.endswith(("gamma", "moving_variance")):
        return rng.uniform(0.5, 1.5, values.shape)
    if path.endswith(("beta", "moving_mean", "bias")):
        return rng.normal(0, 0.2, values.shape)
    return values.astype(np.float64)


def _doubled(layer: Any) -> Any:
    return type(layer).from_config({**layer.get_config(), "dtype": "float64"})


def masks_of(structure: ch.Structure, counts: dict[str, int], seed: int = 3) -> ch.Masks:
    rng = np.random.default_rng(seed)
    return {group.name: random_mask(group.width, counts[group.name], rng) for group in structure.groups}


def roomy(structure: ch.Structure, counts: dict[str, int]) -> dict[str, int]:
    """Two slots more than live channels, where the group is that wide: some are spare."""
    return {group.name: min(group.width, counts[group.name] + 2) for group in structure.groups}


def told(model: Any, values: ch.Values, case: Case) -> tuple[Any, ...]:
    """Loss, gradients by path, and answers in training and out of it."""
    import tensorflow as tf

    set_weights(model, values, "test")
    with tf.GradientTape() as tape:
        logits = model(case.images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(case.labels, logits)
        loss = tf.reduce_mean(losses)
    trained = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in trained])
    by_path = {variable.path: np.asarray(g) for variable, g in zip(trained, gradients, strict=True)}
    after = weights_of(model)
    set_weights(model, values, "test")
    return float(loss), by_path, np.asarray(logits), np.asarray(model(case.images, training=False)), after


def close(one: np.ndarray, other: np.ndarray) -> bool:
    scale = max(1.0, float(np.abs(one).max()))
    return one.shape == other.shape and bool(np.abs(one - other).max() <= TOLERANCE * scale)


def test_a_compact_network_is_the_masked_dense_one_in_answers_loss_and_every_gradient(case: Case) -> None:
    structure = case.structure
    counts = ch.live_counts(structure, 0.75)
    masks = masks_of(structure, counts)
    own, slots = ch.own_slots(masks), ch.first_slots(masks, roomy(structure, counts))
    dense_values = ch.gather(case.full, structure, own)
    small = ch.compact(case.model, roomy(structure, counts))
    assert small.count_params() < 0.45 * case.model.count_params()

    dense = told(case.model, dense_values, case)
    compacted = told(small, ch.gather(case.full, structure, slots), case)

    assert abs(dense[0] - compacted[0]) <= TOLERANCE
    assert close(dense[2], compacted[2]) and close(dense[3], compacted[3])
    allowed = ch.weight_masks(structure, slots)
    assert allowed.keys() == compacted[1].keys()
    for path, expected in dense[1].items():
        small_expected = ch.gather({path: expected}, structure, slots)[path]
        assert close(small_expected, compacted[1][path] * allowed[path]), path
        dead = ~ch.weight_masks(structure, own)[path]
        assert not np.any(expected[dead]) and not np.any(compacted[1][path][~allowed[path]]), path
    for path, expected in ch.gather(dense[4], structure, slots).items():  # the running statistics too
        spare = np.ones(expected.shape, bool) if path not in allowed else allowed[path]
        if path.rpartition("/")[2].startswith("moving"):
            spare = slots.index[structure.variables[path].axes[0] or ""] >= 0
        assert close(expected[spare], compacted[4][path][spare]), path


def test_channels_that_begin_to_live_change_no_answer(case: Case) -> None:
    structure = case.structure
    counts = ch.live_counts(structure, 0.75)
    masks, room = masks_of(structure, counts), roomy(structure, counts)
    slots = ch.first_slots(masks, room)
    small, model = ch.gather(case.full, structure, slots), ch.compact(case.model, room)
    rng = np.random.default_rng(5)
    more = {name: grow(mask, room[name] - counts[name], rng) for name, mask in masks.items()}

    grown, new_slots = ch.rearrange(small, structure, slots, more, np.random.default_rng(6))

    _, _, training, answers, _ = told(model, small, case)
    _, gradients, training_after, answers_after, _ = told(model, grown, case)
    assert close(answers, answers_after) and close(training, training_after)
    assert {name: index.size for name, index in new_slots.index.items()} == room
    assert all(np.array_equal(ch.live_masks(structure, new_slots)[name], more[name]) for name in more)
    # They learn from the first step: some kernel that reads them has a gradient.
    survivors = ch.survivor_masks(structure, slots, new_slots)
    assert any(np.any(g[~survivors[path]]) for path, g in gradients.items() if path.endswith("kernel"))


def test_masks_that_move_leave_exact_zeros_and_keep_the_survivors(case: Case) -> None:
    structure = case.structure
    counts = ch.live_counts(structure, 0.75)
    masks = masks_of(structure, counts)
    slots, own = ch.first_slots(masks, roomy(structure, counts)), ch.own_slots(masks)
    small, dense = ch.gather(case.full, structure, slots), ch.gather(case.full, structure, own)
    # All variables as scores: only kernels count.
    scores = {path: weight_importance(values, values, values, 0.5, 1.0) for path, values in small.items()}
    worth = ch.channel_importance(structure, slots, scores)
    rng = np.random.default_rng(7)
    moved = {
        name: grow(shrink(mask, worth[name], 2), 2, rng)
        for name, mask in masks.items()
        if counts[name] < mask.size
    }
    moved = {**masks, **moved}

    values, new_slots = ch.rearrange(small, structure, slots, moved, np.random.default_rng(8))
    dense_values, new_own = ch.rearrange(dense, structure, own, moved, np.random.default_rng(8))

    survivors = ch.survivor_masks(structure, slots, new_slots)
    for path, mask in ch.weight_masks(structure, new_slots).items():
        assert not np.any(values[path][~mask]), path
        assert np.array_equal(values[path][survivors[path]], small[path][survivors[path]]), path
    # Both draw the same, wherever the slots are, so the one can be checked by the other at any time.
    back, expected = ch.scatter(values, structure, new_slots), ch.scatter(dense_values, structure, new_own)
    assert all(np.array_equal(back[path], expected[path]) for path in back)
    assert all(np.array_equal(expected[path], dense_values[path]) for path in expected)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_gathered_is_scattered_back_and_dead_channels_hold_nothing(data: st.DataObject) -> None:
    structure, full = _small()
    seed = data.draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    counts = {g.name: data.draw(st.integers(1, g.width), label=g.name) for g in structure.groups}
    room = {g.name: data.draw(st.integers(counts[g.name], g.width)) for g in structure.groups}
    masks = {g.name: random_mask(g.width, counts[g.name], rng) for g in structure.groups}
    slots = ch.first_slots(masks, room)

    small = ch.gather(full, structure, slots)
    back = ch.scatter(small, structure, slots)

    expected = ch.gather(full, structure, ch.own_slots(masks))
    assert all(np.array_equal(back[path], expected[path]) for path in full)
    again = ch.gather(back, structure, slots)
    assert all(np.array_equal(small[path], again[path]) for path in small)
    assert all(np.array_equal(mask, masks[name]) for name, mask in ch.live_masks(structure, slots).items())
    live = sum(
        int(m.sum())
        for path, m in ch.weight_masks(structure, ch.own_slots(masks)).items()
        if path in ch.kernel_sparsity(structure, slots)
    )
    total = sum(full[path].size for path in ch.kernel_sparsity(structure, slots))
    assert ch.weight_sparsity(structure, slots) == pytest.approx(1 - live / total)


_made: list[tuple[ch.Structure, ch.Values]] = []


def _small() -> tuple[ch.Structure, ch.Values]:
    if not _made:
        model = with_head(build(parse_spec("resnet18:0.125/16")), 3)
        _made.append((ch.structure_of(model), weights_of(model)))
    return _made[0]


def test_the_residual_stream_of_a_stage_is_one_group() -> None:
    structure, _ = _small()
    names = [group.name for group in structure.groups]
    assert names[:3] == ["stem", "stage1_block1_conv1", "stage1_block2_conv1"]
    assert len(names) == 12  # four streams, eight inner groups
    axes = {path: variable.axes for path, variable in structure.variables.items()}
    stream = axes["stage2_block1_conv2/kernel"][3]
    assert stream == axes["stage2_block1_shortcut/kernel"][3] == axes["stage2_block2_conv2_bn/gamma"][0]
    assert axes["stem/kernel"] == (None, None, None, "stem")
    assert axes["logits/kernel"] == (axes["stage4_block2_conv2/kernel"][3], None)
    assert axes["logits/bias"] == (None,)


def test_a_depthwise_layer_and_a_linear_bottleneck_pass_their_channels_on() -> None:
    structure = ch.structure_of(with_head(build(parse_spec("mobilenetv2:0.35/32")), 3))
    axes = {path: variable.axes for path, variable in structure.variables.items()}
    assert axes["block_1_depthwise/kernel"] == (None, None, "block_1_expand", None)
    assert axes["block_2_project/kernel"][3] == axes["block_1_project/kernel"][3] == "block_1_project"
    assert axes["Conv_1_bn/moving_mean"] == ("Conv_1",)


def test_a_fixed_transform_before_the_stem_stays_whole() -> None:
    structure = ch.structure_of(with_head(build(parse_spec("separable:0.25/16+haar")), 3))
    assert structure.groups[0].name == "stem"
    assert structure.variables["haar/kernel"].axes == (None, None, None, None)
    assert structure.variables["stem/kernel"].axes == (None, None, None, "stem")
    assert "stem/kernel" not in ch.kernel_sparsity(structure, ch.own_slots(_all(structure)))


def _all(structure: ch.Structure) -> ch.Masks:
    return {group.name: np.ones(group.width, bool) for group in structure.groups}


def test_a_layer_that_mixes_places_keeps_what_it_touches_whole() -> None:
    import keras

    image = keras.Input((8, 8, 3), name="image")
    maps = keras.layers.Conv2D(8, 3, name="first")(image)
    maps = keras.layers.Conv2D(8, 3, name="second")(maps)
    out = keras.layers.Dense(2, name="logits")(keras.layers.Flatten(name="flat")(maps))
    structure = ch.structure_of(keras.Model(image, out))
    assert [group.name for group in structure.groups] == ["first"]
    assert structure.variables["second/kernel"].axes == (None, None, "first", None)


def test_what_zero_does_not_leave_zero_stays_whole() -> None:
    import keras

    image = keras.Input((8, 8, 3), name="image")
    maps = keras.layers.Conv2D(8, 3, activation="sigmoid", name="first")(image)
    maps = keras.layers.Conv2D(8, 3, activation="relu", name="second")(maps)
    feature = keras.layers.GlobalAveragePooling2D(name="feature")(maps)
    structure = ch.structure_of(keras.Model(image, keras.layers.Dense(2, name="logits")(feature)))
    assert [group.name for group in structure.groups] == ["second"]


@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.9, 0.95])
def test_live_channels_come_in_eights_and_weights_at_the_sparsity_asked(case: Case, sparsity: float) -> None:
    structure = case.structure
    counts = ch.live_counts(structure, sparsity)
    assert counts == ch.live_counts(copy.deepcopy(structure), sparsity)
    for group in structure.groups:
        assert counts[group.name] == group.width or counts[group.name] % 8 == 0
        assert counts[group.name] >= min(8, group.width)
    slots = ch.first_slots(masks_of(structure, counts), counts)
    assert sparsity <= ch.weight_sparsity(structure, slots) + 1e-9
    # The networks here are narrow: one step of one group is up to a hundredth of the weights.
    assert ch.weight_sparsity(structure, slots) < sparsity + 0.02
    assert len(ch.kernel_sparsity(structure, slots)) >= 6


def test_nothing_is_pruned_at_a_sparsity_of_zero(case: Case) -> None:
    assert ch.live_counts(case.structure, 0) == {g.name: g.width for g in case.structure.groups}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_that_leaves_no_network_is_refused(sparsity: float) -> None:
    with pytest.raises(ConfigError, match="leaves no network"):
        ch.live_counts(_small()[0], sparsity)


def test_a_network_too_narrow_for_the_sparsity_says_how_far_it_goes() -> None:
    with pytest.raises(ConfigError, match=r"this network goes to 0\.9[0-9]+; take a wider one"):
        ch.live_counts(_small()[0], 0.995)


def test_more_live_channels_than_slots_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 live channels, 2 slots"):
        ch.first_slots({"stem": np.array([True, True, True, False])}, {"stem": 2})


def test_importance_is_summed_over_every_kernel_that_touches_a_channel() -> None:
    structure, full = _small()
    masks = {g.name: np.arange(g.width) < g.width - 1 for g in structure.groups}
    slots = ch.first_slots(masks, {g.name: g.width for g in structure.groups})
    ones = {path: np.ones_like(values) for path, values in ch.gather(full, structure, slots).items()}
    worth = ch.channel_importance(structure, slots, ones)
    inner = worth["stage1_block1_conv1"]
    assert inner[-1] == 0 and np.all(inner[:-1] == 9 * 8 + 9 * 8)  # written by one 3x3 kernel, read by one
