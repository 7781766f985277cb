"""The residual learns inside its mask: right gradients, exact density, and nothing else moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.learning import masking
from edge_cl.learning import residual as mlp
from edge_cl.learning.residual import ResidualConfig, Weights

SIZE, CLASSES, BATCH = 32, 3, 24
CONFIG = ResidualConfig(hidden=16, groups=4, density=0.375, rate=0.05)
SEEDS = st.integers(0, 2**32)


def created(config=CONFIG, classes=CLASSES, size=SIZE, seed=0):
    state = mlp.create(size, config, seed)
    for _ in range(classes):
        state = mlp.add_class(state)
    return state


def batch(seed=0, size=SIZE, count=BATCH, classes=CLASSES):
    """Return inputs (B, D), offsets (B, C), classes (B,) with something to learn."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(classes, size))
    numbers = rng.integers(classes, size=count)
    inputs = centres[numbers] + 0.5 * rng.normal(size=(count, size))
    return inputs.astype(np.float32), rng.normal(size=(count, classes)).astype(np.float32), numbers


def trained(steps=20, config=CONFIG, state=None, seed=0):
    state = created(config) if state is None else state
    for step in range(steps):
        state, _ = mlp.step(state, *batch((seed, step), classes=state.weights.second.shape[1]), config)
    return state


def dense(state, weights):
    """Return the first layer as a (D, H) matrix, zero where no block lives."""
    groups, _, units = weights.first.shape
    block = weights.first.shape[1] // state.blocks.shape[1]
    full = np.zeros((len(state.centre), groups * units), weights.first.dtype)
    for group, live in enumerate(state.blocks):
        for place, number in enumerate(live):
            rows = slice(number * block, (number + 1) * block)
            columns = slice(group * units, (group + 1) * units)
            full[rows, columns] = weights.first[group, place * block : (place + 1) * block]
    return full


def written_out(state, weights, inputs):
    """Return r(x) by plain dense algebra."""
    hidden = np.maximum((inputs - state.centre) @ dense(state, weights) + weights.bias, 0)
    return hidden @ weights.second


def loss_of(state, inputs, offsets, numbers):
    logits = offsets + written_out(state, state.weights, inputs)
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(numbers)), numbers])


def in_double(state):
    parts = {p: Weights(*(a.astype(float) for a in getattr(state, p))) for p in ("weights", "average")}
    return state._replace(centre=state.centre.astype(float), **parts)


# the function


def test_a_new_residual_has_the_density_asked_for_and_says_nothing():
    state = created()
    blocks = SIZE // mlp.block_size(SIZE, CONFIG)
    assert mlp.density(state) == masking.live_count(blocks, CONFIG.density) / blocks
    assert state.moving == state.blocks.shape[1]
    assert not mlp.forward(state, batch()[0]).any()


def test_the_answers_are_those_of_the_written_out_averaged_network():
    state = mlp.recentre(trained(), np.linspace(-1, 1, SIZE, dtype=np.float32))
    inputs = batch(9)[0]
    np.testing.assert_allclose(
        mlp.forward(state, inputs), written_out(state, state.average, inputs), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [32, 30, 31, 34])
def test_blocks_shrink_until_the_features_are_a_whole_number_of_them(size):
    block = mlp.block_size(size, CONFIG)
    assert size % block == 0
    assert block == max(b for b in (1, 2, 4) if size % b == 0)
    state = created(size=size)
    assert mlp.forward(state, batch(size=size)[0]).shape == (BATCH, CLASSES)


def test_the_seed_decides_the_residual():
    first, again, other = created(), created(), created(seed=1)
    assert np.array_equal(first.weights.first, again.weights.first)
    assert np.array_equal(first.blocks, again.blocks)
    assert not np.array_equal(first.weights.first, other.weights.first)


