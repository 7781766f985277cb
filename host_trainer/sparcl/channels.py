"""Decides which channels of a whole network live and die together, and keeps the living in small kernels.

Channels that are added to one another form one group, so the residual stream of a stage is one; so do those
that normalisation, ReLU and depthwise layers pass on. What the image, the classes or an unknown layer fix is
in no group. A compact network has a constant number of slots a group: masks move, shapes do not, and nothing
is traced anew. The masks themselves move by the rules of `edge_cl.learning.masking`.
"""

from collections.abc import Callable, Iterable, Mapping
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from host_trainer.compression.channels import CHANNELWISE, CONVOLUTION, DEPTHWISE, STEP
from host_trainer.quantisation.graph import Wiring, copied, redrawn, wiring
from host_trainer.training.normalisation import NORM

DENSE = "Dense"
JOINING = (*CHANNELWISE, "Add", "GlobalAveragePooling2D", "MaxPooling2D", "AveragePooling2D")
SIZES = {CONVOLUTION: "filters", DENSE: "units"}  # what a layer that writes channels calls their number
ZERO_STAYS_ZERO = ("linear", "relu", "relu6", "silu", "gelu", "tanh")  # activations a dead channel may pass
WHOLE = ""  # the set of what is in no group

KERNEL, DEPTHWISE_KERNEL, SCALE, VARIANCE = "kernel", "depthwise", "gamma", "moving_variance"
KERNELS = (KERNEL, DEPTHWISE_KERNEL)
DEAD = {VARIANCE: 1.0}  # what a variable holds where nothing lives; zero otherwise
FRESH = {VARIANCE: 1.0, SCALE: 1.0}  # and where a channel begins to live; kernels are drawn

Values = dict[str, NDArray]  # by Keras path
Masks = dict[str, NDArray[np.bool_]]


class Group(NamedTuple):
    """Channels that live and die together.

    Attributes:
        name: of the first layer that writes them.
        width: how many there are in the full network, W.
    """

    name: str
    width: int


