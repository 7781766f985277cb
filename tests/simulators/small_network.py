"""A network of four convolutions that stands for the large ones: every step of a test is traced anew."""

from typing import Any

from host_trainer.backbones.networks import initialise, with_head
from host_trainer.network import Network

SIDE_PX = 16
OPTIONS = {"padding": "same", "use_bias": False}


def small_network(classes: tuple[str, ...] = (), seed: int = 0) -> Network:
    """Draw a stem, a separable residual block and a convolution; without classes it is a bare backbone."""
    import keras

    image = keras.Input((SIDE_PX, SIDE_PX, 3), name="image")
    stem = _seen(keras.layers.Conv2D(24, 3, strides=2, name="stem", **OPTIONS)(image), "stem")
    maps = _seen(keras.layers.DepthwiseConv2D(3, name="depthwise", **OPTIONS)(stem), "depthwise")
    maps = _seen(keras.layers.Conv2D(24, 1, name="pointwise", **OPTIONS)(maps), "pointwise")
    maps = keras.layers.Add(name="add")([stem, maps])
    maps = _seen(keras.layers.Conv2D(32, 3, strides=2, name="last", **OPTIONS)(maps), "last")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="feature")(maps), name="small")
    initialise(model, seed)
    return Network(with_head(model, len(classes), seed) if classes else model, classes, name="small")


def _seen(maps: Any, name: str) -> Any:
    import keras

    maps = keras.layers.BatchNormalization(name=f"{name}_bn")(maps)
    return keras.layers.ReLU(name=f"{name}_relu")(maps)
