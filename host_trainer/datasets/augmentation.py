"""Changes pictures in ways that leave their meaning alone, by name: Keras' own layers, or moved bytes.

Each call is a function of (seed, step): generators are set before they draw, so a training that goes on after
a stop sees the same pictures.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError

BORDER = 1 / 8  # of the side, added by mirroring before a crop; 4 of 32 pixels, as for CIFAR (He et al. 2016)
TURN = 15 / 360  # of a circle, to either side
COLOUR = 0.3  # most change of brightness, contrast and saturation
HOLE = (0.02, 0.2)  # area that cutout removes (DeVries and Taylor 2017; Zhong et al. 2020)
HUE = 0.02  # of the circle of hues
NOISE = 0.03  # standard deviation; black is 0, white 1
MIXUP_ALPHA = 0.2  # of the Beta distribution (Zhang et al. 2018)
MIXUP = "mixup"

Size = tuple[int, int]  # (H, W)
Change = Callable[[NDArray[np.float32], tuple[int, ...]], NDArray[np.float32]]  # (values, seed) -> values


class Augmentation:
    """A chain of named changes: `(images, targets, step)` to changed images and targets.

    `mixup` also mixes the targets: they must be rows of numbers (one-hot labels, or a teacher's answers).
    """

    def __init__(self, names: Sequence[str], size: Size, seed: int = 0) -> None:
        """Make the changes for pictures of `size` = (H, W).

        Raises:
            ConfigError: a name that is not in NAMES.
        """
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} changes no pictures: give some of {', '.join(NAMES)}")
        self.names, self._seed = tuple(names), seed
        self._changes = [_change(name, size) for name in names if name != MIXUP]

    def __call__(
        self, images: NDArray[np.uint8], targets: np.ndarray, step: int
    ) -> tuple[NDArray[np.float32], np.ndarray]:
        """Return (B, H, W, 3) uint8 as changed float32 values in 0..255, and the targets to go with them."""
        values = np.asarray(images, np.float32)
        for number, change in enumerate(self._changes):
            values = change(values, (self._seed, step, number))
        if MIXUP in self.names:
            return mixed(values, targets, np.random.default_rng((self._seed, step)))
        return values, targets


def mixed(
    images: NDArray[np.float32], targets: np.ndarray, rng: np.random.Generator
) -> tuple[NDArray[np.float32], np.ndarray]:
    """Mix each picture and its target with another of the batch (Zhang et al. 2018, eq. 1)."""
    share = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, len(images)).astype(np.float32)
    other = rng.permutation(len(images))

    def mix(values: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return weight * values + (1 - weight) * values[other]

    return mix(images), mix(targets)


def set_generators(layer: Any, seed: tuple[int, ...]) -> None:
    """Set every random generator inside a layer to a state drawn from `seed`."""
    rng = np.random.default_rng(seed)
    for inner in layer._flatten_layers():
        for name in ("generator", "seed_generator"):
            generator = getattr(inner, name, None)
            if generator is not None:
                generator.state.assign(rng.integers(0, 2**31, 2, dtype=np.uint32))


def _change(name: str, size: Size) -> Change:
    return ARRAYWISE[name] if name in ARRAYWISE else _layerwise(LAYERS[name](size))


def _layerwise(layer: Any) -> Change:
    """Return the change that a Keras layer makes; the layer thinks of white as 1."""

    def change(values: NDArray[np.float32], seed: tuple[int, ...]) -> NDArray[np.float32]:
        import keras

        set_generators(layer, seed)
        changed = keras.ops.convert_to_numpy(layer(values / 255, training=True))
        return np.clip(changed, 0, 1) * np.float32(255)

    return change


def _flip(values: NDArray[np.float32], seed: tuple[int, ...]) -> NDArray[np.float32]:
    chosen = np.random.default_rng(seed).random(len(values)) < 0.5
    flipped = np.array(values, order="C")
    pixels = flipped.view(f"V{values.itemsize * values.shape[-1]}")  # moved whole: four times as fast
    pixels[chosen] = pixels[chosen, :, ::-1]
    return flipped


def _crop(values: NDArray[np.float32], seed: tuple[int, ...]) -> NDArray[np.float32]:
    """Add a mirrored border and cut a window of the old size out of it."""
    count, height, width, _ = values.shape
    down, right = (max(1, round(side * BORDER)) for side in (height, width))
    wide = np.pad(values, ((0, 0), (down, down), (right, right), (0, 0)), mode="reflect")
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, 2 * down + 1, count), rng.integers(0, 2 * right + 1, count)
    windows = zip(wide, top, left, strict=True)
    return np.stack([one[y : y + height, x : x + width] for one, y, x in windows])


def _colour(size: Size) -> Any:
    import keras

    return keras.layers.RandomColorJitter(
        value_range=(0, 1),
        brightness_factor=COLOUR,
        contrast_factor=COLOUR,
        saturation_factor=(0.5 - COLOUR / 2, 0.5 + COLOUR / 2),
        hue_factor=HUE,
        seed=0,
    )


def _rotation(size: Size) -> Any:
    import keras

    return keras.layers.RandomRotation(TURN, fill_mode="reflect", seed=0)


def _cutout(size: Size) -> Any:
    import keras

    return keras.layers.RandomErasing(factor=0.5, scale=HOLE, fill_value=0.5, value_range=(0, 1), seed=0)


def _noise(size: Size) -> Any:
    import keras

    return keras.layers.GaussianNoise(NOISE, seed=0)


# Keras has these two as layers too; on a CPU they take thirty times as long as moving the bytes.
ARRAYWISE: dict[str, Change] = {"flip": _flip, "crop": _crop}
LAYERS: dict[str, Callable[[Size], Any]] = {
    "colour": _colour,
    "rotation": _rotation,
    "cutout": _cutout,
    "noise": _noise,
}
NAMES = (*ARRAYWISE, *LAYERS, MIXUP)