class Variable(NamedTuple):
    """Where a variable of the full network lies.

    Attributes:
        shape: in the full network.
        axes: for each axis the group it belongs to; None for whole.
        kind: KERNEL or DEPTHWISE_KERNEL, or what Keras calls the variable: gamma, bias, ...
        trainable: gets gradients.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    kind: str
    trainable: bool


class Structure(NamedTuple):
    """Groups of a network in its order, and its variables by path."""

    groups: tuple[Group, ...]
    variables: dict[str, Variable]


class Slots(NamedTuple):
    """Which full-width channel each slot of a compact network holds: {group: (S,)}; -1 is a spare slot."""

    index: dict[str, NDArray[np.intp]]  # type: ignore[assignment]  # a tuple's own `index` goes unused


def structure_of(model: Any) -> Structure:
    """Return the groups of a functional network and where its variables lie.

    Raises:
        ModelError: no functional network, or one that uses a layer twice.
    """
    wires, layers = wiring(model), {layer.name: layer for layer in model.layers}
    group_of = _groups_of(wires, layers)
    trained = {variable.path for variable in model.trainable_variables}
    variables: dict[str, Variable] = {}
    widths: dict[str, int] = {}
    for name, sources in wires.sources.items():
        given = group_of[name]
        taken = group_of[sources[0]] if sources else None
        if given is not None and type(layers[name]).__name__ in SIZES:
            widths.setdefault(given, int(layers[name].output.shape[-1]))
        for variable in layers[name].variables:
            variables[variable.path] = _placed(layers[name], variable, taken, given, variable.path in trained)
    groups = tuple(Group(name, widths[name]) for name in wires.sources if name in widths)
    return Structure(groups, variables)


def live_counts(structure: Structure, sparsity: float, step: int = STEP) -> dict[str, int]:
    """Return how many channels of each group live at a sparsity of the convolutions' weights.

    A kernel between two groups that keep a share r of their channels keeps r^2 of its weights, so each group
    gets sqrt(1 - sparsity) of its channels, as a multiple of `step` (kernels like eights), at least one step
    or all of a narrower group. Rounded down everywhere first; then up, the group with the smallest share
    first, wherever the density of all prunable weights together stays at most 1 - sparsity.

    Raises:
        ConfigError: a sparsity outside [0, 1), no groups, or narrower than the steps allow.
    """
    if not 0 <= sparsity < 1 or step < 1:
        raise ConfigError(
            f"a sparsity of {sparsity:g} in steps of {step} leaves no network: give 0 to below 1"
        )
    if not structure.groups or not _prunable(structure):
        raise ConfigError("this network has no channels that could be masked")
    widths = {group.name: group.width for group in structure.groups}
    budget = (1 - sparsity) * (1 + 1e-9)
    least, counts, most = _steps(widths, sqrt(1 - sparsity), step)

    def kept(name: str) -> float:
        return counts[name] / widths[name]

    while _density(structure, counts) > budget:  # groups of one step weigh more than their share
        lower = [name for name in counts if counts[name] > least[name]]
        if not lower:
            raise ConfigError(
                f"a sparsity of {sparsity:g} is too much for channels in steps of {step}: this network goes "
                f"to {1 - _density(structure, counts):.3f}; take a wider one"
            )
        widest = max(lower, key=kept)
        counts[widest] = max(least[widest], _down(counts[widest] - 1, widths[widest], step))
    while raised := [name for name in counts if _fits(structure, counts, name, most[name], budget)]:
        narrowest = min(raised, key=kept)
        counts[narrowest] = most[narrowest]
    return counts


def first_slots(masks: Mapping[str, NDArray[np.bool_]], slots_per_group: Mapping[str, int]) -> Slots:
    """Return slots in which the live channels of each mask (W,) stand in rising order, the spare ones last.

    Raises:
        ValueError: more live channels than slots.
    """
    none = {name: np.full(count, -1, np.intp) for name, count in slots_per_group.items()}
    return _reslotted(Slots(none), masks)


def own_slots(masks: Mapping[str, NDArray[np.bool_]]) -> Slots:
    """Return slots of the masked-dense network, which a compact one equals: each channel in its own."""
    return Slots({name: np.where(mask, np.arange(mask.size), -1) for name, mask in masks.items()})


def live_masks(structure: Structure, slots: Slots) -> Masks:
    """Return {group: (W,)}: which channels have a slot."""
    masks = {group.name: np.zeros(group.width, bool) for group in structure.groups}
    for name, index in slots.index.items():
        masks[name][index[index >= 0]] = True
    return masks


def compact(model: Any, slots_per_group: Mapping[str, int]) -> Any:
    """Return a network of the same graph and layer names with so many channels a group.

    Its weights are Keras' own random ones: give it those of `gather`.
    """
    structure = structure_of(model)
    writes = {
        path.rpartition("/")[0]: variable.axes[-1]
        for path, variable in structure.variables.items()
        if variable.kind == KERNEL and variable.axes[-1] is not None
    }

    def make(layer: Any) -> Any:
        if layer.name not in writes:
            return copied(layer)
        size = {SIZES[type(layer).__name__]: int(slots_per_group[writes[layer.name]])}
        return type(layer).from_config({**layer.get_config(), **size})

    return redrawn(model, make, lambda layer, *given, **options: layer(*given, **options))


def gather(full: Mapping[str, NDArray], structure: Structure, slots: Slots) -> Values:
    """Return the compact network's variables; a spare slot holds zeros, and a variance of one."""
    return {path: _gathered(values, structure.variables[path], slots) for path, values in full.items()}


def scatter(small: Mapping[str, NDArray], structure: Structure, slots: Slots) -> Values:
    """Return full-width variables; a channel without a slot holds zeros, and a variance of one."""
    return {path: _scattered(values, structure.variables[path], slots) for path, values in small.items()}


def weight_masks(structure: Structure, slots: Slots) -> Masks:
    """Return which entries of each trainable variable may be other than zero, in the compact shapes."""
    occupied = {name: index >= 0 for name, index in slots.index.items()}
    return {
        path: _outer(variable, occupied)
        for path, variable in structure.variables.items()
        if variable.trainable
    }