def test_moving_the_centre_keeps_the_function_trained_and_averaged():
    state, inputs = trained(), batch(9)[0]
    moved = mlp.recentre(state, np.random.default_rng(0).normal(size=SIZE).astype(np.float32))
    np.testing.assert_allclose(mlp.forward(moved, inputs), mlp.forward(state, inputs), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        written_out(moved, moved.weights, inputs),
        written_out(state, state.weights, inputs),
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_new_class_says_nothing_and_changes_no_other_answer():
    state, inputs = trained(), batch(9)[0]
    grown = mlp.add_class(state)
    assert not mlp.forward(grown, inputs)[:, CLASSES].any()
    np.testing.assert_allclose(mlp.forward(grown, inputs)[:, :CLASSES], mlp.forward(state, inputs), atol=1e-6)


@pytest.mark.parametrize("number", range(CLASSES))
def test_dropping_a_class_takes_its_output_and_leaves_the_others(number):
    state, inputs = trained(), batch(9)[0]
    dropped = mlp.drop_class(state, number)
    expected = np.delete(mlp.forward(state, inputs), number, axis=1)
    np.testing.assert_allclose(mlp.forward(dropped, inputs), expected, atol=1e-6)
    assert dropped.velocity.second.shape == dropped.weights.second.shape == (CONFIG.hidden, CLASSES - 1)
    mlp.step(dropped, *batch(classes=CLASSES - 1), CONFIG)


# gradients


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_every_gradient_agrees_with_finite_differences(seed):
    state = in_double(mlp.recentre(trained(5), np.full(SIZE, 0.1, np.float32)))
    inputs, offsets, numbers = (np.asarray(a, float) for a in batch(seed))
    numbers = numbers.astype(int)
    far = (
        np.abs((inputs - state.centre) @ dense(state, state.weights) + state.weights.bias).min(axis=1) > 1e-3
    )
    inputs, offsets, numbers = inputs[far], offsets[far], numbers[far]
    found = mlp.gradients(state, inputs, offsets, numbers, state.blocks.shape[1])
    assert found.loss == pytest.approx(loss_of(state, inputs, offsets, numbers), rel=1e-12)
    differences = dict.fromkeys(Weights._fields, 0.0)
    for name in Weights._fields:
        values, gradient = getattr(state.weights, name), getattr(found.weights, name)
        assert gradient.shape == values.shape
        for place in np.ndindex(values.shape):
            losses = []
            for shift in (1e-5, -1e-5):
                moved = values.copy()
                moved[place] += shift
                weights = state.weights._replace(**{name: moved})
                losses.append(loss_of(state._replace(weights=weights), inputs, offsets, numbers))
            error = abs((losses[0] - losses[1]) / 2e-5 - gradient[place])
            differences[name] = max(differences[name], error)
    assert max(differences.values()) < 1e-8, differences


def test_single_precision_gradients_agree_with_double():
    state = trained(5)
    single = mlp.gradients(state, *batch(3), state.blocks.shape[1])
    inputs, offsets, numbers = batch(3)
    double = mlp.gradients(
        in_double(state), inputs.astype(float), offsets.astype(float), numbers, state.blocks.shape[1]
    )
    for name in Weights._fields:
        ours = getattr(single.weights, name)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, getattr(double.weights, name), atol=1e-5, err_msg=name)
    assert single.loss == pytest.approx(double.loss, rel=1e-5)


def test_targets_that_are_the_classes_change_nothing_and_a_teacher_pulls_towards_itself():
    state, (inputs, offsets, numbers) = trained(), batch(3)
    sure = np.eye(CLASSES, dtype=np.float32)[numbers]
    plain = mlp.gradients(state, inputs, offsets, numbers, state.moving)
    same = mlp.gradients(state, inputs, offsets, numbers, state.moving, targets=sure)
    for ours, theirs in zip(plain.weights, same.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)
    logits = offsets + mlp._hidden(state, state.weights, mlp._gather(state, inputs)) @ state.weights.second
    answers = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers /= answers.sum(axis=1, keepdims=True)
    still = mlp.gradients(state, inputs, offsets, numbers, state.moving, targets=answers)
    assert max(np.abs(array).max() for array in still.weights) < 1e-6  # it says that already


def test_classes_that_are_not_allowed_get_no_gradient():
    state, (inputs, offsets, numbers) = trained(5), batch(3)
    numbers = numbers % 2
    allowed = np.where(np.arange(CLASSES) == 2, np.float32(-1e4), np.float32(0))
    found = mlp.gradients(state, inputs, offsets, numbers, state.moving, allowed)
    assert not found.weights.second[:, 2].any()
    assert found.weights.second[:, :2].any()


def test_misclassified_samples_are_told_over_all_classes():
    state, (inputs, offsets, numbers) = trained(5), batch(3)
    found = mlp.gradients(state, inputs, offsets, numbers, state.moving)
    answers = (offsets + written_out(state, state.weights, inputs)).argmax(axis=1)
    assert np.array_equal(found.wrong, answers != numbers)


def test_only_moving_blocks_have_gradients_and_those_are_the_full_ones():
    state = trained(5)
    full = mlp.gradients(state, *batch(3), state.blocks.shape[1]).weights
    part = mlp.gradients(state, *batch(3), 2).weights
    rows = 2 * mlp.block_size(SIZE, CONFIG)
    assert part.first.shape[1] == rows
    np.testing.assert_allclose(part.first, full.first[:, :rows], atol=1e-6)


# steps


