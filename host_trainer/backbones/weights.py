"""Gives a network its first weights: random, ImageNet's, a float npz by Keras names, or a checkpoint's."""

import contextlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError, ModelError, TransportError
from edge_cl.vision.files import one_line, open_plain
from host_trainer.backbones.networks import Spec, backbone_of, initialise
from host_trainer.checkpoints import NETWORK, load_network, set_weights, weights_of

RANDOM, IMAGENET = "random", "imagenet"
NPZ_SUFFIX = ".npz"
MAX_NPZ_BYTES = 512 << 20  # unpacked; MobileNetV2 1.4 takes 20 MB, ResNet-18 45 MB
MAX_NPZ_TENSORS = 4096
KERAS2_NAMES = {"depthwise_kernel": "kernel"}  # what Keras 2 called a variable, and Keras 3 does
MAX_NPY_HEADER_BYTES = 10_000  # numpy's own bound
# Widths for which Keras' authors publish ImageNet weights without a classifier.
IMAGENET_WIDTHS = {
    "mobilenetv1": ("MobileNet", (0.25, 0.5, 0.75, 1.0)),
    "mobilenetv2": ("MobileNetV2", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
}
IMAGENET_SIZE_PX = 224  # the weights are the same for every size; Keras warns about those it does not list


def load_weights(model: Any, spec: Spec, source: str, seed: int = 0) -> None:
    """Give the backbone of `model` its weights; a head is left as it is.

    Args:
        model: a network of `spec`, with or without a head; changed in place, or not at all.
        spec: what it was built from.
        source: `random`; `imagenet` (downloaded by Keras, some MB, and kept by it); a FILE.npz of float
            tensors by Keras names (`Conv1/kernel`); or the folder of a checkpoint.
        seed: of random weights.

    Raises:
        ConfigError: a source of another form, or no ImageNet weights for this network.
        ModelError: a file or checkpoint that is absent or damaged.
        MismatchError: weights of another network; the message names the first tensor that differs.
        TransportError: ImageNet's weights are not here and cannot be fetched.
    """
    backbone = backbone_of(model)
    if source == RANDOM:
        initialise(backbone, seed)
    elif source == IMAGENET:
        set_weights(backbone, imagenet_weights(spec), "the ImageNet file")
    elif source.endswith(NPZ_SUFFIX):
        tensors = {_keras3_path(name): values for name, values in read_npz(Path(source)).items()}
        set_weights(backbone, tensors, Path(source).name)
    elif (Path(source) / NETWORK).is_file():
        set_weights(backbone, weights_of(backbone_of(load_network(Path(source)).model)), source)
    else:
        raise ConfigError(
            f"{source!r} names no weights: give {RANDOM}, {IMAGENET}, a {NPZ_SUFFIX} file, "
            "or the folder of a checkpoint"
        )


def imagenet_weights(spec: Spec) -> dict[str, NDArray[Any]]:
    """Return Keras' ImageNet weights of a MobileNet without classifier, by their Keras paths.

    Downloads them the first time, into Keras' own cache folder.

    Raises:
        ConfigError: there are none for this network.
        TransportError: they are not in the cache and cannot be fetched.
    """
    import keras

    name, widths = IMAGENET_WIDTHS.get(spec.family, ("", ()))
    if spec.width not in widths or spec.haar:
        offered = "; ".join(
            f"{family}:{', '.join(map(str, w))}" for family, (_, w) in IMAGENET_WIDTHS.items()
        )
        raise ConfigError(f"{spec} has no ImageNet weights: there are some for {offered}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras announces its download on standard output
            network = getattr(keras.applications, name)(
                input_shape=(IMAGENET_SIZE_PX, IMAGENET_SIZE_PX, 3),
                alpha=spec.width,
                include_top=False,
                weights=IMAGENET,
            )
    except Exception as error:  # Keras raises a bare Exception for a failed download
        reason = one_line(str(error).rpartition(" -- ")[2])  # in front of it stands a long address
        raise TransportError(
            f"ImageNet's weights for {spec} cannot be fetched ({reason}): "
            "go online once, or give a .npz file, a checkpoint, or `random`"
        ) from error
    return weights_of(network)


def read_npz(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read float tensors from a npz file, each looked at before its memory is reserved.

    Raises:
        ModelError: absent, damaged, too large, or with anything but finite floats inside.
    """
    file, size_bytes = open_plain(path, ModelError)
    with file:
        if size_bytes > MAX_NPZ_BYTES:
            raise ModelError(f"{path.name} has {size_bytes} bytes: more than any small network's weights")
        try:
            with np.load(file, allow_pickle=False) as found:
                _check_members(found, path.name)
                return {name: _finite(found[name], name, path.name) for name in found.files}
        except ModelError:
            raise
        except Exception as error:  # zip, zlib and numpy raise many kinds on damaged bytes
            raise ModelError(f"{path.name} is damaged, or no npz file ({one_line(error)})") from error


def _keras3_path(name: str) -> str:
    layer, slash, variable = name.rpartition("/")
    return layer + slash + KERAS2_NAMES.get(variable, variable)


def _check_members(found: Any, name: str) -> None:
    """Refuse a bomb: sizes that the zip states, and shapes that do not fit them."""
    members = found.zip.infolist()
    total_bytes = sum(member.file_size for member in members)
    if len(members) > MAX_NPZ_TENSORS or total_bytes > MAX_NPZ_BYTES:
        raise ModelError(f"{name} unpacks to {len(members)} tensors of {total_bytes} bytes: too much")
    for member in members:
        with found.zip.open(member) as stream:
            shape, dtype = _header(stream)
            values_bytes = member.file_size - stream.tell()
        if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != values_bytes:
            raise ModelError(f"{name}: {member.filename} is no tensor of floats, or has not its shape's size")


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read(stream, max_header_size=MAX_NPY_HEADER_BYTES)
    return shape, dtype


def _finite(values: NDArray[Any], tensor: str, name: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise ModelError(f"{name}: {tensor} holds values that are not numbers")
    return values.astype(np.float32)
