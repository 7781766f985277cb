"""Draws the networks that can become a backbone: MobileNetV1 and V2, the CIFAR ResNet-18, a separable net.

Every network here is a functional Keras model: `image` (B, H, W, 3) float32 in [-1, 1] to `feature` (B, D),
the global average of the last map. Its first weights come from numpy, so both Keras backends start alike.

`+haar` puts a fixed Haar transform before the stem: half the height and width, four bands of three colours, a
quarter of the positions to work on and nothing of the picture lost. CLFD (Continual Learning in the Frequency
Domain, NeurIPS 2024) has the transform too, but behind it three learned 1x1 convolutions on the low, the high
and all bands, frozen after the first task, and it keeps their output in the buffer. Here nothing is learned
before the stem, whose convolution sees all bands, so there is nothing to freeze; the buffer keeps pictures.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError

IMAGE, FEATURE, LOGITS = "image", "feature", "logits"
CHANNEL_STEP = (
    8  # widths are rounded to it, as in Sandler et al. 2018: kernels and the Edge TPU work in eights
)
BN_MOMENTUM = (
    0.99  # of the running statistics: settled after some hundred steps, where Keras' 0.999 takes thousands
)
MAX_SIZE_PX = 512
MAX_WIDTH = 4.0
HAAR = "haar"
SPEC = re.compile(r"(?P<family>[a-z0-9]+)(:(?P<width>[0-9]*\.?[0-9]+))?(/(?P<size>[0-9]+))?(?P<haar>\+haar)?")

# Channels and stride of the separable net's blocks; a tenth of MobileNetV1's work at the same width.
SEPARABLE_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1))
RESNET_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # He et al. 2016, CIFAR form: 3x3 stem, no max-pool


class Spec(NamedTuple):
    """Which network.

    Attributes:
        family: one of DEFAULTS.
        width: the factor on its channels.
        size: the side of its square input in pixels.
        haar: begins with the Haar transform.
    """

    family: str
    width: float
    size: int
    haar: bool = False

    def __str__(self) -> str:
        """Return the text that `parse_spec` reads back."""
        return f"{self.family}:{self.width:g}/{self.size}{'+' + HAAR if self.haar else ''}"


DEFAULTS = {
    "mobilenetv1": Spec("mobilenetv1", 0.25, 128),
    "mobilenetv2": Spec("mobilenetv2", 0.35, 96),
    "resnet18": Spec("resnet18", 1.0, 32),
    "separable": Spec("separable", 1.0, 64),
}
STRIDES = {
    "mobilenetv1": 32,
    "mobilenetv2": 32,
    "resnet18": 8,
    "separable": 8,
}  # input pixels a last-map pixel


def parse_spec(text: str) -> Spec:
    """Read `FAMILY[:WIDTH][/SIZE][+haar]`, such as `mobilenetv2:0.35/96`.

    Raises:
        ConfigError: another form, an unknown family, or numbers that no network can have.
    """
    found = SPEC.fullmatch(text.strip().lower())
    if found is None or found["family"] not in DEFAULTS:
        raise ConfigError(
            f"{text!r} names no network: give {', '.join(DEFAULTS)}, "
            f"with :WIDTH, /SIZE and +{HAAR} if you like"
        )
    usual = DEFAULTS[found["family"]]
    width, size = float(found["width"] or usual.width), int(found["size"] or usual.size)
    spec = usual._replace(width=width, size=size, haar=found["haar"] is not None)
    if not 0 < spec.width <= MAX_WIDTH:
        raise ConfigError(
            f"width {spec.width:g} is no factor on channels: give more than 0, at most {MAX_WIDTH:g}"
        )
    least = STRIDES[spec.family] * (2 if spec.haar else 1)
    if not least <= spec.size <= MAX_SIZE_PX:
        raise ConfigError(f"{spec.size} px: {spec.family} takes {least} to {MAX_SIZE_PX} px")
    if spec.haar and spec.size % 2:
        raise ConfigError(f"{spec.size} px: the Haar transform halves the side, give an even one")
    return spec


def build(spec: Spec, seed: int = 0) -> Any:
    """Return the network of `spec` as a functional Keras model, its first weights drawn from `seed`."""
    import keras

    image = keras.Input((spec.size, spec.size, 3), name=IMAGE)
    bands = _haar(image) if spec.haar else image
    maps = {
        "mobilenetv1": _mobilenet_v1,
        "mobilenetv2": _mobilenet_v2,
        "resnet18": _resnet18,
        "separable": _separable,
    }[spec.family](bands, spec.width)
    feature = keras.layers.GlobalAveragePooling2D(name=FEATURE)(maps)
    model = keras.Model(image, feature, name=spec.family)
    if spec.haar:
        model.get_layer(HAAR).set_weights([haar_kernel()])
    initialise(model, seed)
    return model


def haar_kernel() -> NDArray[np.float32]:
    """Return (2, 2, 3, 12): the orthonormal Haar transform of each colour as a convolution of stride two.

    Twelve channels, three colours a band: the mean (of a picture at half its size, times two), then
    differences from left to right, from top to bottom, and across.
    """
    low, high = np.array([1, 1]) / np.sqrt(2), np.array([1, -1]) / np.sqrt(2)
    bands = [np.outer(down, right) for down in (low, high) for right in (low, high)]
    kernel = np.einsum("byx,ic->yxibc", np.stack(bands), np.eye(3))
    return kernel.reshape(2, 2, 3, 12).astype(np.float32)


def with_head(backbone: Any, classes: int, seed: int = 0) -> Any:
    """Return a classifier on the backbone: (B, H, W, 3) to logits (B, classes); the layers are shared."""
    import keras

    head = keras.layers.Dense(classes, name=LOGITS)
    model = keras.Model(backbone.input, head(backbone.output), name=backbone.name)
    width = backbone.output.shape[-1]
    kernel = np.random.default_rng((seed, classes)).normal(0, width**-0.5, (width, classes))
    head.set_weights([kernel.astype(np.float32), np.zeros(classes, np.float32)])
    return model


def backbone_of(model: Any) -> Any:
    """Return the part of a network that ends at its feature; the network itself when it has no head."""
    import keras

    names = [layer.name for layer in model.layers]
    if FEATURE not in names or model.layers[-1].name == FEATURE:
        return model
    return keras.Model(model.input, model.get_layer(FEATURE).output, name=model.name)


def initialise(model: Any, seed: int) -> None:
    """Draw every kernel anew from numpy (He et al. 2015, fan-in) and set every bias to zero; Haar's stays."""
    rng = np.random.default_rng((seed, len(model.layers)))
    for layer in model.layers:
        if not hasattr(layer, "kernel") or layer.name == HAAR:
            continue
        shape = tuple(layer.kernel.shape)
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        fan_in = int(np.prod(shape[:2] if depthwise else shape[:-1]))
        layer.kernel.assign(rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32))
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.zeros(tuple(layer.bias.shape), np.float32))