def test_a_step_is_momentum_with_l2_and_an_average_that_lags():
    state = trained(5)
    found = mlp.gradients(state, *batch(3), state.moving).weights
    after, _ = mlp.step(state, *batch(3), CONFIG)
    for name in Weights._fields:
        old, speed = getattr(state.weights, name), getattr(state.velocity, name)
        decay = 0.0 if name == "bias" else CONFIG.decay
        expected = CONFIG.momentum * speed - CONFIG.rate * (getattr(found, name) + decay * old)
        np.testing.assert_allclose(getattr(after.velocity, name), expected, atol=1e-6)
        new = getattr(after.weights, name)
        np.testing.assert_allclose(new, old + expected, atol=1e-6)
        keep = min(CONFIG.average, (1 + state.step) / (10 + state.step))
        lagging = keep * getattr(state.average, name) + (1 - keep) * new
        np.testing.assert_allclose(getattr(after.average, name), lagging, atol=1e-6)
    assert after.step == state.step + 1


def test_the_average_lags_and_then_converges_to_resting_weights():
    state = trained(30)
    still = ResidualConfig(hidden=16, density=0.375, rate=0.0, momentum=0.0, average=0.9)
    apart = [np.abs(state.weights.second - state.average.second).max()]
    for step in range(200):
        state, _ = mlp.step(state, *batch(step), still)
        apart.append(np.abs(state.weights.second - state.average.second).max())
    assert apart[0] > 1e-3
    assert all(later <= earlier for earlier, later in zip(apart, apart[1:], strict=False))
    assert apart[-1] < 1e-6


def test_steps_change_no_array_in_place():
    state = trained(3)
    arrays = [state.blocks, state.centre, *state.weights, *state.velocity, *state.average]
    before = [array.copy() for array in arrays]
    inputs = batch(3)
    kept = [array.copy() for array in inputs]
    mlp.step(state, *inputs, CONFIG)
    adjusted(state)
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(kept, inputs, strict=True))


def test_a_toy_problem_is_learned():
    state = created()
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, SIZE)).astype(np.float32)
    live = [int(b) * mlp.block_size(SIZE, CONFIG) for b in state.blocks[0, :2]]
    numbers = (inputs[:, live[0]] > 0).astype(int) + (inputs[:, live[1]] > 0.5)
    nothing, first = np.zeros((300, CLASSES), np.float32), None
    for _ in range(600):
        state, found = mlp.step(state, inputs, nothing, numbers, CONFIG)
        first = found.loss if first is None else first
    assert first == pytest.approx(np.log(CLASSES), rel=1e-6)
    assert found.loss < 0.5 * first
    assert (mlp.forward(state, inputs).argmax(axis=1) == numbers).mean() > 0.85


# masks


def adjusted(state, config=CONFIG, seed=0, expand=False):
    everything = state.blocks.shape[1]
    new, memory = (mlp.gradients(state, *batch((seed, i)), everything).weights.first for i in (50, 51))
    return mlp.adjust(state, new, memory, config, np.random.default_rng(seed), expand)


def moved_blocks(state, config):
    """Return p_inter and p_intra in blocks."""
    total = len(state.centre) // mlp.block_size(len(state.centre), config)
    return masking.moved_count(total, config.inter), masking.moved_count(total, config.intra)


def is_whole(state):
    """Say whether each group's live blocks are distinct and its arrays hold exactly those."""
    total = len(state.centre) // mlp.block_size(len(state.centre), CONFIG)
    distinct = all(len(set(row.tolist())) == len(row) for row in state.blocks)
    inside = ((state.blocks >= 0) & (state.blocks < total)).all()
    parts = (state.weights, state.velocity, state.average)
    rows = {part.first.shape[1] for part in parts}
    return distinct and inside and rows == {state.blocks.shape[1] * mlp.block_size(SIZE, CONFIG)}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([0.25, 0.375, 0.625, 0.875, 1.0]), SEEDS
)
def test_density_is_exact_after_every_adjustment(expansions, density, seed):
    """s, s - p_inter, s: extra blocks live from an expansion to the next adjustment that is none."""
    config = ResidualConfig(hidden=16, density=density, rate=0.05)
    state = created(config)
    normal, total = state.blocks.shape[1], SIZE // mlp.block_size(SIZE, config)
    inter, _ = moved_blocks(state, config)
    for turn, expand in enumerate(expansions):
        before = state.extra
        state = adjusted(trained(2, config, state, seed), config, seed + turn, expand)
        grown = min(inter, total - normal - before)
        assert state.extra == (before + grown if expand and grown else 0)
        assert state.blocks.shape[1] == normal + state.extra
        assert mlp.density(state) == pytest.approx((normal + state.extra) / total)
        assert state.moving == masking.live_count(normal + state.extra, config.moving)
        assert is_whole(state)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.booleans())