def survivor_masks(structure: Structure, old: Slots, new: Slots) -> Masks:
    """Return which entries of each variable belong to the same channels before and after masks moved.

    Also what an optimizer's moments keep: the others begin at zero.
    """
    same = {name: (new.index[name] == index) & (index >= 0) for name, index in old.index.items()}
    return {path: _outer(variable, same) for path, variable in structure.variables.items()}


def channel_importance(
    structure: Structure, slots: Slots, scores: Mapping[str, NDArray]
) -> dict[str, NDArray[np.float64]]:
    """Return {group: (W,)}: the scores of all weights in kernels that write, pass or read a channel, summed.

    Args:
        structure: of the full network.
        slots: where its channels lie.
        scores: of weights in compact shapes, by path, such as `masking.weight_importance`; kernels count,
            other variables do not. A dead channel's importance is zero.
    """
    worth = {group.name: np.zeros(group.width) for group in structure.groups}
    for path, values in scores.items():
        variable = structure.variables[path]
        if variable.kind not in KERNELS:
            continue
        for axis, name in enumerate(variable.axes):
            if name is not None:
                others = tuple(other for other in range(values.ndim) if other != axis)
                index = slots.index[name]
                live = index >= 0
                worth[name][index[live]] += values.sum(axis=others, dtype=np.float64)[live]
    return worth


def rearrange(
    small: Mapping[str, NDArray],
    structure: Structure,
    old_slots: Slots,
    live: Mapping[str, NDArray[np.bool_]],
    rng: np.random.Generator,
) -> tuple[Values, Slots]:
    """Return compact variables and slots after masks moved to `live` {group: (W,)}; shapes stay.

    Survivors keep their slots and weights. A channel that begins to live changes no answer: kernels that
    write it are drawn (He et al. 2015, fan-in over the live inputs), its normalisation is the identity, and
    kernels that read it, as far as they write old channels, start at zero. Of one that goes nothing remains.
    What is drawn depends on the generator and the channels, not on the values or the slots: averages of the
    weights moved with the same seed get the same new channels.

    Raises:
        ValueError: more live channels than slots.
    """
    new = _reslotted(old_slots, live)
    kept = survivor_masks(structure, old_slots, new)
    fresh = {
        name: index[(index != old_slots.index[name]) & (index >= 0)] for name, index in new.index.items()
    }
    moved = {}
    for path, variable in structure.variables.items():
        dead = np.float32(DEAD.get(variable.kind, 0.0))
        values = np.where(kept[path], small[path], dead).astype(small[path].dtype)
        moved[path] = _begun(values, variable, new, fresh, rng)
    return moved, new


def kernel_densities(structure: Structure, slots: Slots) -> dict[str, float]:
    """Return which fraction of each kernel's full-width weights lives, by path; of every kernel there is."""
    counts = counts_of(slots)
    return {
        path: _live(variable, counts) / prod(variable.shape)
        for path, variable in structure.variables.items()
        if variable.kind in KERNELS
    }


def kernel_sparsity(structure: Structure, slots: Slots) -> dict[str, float]:
    """Return which fraction of each prunable kernel's full-width weights is dead, by path.

    Prunable are the convolutions (no depthwise ones) whose input is in a group: all but the stem.
    """
    densities = kernel_densities(structure, slots)
    return {path: 1 - densities[path] for path in _prunable(structure)}


def weight_sparsity(structure: Structure, slots: Slots) -> float:
    """Return which fraction of all prunable weights together is dead."""
    return 1 - _density(structure, counts_of(slots))


def _groups_of(wires: Wiring, layers: Mapping[str, Any]) -> dict[str, str | None]:
    """Return for each layer the group of the channels it gives."""
    sets = _Sets([WHOLE, *wires.sources])
    for name, sources in wires.sources.items():
        if _starts_group(layers[name]):
            continue
        for other in sources:
            sets.join(name, other)
        if not _passes(layers[name]):
            sets.join(name, WHOLE)
    for name in wires.outputs:
        sets.join(name, WHOLE)
    return {name: sets.first(name) or None for name in wires.sources}