def rounded(channels: float) -> int:
    """Round a number of channels to a multiple of eight, never below nine tenths (Sandler et al. 2018)."""
    even = max(CHANNEL_STEP, int(channels + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return even + CHANNEL_STEP if even < 0.9 * channels else even


def _haar(image: Any) -> Any:
    import keras

    # A plain convolution, so that it is saved, rounded and exported like any other.
    return keras.layers.Conv2D(12, 2, strides=2, use_bias=False, trainable=False, name=HAAR)(image)


def _mobilenet_v1(image: Any, width: float) -> Any:
    import keras

    return _library(keras.applications.MobileNet, image, width)


def _mobilenet_v2(image: Any, width: float) -> Any:
    import keras

    return _library(keras.applications.MobileNetV2, image, width)


def _library(network: Any, maps: Any, width: float) -> Any:
    """Return the last map of one of Keras' own networks, its running statistics made quicker."""
    import keras

    drawn = network(input_tensor=maps, alpha=width, include_top=False, weights=None)

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = BN_MOMENTUM
        return type(layer).from_config(config)

    return keras.models.clone_model(drawn, input_tensors=drawn.inputs, clone_function=copy).output


def _resnet18(image: Any, width: float) -> Any:
    maps = _relu(_norm(_conv(image, rounded(64 * width), 3, 1, "stem"), "stem_bn"), "stem_relu")
    for stage, (channels, stride) in enumerate(RESNET_STAGES, start=1):
        for block in range(2):
            name = f"stage{stage}_block{block + 1}"
            maps = _residual_block(maps, rounded(channels * width), stride if block == 0 else 1, name)
    return maps


def _residual_block(maps: Any, channels: int, stride: int, name: str) -> Any:
    import keras

    inner = _norm(_conv(maps, channels, 3, stride, f"{name}_conv1"), f"{name}_conv1_bn")
    inner = _relu(inner, f"{name}_conv1_relu")
    inner = _norm(_conv(inner, channels, 3, 1, f"{name}_conv2"), f"{name}_conv2_bn")
    if stride != 1 or maps.shape[-1] != channels:
        maps = _norm(_conv(maps, channels, 1, stride, f"{name}_shortcut"), f"{name}_shortcut_bn")
    return _relu(keras.layers.Add(name=f"{name}_add")([maps, inner]), f"{name}_relu")


def _separable(image: Any, width: float) -> Any:
    maps = _relu(_norm(_conv(image, rounded(32 * width), 3, 2, "stem"), "stem_bn"), "stem_relu")
    for block, (channels, stride) in enumerate(SEPARABLE_BLOCKS, start=1):
        name = f"block{block}"
        maps = _relu(
            _norm(_depthwise(maps, stride, f"{name}_depthwise"), f"{name}_depthwise_bn"), f"{name}_relu1"
        )
        maps = _conv(maps, rounded(channels * width), 1, 1, f"{name}_pointwise")
        maps = _relu(_norm(maps, f"{name}_pointwise_bn"), f"{name}_relu2")
    return maps


def _conv(maps: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    import keras

    return keras.layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)(
        maps
    )


def _depthwise(maps: Any, stride: int, name: str) -> Any:
    import keras

    return keras.layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=name)(maps)


def _norm(maps: Any, name: str) -> Any:
    import keras

    return keras.layers.BatchNormalization(momentum=BN_MOMENTUM, name=name)(maps)


def _relu(maps: Any, name: str) -> Any:
    import keras

    return keras.layers.ReLU(max_value=6.0, name=name)(maps)
