"""The trained half of the head: a block-sparse MLP whose output is added to the calibrated base logits.

    r(x) = relu((x - c) (W1 . M) + b) W2,       logits = base / T + gate * r(x)

The mask M is made of blocks: G groups of hidden units, each fed by the same number of blocks of neighbouring
inputs, so that a step is two batched matrix products on compact arrays (masked-dense saves nothing; see
docs/adr/0003-block-structure.md). W2 starts at zero, hence so does r. Masks follow `masking` (TDM, DGM);
training is SGD with momentum and L2 (Kaeding et al. 2016); answers come from an exponential moving average
of the weights.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning import masking

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ResidualConfig:
    """How the residual is built and trained."""

    hidden: int = 256  # H, units; the prototype's, more did not help
    groups: int = 4  # G, hidden units of a group share their inputs; H is a multiple
    block: int = 4  # neighbouring inputs of a block; halved until D is a multiple
    density: float = 0.10  # share of blocks that live
    rate: float = 0.01  # SGD step size
    momentum: float = 0.9  # Kaeding et al. 2016
    decay: float = 0.005  # L2 of both weight matrices
    average: float = 0.995  # of the moving average; shorter in the first steps
    alpha: float = 0.5  # weight of the current task in CWI and CGI (SparCL)
    beta: float = 1.0  # weight of the memory in CWI and CGI (SparCL)
    inter: float = 0.01  # p_inter, share of blocks grown when classes arrive
    intra: float = 0.005  # p_intra, share of blocks replaced at each stage
    moving: float = 0.8  # share of live blocks that move (DGM)
    stage_steps: int = 64  # delta_k, SGD steps between two adjustments


class Weights(NamedTuple):
    """The numbers that are trained.

    Attributes:
        first: (G, F, H/G) of the live blocks; F = live inputs of a group.
        bias: (H,).
        second: (H, C).
    """

    first: Floats
    bias: Floats
    second: Floats


class Residual(NamedTuple):
    """State of the residual; arrays are never changed in place.

    Attributes:
        blocks: (G, k) live input blocks of each group; the first `moving` of a row are those that move (DGM).
        moving: blocks of each group that move.
        weights: as trained.
        velocity: momentum, same shapes as `weights`.
        average: moving average of `weights`; this is what answers.
        centre: (D,) subtracted from inputs.
        extra: blocks of each group above the normal density (TDM, between expand and shrink).
        step: SGD steps so far.
    """

    blocks: NDArray[np.int32]
    moving: int
    weights: Weights
    velocity: Weights
    average: Weights
    centre: Floats
    extra: int
    step: int


class Gradients(NamedTuple):
    """Gradients of one batch and what came of it: loss, and which samples were misclassified (B,)."""

    weights: Weights
    loss: float
    wrong: NDArray[np.bool_]


def block_size(size: int, config: ResidualConfig) -> int:
    """Return inputs per block: `config.block`, halved until D = `size` is a multiple."""
    block = config.block
    while size % block:
        block //= 2
    return block


def create(size: int, config: ResidualConfig, seed: int) -> Residual:
    """Return a residual for D = `size` inputs and no class, with a random mask of the configured density."""
    rng = np.random.default_rng((seed, 0))
    total = size // block_size(size, config)
    live = masking.live_count(total, config.density)
    blocks = np.stack([np.flatnonzero(masking.random_mask(total, live, rng)) for _ in range(config.groups)])
    inputs = live * block_size(size, config)
    shape = (config.groups, inputs, config.hidden // config.groups)
    first = rng.standard_normal(shape).astype(np.float32) * np.float32(
        np.sqrt(2.0 / inputs)
    )  # He et al. 2015
    weights = Weights(first, np.zeros(config.hidden, np.float32), np.zeros((config.hidden, 0), np.float32))
    return Residual(
        blocks.astype(np.int32),
        live,
        weights,
        _zeros_like(weights),
        weights,
        np.zeros(size, np.float32),
        0,
        0,
    )


def add_class(state: Residual) -> Residual:
    """Return the residual with one more output, which says nothing yet."""
    return _map_second(state, lambda second: np.pad(second, ((0, 0), (0, 1))))


def drop_class(state: Residual, number: int) -> Residual:
    """Return the residual without output `number`."""
    return _map_second(state, lambda second: np.delete(second, number, axis=1))


def recentre(state: Residual, centre: Floats) -> Residual:
    """Return the residual with another input centre and the same function: the bias takes it up."""
    shift = (centre - state.centre)[_columns(state)]  # (G, F)

    def moved(weights: Weights) -> Weights:
        return weights._replace(bias=weights.bias + np.einsum("gf,gfh->gh", shift, weights.first).reshape(-1))

    return state._replace(centre=centre, weights=moved(state.weights), average=moved(state.average))


def forward(state: Residual, inputs: Floats) -> Floats:
    """Return the (B, C) answers of the averaged weights to (B, D) inputs."""
    return _hidden(state, state.average, _gather(state, inputs)) @ state.average.second


def density(state: Residual) -> float:
    """Return the share of first-layer weights that live."""
    return state.weights.first.shape[1] / len(state.centre)


def step(
    state: Residual,
    inputs: Floats,
    offsets: Floats,
    classes: NDArray,
    config: ResidualConfig,
    allowed: Floats | None = None,
    targets: Floats | None = None,
) -> tuple[Residual, Gradients]:
    """Take one SGD step on the cross-entropy of offsets + r(inputs); blocks that do not move are left alone.

    Args:
        state: before.
        inputs: (B, D).
        offsets: (B, C) base logits that have not seen the samples.
        classes: (B,) class of each.
        config: rates.
        allowed: (B, C) added to the logits: 0, or very negative for classes outside the current task (L~).
        targets: (B, C) probabilities to come near to; by default the classes alone.
    """
    found = gradients(state, inputs, offsets, classes, state.moving, allowed, targets)
    rate, momentum, decay = (np.float32(v) for v in (config.rate, config.momentum, config.decay))
    rows = found.weights.first.shape[1]
    old, speed = state.weights, state.velocity
    slope = decay * old.first[:, :rows]
    slope += found.weights.first
    slope *= rate
    first, speed_first = old.first.copy(), speed.first.copy()
    moving = speed_first[:, :rows]
    moving *= momentum
    moving -= slope
    first[:, :rows] += moving
    speed_bias = momentum * speed.bias - rate * found.weights.bias
    speed_second = momentum * speed.second - rate * (found.weights.second + decay * old.second)
    weights = Weights(first, old.bias + speed_bias, old.second + speed_second)
    keep = np.float32(min(config.average, (1 + state.step) / (10 + state.step)))
    average = Weights(*(_nearer(*pair, 1 - keep) for pair in zip(state.average, weights, strict=True)))
    return (
        state._replace(
            weights=weights,
            velocity=Weights(speed_first, speed_bias, speed_second),
            average=average,
            step=state.step + 1,
        ),
        found,
    )


def gradients(
    state: Residual,
    inputs: Floats,
    offsets: Floats,
    classes: NDArray,
    moving: int,
    allowed: Floats | None = None,
    targets: Floats | None = None,
) -> Gradients:
    """Return the gradients of the mean cross-entropy, for the first `moving` blocks of each group only.

    The loss that is told is that of the classes, whatever the targets.
    """
    rows = np.arange(len(classes))
    gathered = _gather(state, inputs)
    hidden = _hidden(state, state.weights, gathered)
    logits = hidden @ state.weights.second
    logits += offsets
    wrong = logits.argmax(axis=1) != classes
    if allowed is not None:
        logits += allowed
    logits -= logits.max(axis=1, keepdims=True)
    errors = np.exp(logits)
    total = errors.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - logits[rows, classes]))
    errors /= total
    if targets is None:
        errors[rows, classes] -= 1.0
    else:
        errors -= targets
    errors /= np.float32(len(classes))
    back = errors @ state.weights.second.T
    back *= hidden > 0
    groups = len(state.blocks)
    per_group = back.reshape(len(classes), groups, -1).transpose(1, 0, 2)
    inputs_moving = moving * (gathered.shape[2] // state.blocks.shape[1])
    first = gathered[:, :, :inputs_moving].transpose(0, 2, 1) @ per_group
    return Gradients(Weights(first, back.sum(axis=0), hidden.T @ errors), loss, wrong)


def adjust(
    state: Residual,
    new_gradient: Floats,
    memory_gradient: Floats,
    config: ResidualConfig,
    rng: np.random.Generator,
    expand: bool = False,
) -> Residual:
    """Adjust the mask at the end of a stage: TDM shrinks and regrows blocks, DGM picks those that move next.

    Args:
        state: before.
        new_gradient: (G, F, H/G) of L~ on the update set, all live blocks.
        memory_gradient: (G, F, H/G) of the loss on the memory, all live blocks.
        config: shares.
        rng: draws the blocks that grow.
        expand: classes have arrived: grow by p_inter first; the next adjustment takes as many away again.
    """
    total = len(state.centre) // block_size(len(state.centre), config)
    inter = min(masking.moved_count(total, config.inter), total - state.blocks.shape[1])
    intra = min(masking.moved_count(total, config.intra), state.blocks.shape[1] - state.extra - 1)
    weight_scores = _block_scores(
        state,
        masking.weight_importance(
            state.weights.first, new_gradient, memory_gradient, config.alpha, config.beta
        ),
    )
    gradient_scores = _block_scores(
        state, masking.gradient_importance(new_gradient, memory_gradient, config.alpha, config.beta)
    )
    removed, added = state.extra + intra, intra
    extra = 0
    if expand and inter > 0:
        removed, added, extra = 0, inter, state.extra + inter
    elif removed + intra <= 0:
        return state
    chosen = []
    for group, live in enumerate(state.blocks):
        mask = np.zeros(total, dtype=bool)
        mask[live] = True
        scores = np.zeros(total)
        scores[live] = weight_scores[group]
        if removed:
            mask = masking.shrink(mask, scores, removed)
        grown = masking.grow(mask, added, rng) if added else mask
        scores[live] = gradient_scores[group]
        scores[grown & ~mask] = np.inf  # a block that has just grown has nothing to protect
        order = np.flatnonzero(grown)
        chosen.append(order[np.argsort(-scores[order], kind="stable")])
    blocks = np.stack(chosen).astype(np.int32)
    moving = masking.live_count(blocks.shape[1], config.moving)
    return _rebuild(state, blocks)._replace(moving=moving, extra=extra)


def _rebuild(state: Residual, blocks: NDArray[np.int32]) -> Residual:
    """Return the state on other live blocks: what stays keeps its numbers, what is new starts at zero."""
    block = state.weights.first.shape[1] // state.blocks.shape[1]
    groups, _, units = state.weights.first.shape
    total = len(state.centre) // block

    def carried(first: Floats) -> Floats:
        full = np.zeros((groups, total, block, units), np.float32)
        rows = np.arange(groups)[:, None]
        full[rows, state.blocks] = first.reshape(groups, -1, block, units)
        return full[rows, blocks].reshape(groups, -1, units)

    return state._replace(
        blocks=blocks,
        weights=state.weights._replace(first=carried(state.weights.first)),
        velocity=state.velocity._replace(first=carried(state.velocity.first)),
        average=state.average._replace(first=carried(state.average.first)),
    )


def _block_scores(state: Residual, importance: Floats) -> Floats:
    """Return (G, k): importance summed over each live block."""
    groups, _, units = importance.shape
    return importance.reshape(groups, state.blocks.shape[1], -1, units).sum(axis=(2, 3))


def _columns(state: Residual) -> NDArray[np.intp]:
    """Return (G, F) indices of the live inputs."""
    block = state.weights.first.shape[1] // state.blocks.shape[1]
    return (state.blocks[:, :, None] * block + np.arange(block)).reshape(len(state.blocks), -1)


def _gather(state: Residual, inputs: Floats) -> Floats:
    """Return (G, B, F): the centred live inputs of each group."""
    groups, inputs_of_group = state.weights.first.shape[:2]
    block = inputs_of_group // state.blocks.shape[1]
    # (B, G, k, block), whole blocks at a time; an index in brackets is eight times slower than `take`.
    taken = inputs.reshape(len(inputs), -1, block).take(state.blocks, axis=1)
    taken -= state.centre.reshape(-1, block).take(state.blocks, axis=0)
    return taken.reshape(len(inputs), groups, inputs_of_group).transpose(1, 0, 2)


def _hidden(state: Residual, weights: Weights, gathered: Floats) -> Floats:
    """Return (B, H): relu of the first layer."""
    summed = (gathered @ weights.first).transpose(1, 0, 2).reshape(gathered.shape[1], -1)
    summed += weights.bias
    return np.maximum(summed, 0.0, out=summed)


def _nearer(average: Floats, weights: Floats, share: np.float32) -> Floats:
    """Return the average a share of the way towards the weights."""
    found = weights - average
    found *= share
    found += average
    return found


def _zeros_like(weights: Weights) -> Weights:
    return Weights(*(np.zeros_like(array) for array in weights))


def _map_second(state: Residual, change) -> Residual:  # type: ignore[no-untyped-def]
    def changed(weights: Weights) -> Weights:
        return weights._replace(second=change(weights.second))

    return state._replace(
        weights=changed(state.weights), velocity=changed(state.velocity), average=changed(state.average)
    )