def test_blocks_that_stay_keep_their_numbers_and_new_ones_start_at_zero(seed, expand):
    state = trained(10, seed=seed)
    after = adjusted(state, seed=seed, expand=expand)
    block = mlp.block_size(SIZE, CONFIG)
    units = CONFIG.hidden // CONFIG.groups
    for part in ("weights", "velocity", "average"):
        old, new = dense(state, getattr(state, part)), dense(after, getattr(after, part))
        for group in range(CONFIG.groups):
            columns = slice(group * units, (group + 1) * units)
            were, are = set(state.blocks[group].tolist()), set(after.blocks[group].tolist())
            for number in range(SIZE // block):
                rows = slice(number * block, (number + 1) * block)
                if number in were & are:
                    assert np.array_equal(new[rows, columns], old[rows, columns])
                else:
                    assert not new[rows, columns].any()  # pruned, or just grown


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_pruned_inputs_cannot_be_heard_however_long_is_trained(seed):
    state = trained(10, state=adjusted(trained(10), seed=seed), seed=seed)
    inputs, shouted = batch(3)[0], batch(3)[0]
    block = mlp.block_size(SIZE, CONFIG)
    live = {int(b) for b in state.blocks.reshape(-1)}
    for number in set(range(SIZE // block)) - live:
        shouted[:, number * block : (number + 1) * block] = 1e6
    assert np.array_equal(mlp.forward(state, inputs), mlp.forward(state, shouted))
    assert dense(state, state.weights).astype(bool).sum() <= state.weights.first.size
    for part in ("weights", "velocity", "average"):
        assert not dense(state, getattr(state, part))[
            _dead_rows(state, 0), : CONFIG.hidden // CONFIG.groups
        ].any()


def _dead_rows(state, group):
    block = mlp.block_size(SIZE, CONFIG)
    alive = np.isin(np.arange(SIZE // block), state.blocks[group])
    return np.repeat(~alive, block)


def test_blocks_that_do_not_move_are_left_bit_for_bit():
    state = adjusted(trained(20))
    rows = state.moving * mlp.block_size(SIZE, CONFIG)
    assert state.moving < state.blocks.shape[1]
    after = trained(25, state=state, seed=4)
    assert np.array_equal(after.weights.first[:, rows:], state.weights.first[:, rows:])
    assert np.array_equal(after.velocity.first[:, rows:], state.velocity.first[:, rows:])
    assert not np.array_equal(after.weights.first[:, :rows], state.weights.first[:, :rows])
    assert np.array_equal(after.blocks, state.blocks)


def test_an_adjustment_prunes_the_least_important_blocks_of_equation_1():
    config = ResidualConfig(hidden=16, density=0.5, intra=0.25, alpha=0.5, beta=1.0)
    state = trained(10, config, created(config))
    everything = state.blocks.shape[1]
    new, memory = (mlp.gradients(state, *batch(i), everything).weights.first for i in (50, 51))
    scores = np.abs(state.weights.first) + 0.5 * np.abs(new) + np.abs(memory)
    after = mlp.adjust(state, new, memory, config, np.random.default_rng(0))
    _, intra = moved_blocks(state, config)
    block = mlp.block_size(SIZE, config)
    for group in range(config.groups):
        by_block = scores[group].reshape(everything, -1).sum(axis=1)
        weakest = set(state.blocks[group][np.argsort(by_block)[:intra]].tolist())
        assert set(state.blocks[group].tolist()) - set(after.blocks[group].tolist()) <= weakest
    assert after.weights.first.shape[1] == everything * block


def test_the_blocks_that_move_are_the_fresh_ones_and_those_of_highest_equation_3():
    config = ResidualConfig(hidden=16, density=0.75, intra=0.125, moving=0.5)
    state = trained(10, config, created(config))
    everything = state.blocks.shape[1]
    new, memory = (mlp.gradients(state, *batch(i), everything).weights.first for i in (50, 51))
    scores = config.alpha * np.abs(new) + config.beta * np.abs(memory)
    after = mlp.adjust(state, new, memory, config, np.random.default_rng(3))
    for group in range(config.groups):
        by_block = dict(
            zip(state.blocks[group].tolist(), scores[group].reshape(everything, -1).sum(axis=1), strict=True)
        )
        order = after.blocks[group].tolist()
        fresh = [b for b in order if b not in by_block]
        assert order[: len(fresh)] == fresh
        kept = [by_block[b] for b in order if b in by_block and b not in _regrown(state, after, group)]
        assert kept == sorted(kept, reverse=True)


def _regrown(state, after, group):
    """Return blocks that were pruned and drawn again at once: they stand among the fresh."""
    order = after.blocks[group].tolist()
    return {order[0]} & set(state.blocks[group].tolist())


def test_an_adjustment_can_be_repeated():
    first, second = adjusted(trained(10), seed=3), adjusted(trained(10), seed=3)
    assert np.array_equal(first.blocks, second.blocks)
    assert np.array_equal(first.weights.first, second.weights.first)