def _starts_group(layer: Any) -> bool:
    if type(layer).__name__ not in SIZES:
        return False
    return (
        layer.trainable
        and getattr(layer, "groups", 1) == 1
        and getattr(layer.activation, "__name__", "") in ZERO_STAYS_ZERO
    )


def _passes(layer: Any) -> bool:
    """Tell whether a layer gives the channels it takes, each for itself, and nothing for nothing."""
    kind = type(layer).__name__
    if kind == DEPTHWISE:
        return layer.depth_multiplier == 1 and layer.activation.__name__ in ZERO_STAYS_ZERO
    if kind == NORM:
        return layer.axis in (-1, 3)
    return kind in JOINING


class _Sets:
    """Disjoint sets of names; each is known by its member that comes first."""

    def __init__(self, names: Iterable[str]) -> None:
        self._order = {name: number for number, name in enumerate(names)}
        self._parent = {name: name for name in self._order}

    def first(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.first(one), self.first(other)), key=self._order.__getitem__)
        self._parent[second] = first


def _placed(layer: Any, variable: Any, taken: str | None, given: str | None, trainable: bool) -> Variable:
    shape = tuple(int(side) for side in variable.shape)
    whole = (None,) * len(shape)
    layer_kind, name = type(layer).__name__, variable.name
    if layer_kind in SIZES and name == KERNEL:
        return Variable(shape, (*whole[:-2], taken, given), KERNEL, trainable)
    if layer_kind == DEPTHWISE and name == KERNEL:
        return Variable(shape, (None, None, taken, None), DEPTHWISE_KERNEL, trainable)
    if layer_kind in (*SIZES, DEPTHWISE, NORM) and len(shape) == 1:
        return Variable(shape, (given,), name, trainable)
    return Variable(shape, whole, name, trainable)


def _steps(widths: Mapping[str, int], share: float, step: int) -> tuple[dict[str, int], ...]:
    """Return how many channels a group may not go below, its share rounded down, and rounded up."""
    least = {name: min(step, width) for name, width in widths.items()}
    down = {name: max(least[name], _down(width * share, width, step)) for name, width in widths.items()}
    up = {
        name: min(width, down[name] + step) if down[name] < width * share else down[name]
        for name, width in widths.items()
    }
    return least, down, up


def _down(channels: float, width: int, step: int) -> int:
    """Round to a multiple of `step`; all of a group stay all."""
    return width if channels >= width else int(channels + 1e-9) // step * step


def _fits(structure: Structure, counts: dict[str, int], name: str, count: int, budget: float) -> bool:
    return count > counts[name] and _density(structure, {**counts, name: count}) <= budget


def _prunable(structure: Structure) -> dict[str, Variable]:
    return {
        path: variable
        for path, variable in structure.variables.items()
        if variable.kind == KERNEL and len(variable.shape) == 4 and variable.axes[2] is not None
    }


def _live(variable: Variable, counts: Mapping[str, int]) -> int:
    sides = zip(variable.shape, variable.axes, strict=True)
    return prod(side if name is None else counts[name] for side, name in sides)


def _density(structure: Structure, counts: Mapping[str, int]) -> float:
    kernels = _prunable(structure).values()
    return sum(_live(kernel, counts) for kernel in kernels) / sum(prod(kernel.shape) for kernel in kernels)


def counts_of(slots: Slots) -> dict[str, int]:
    """Return how many channels of each group have a slot."""
    return {name: int((index >= 0).sum()) for name, index in slots.index.items()}


def _reslotted(old: Slots, live: Mapping[str, NDArray[np.bool_]]) -> Slots:
    return Slots({name: _filled(index, live[name], name) for name, index in old.index.items()})


