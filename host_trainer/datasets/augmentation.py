"""Changes pictures in ways that leave their meaning alone, by name, with Keras' own layers.

Each call is a function of (seed, step): the layers' generators are set before they draw, so a training that
goes on after a stop sees the same pictures.
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


class Augmentation:
    """A chain of named changes: `(images, targets, step)` to changed images and targets.

    `mixup` also mixes the targets: they must be rows of numbers (one-hot labels, or a teacher's answers).
    """

    def __init__(self, names: Sequence[str], size: Size, seed: int = 0) -> None:
        """Make the layers for pictures of `size` = (H, W).

        Raises:
            ConfigError: a name that is not in NAMES.
        """
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} changes no pictures: give some of {', '.join(NAMES)}")
        self.names, self._seed = tuple(names), seed
        self._layers = [LAYERS[name](size) for name in names if name != MIXUP]

    def __call__(
        self, images: NDArray[np.uint8], targets: np.ndarray, step: int
    ) -> tuple[NDArray[np.float32], np.ndarray]:
        """Return (B, H, W, 3) uint8 as changed float32 values in 0..255, and the targets to go with them."""
        if not self.names:
            return np.asarray(images, np.float32), targets
        import keras

        values: Any = np.asarray(images, np.float32) / 255
        for number, layer in enumerate(self._layers):
            set_generators(layer, (self._seed, step, number))
            values = layer(values, training=True)
        values = np.clip(keras.ops.convert_to_numpy(values), 0, 1) * np.float32(255)
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


def _flip(size: Size) -> Any:
    import keras

    return keras.layers.RandomFlip("horizontal", seed=0)


def _crop(size: Size) -> Any:
    import keras

    down, right = (max(1, round(side * BORDER)) for side in size)

    class MirroredCrop(keras.layers.Layer):
        """Adds a mirrored border and cuts a window of the old size out of it."""

        def __init__(self) -> None:
            super().__init__()
            self.window = keras.layers.RandomCrop(*size, seed=0)

        def call(self, images: Any) -> Any:
            wide = keras.ops.pad(images, [[0, 0], [down, down], [right, right], [0, 0]], mode="reflect")
            return self.window(wide, training=True)

    return MirroredCrop()


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


LAYERS: dict[str, Callable[[Size], Any]] = {
    "flip": _flip,
    "crop": _crop,
    "colour": _colour,
    "rotation": _rotation,
    "cutout": _cutout,
    "noise": _noise,
}
NAMES = (*LAYERS, MIXUP)