def _filled(index: NDArray[np.intp], mask: NDArray[np.bool_], name: str) -> NDArray[np.intp]:
    """Return the slots without the dead; those that begin to live take the first free ones."""
    kept = np.where((index >= 0) & mask[index], index, -1)
    begun = np.setdiff1d(np.flatnonzero(mask), kept)
    free = np.flatnonzero(kept < 0)
    if begun.size > free.size:
        raise ValueError(f"{name}: {int(mask.sum())} live channels, {index.size} slots")
    # Where every channel has its own slot, as in the masked-dense network, it stays so.
    own = index.size == mask.size and np.array_equal(kept[kept >= 0], np.flatnonzero(kept >= 0))
    kept[begun if own else free[: begun.size]] = begun
    return kept


def _gathered(values: NDArray, variable: Variable, slots: Slots) -> NDArray:
    small = _empty(variable, {name: index.size for name, index in slots.index.items()}, values.dtype)
    small[_places(variable, slots)] = values[_channels(variable, slots)]
    return small


def _scattered(values: NDArray, variable: Variable, slots: Slots) -> NDArray:
    full = _empty(variable, {}, values.dtype)
    full[_channels(variable, slots)] = values[_places(variable, slots)]
    return full


def _empty(variable: Variable, sizes: Mapping[str, int], dtype: Any) -> NDArray:
    sides = zip(variable.shape, variable.axes, strict=True)
    shape = tuple(sizes.get(name or WHOLE, side) for side, name in sides)
    return np.full(shape, DEAD.get(variable.kind, 0), dtype)


def _places(variable: Variable, slots: Slots) -> tuple[NDArray, ...]:
    return _grid(variable, lambda name: np.flatnonzero(slots.index[name] >= 0))


def _channels(variable: Variable, slots: Slots) -> tuple[NDArray, ...]:
    return _grid(variable, lambda name: slots.index[name][slots.index[name] >= 0])


def _grid(variable: Variable, chosen: Callable[[str], NDArray]) -> tuple[NDArray, ...]:
    """Return the index of a box of entries: the chosen ones of a group's axis, all of a whole one."""
    sides = zip(variable.shape, variable.axes, strict=True)
    return np.ix_(*(np.arange(side) if name is None else chosen(name) for side, name in sides))


def _outer(variable: Variable, chosen: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    mask = np.ones((), bool)
    for side, name in zip(variable.shape, variable.axes, strict=True):
        mask = mask[..., None] & (np.ones(side, bool) if name is None else chosen[name])
    return mask


def _begun(
    values: NDArray,
    variable: Variable,
    slots: Slots,
    fresh: Mapping[str, NDArray[np.intp]],
    rng: np.random.Generator,
) -> NDArray:
    """Fill in what a variable holds for channels that begin to live: `fresh`, {group: channels}."""
    begin = _begin_axis(variable)
    if begin is None or not fresh[variable.axes[begin] or WHOLE].size:
        return values

    # In the channels' order, not the slots': so a compact and a masked-dense network draw alike.
    def chosen(name: str) -> NDArray:
        channels = np.sort(fresh[name]) if name == variable.axes[begin] else _rising(slots.index[name])
        return _slots_of(channels, slots.index[name])

    places = _grid(variable, chosen)
    shape = np.broadcast_shapes(*(part.shape for part in places))
    if variable.kind in KERNELS:
        values[places] = rng.normal(0, sqrt(2 / max(1, prod(shape[:begin]))), shape)
    else:
        values[places] = FRESH.get(variable.kind, 0)
    return values


def _begin_axis(variable: Variable) -> int | None:
    """Return the axis along which a variable makes channels: a kernel's last, a depthwise one's third."""
    axis = 2 if variable.kind == DEPTHWISE_KERNEL else len(variable.axes) - 1
    return axis if axis >= 0 and variable.axes[axis] is not None else None


def _rising(index: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.sort(index[index >= 0])


def _slots_of(channels: NDArray[np.intp], index: NDArray[np.intp]) -> NDArray[np.intp]:
    order = np.argsort(index)
    return order[np.searchsorted(index, channels, sorter=order)]
