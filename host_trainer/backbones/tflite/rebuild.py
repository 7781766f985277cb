"""Builds a Keras float network from a TFLite file: layers with bias, activations as layers of their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_cl.errors import MismatchError, ModelError
from edge_cl.vision.backbone import read_model_file
from edge_cl.vision.extractor import cut_at_embedding
from edge_cl.vision.files import one_line, open_plain
from edge_cl.vision.ports import InputRange, Port, choose_input_range, pixel_table
from host_trainer.backbones import networks
from host_trainer.backbones.tflite.graph import (
    IMAGE,
    Activation,
    Addition,
    Average,
    Convolution,
    Dense,
    Depthwise,
    Flattening,
    GlobalAverage,
    Graph,
    Layer,
    Padding,
    read_graph,
)
from host_trainer.network import Network

RELU_TOPS = {"relu": None, "relu6": 6.0}


def read_tflite(
    path: Path,
    *,
    keep_head: bool = False,
    input_range: InputRange | None = None,
    labels: Sequence[str] | None = None,
) -> Network:
    """Read a float or quantised TFLite file as a float network without batch normalisation.

    Args:
        path: a MobileNet-like file: convolutions, dense layers, sums, averages, ReLU and ReLU6.
        keep_head: keep a classifier whole, its last softmax left out; else it is cut at its embedding.
        input_range: what pixel values 0 and 255 become at the input; by default what the file itself makes of
            them, and (-1, 1) where its input is float.
        labels: names of the kept head's outputs; "0", "1", ... where they are not given.

    Returns:
        The network; `origin` says file, hash, where it was cut, and which function was left out at the end.

    Raises:
        ModelError: absent, damaged, compiled, or with operations that are not known here.
        MismatchError: more or fewer labels than outputs.
        EngineError: the schema of LiteRT is not installed.
    """
    file = read_model_file(path)
    data = _bytes_of(path)
    cut = None if keep_head else cut_at_embedding(data)
    graph = read_graph(data if cut is None else cut.data)
    if keep_head and not isinstance(graph.steps[graph.output].layer, Dense):
        raise ModelError(f"{path.name} ends in a feature, it has no head to keep: read it as a backbone")
    model = rebuild(graph, path.stem)
    classes = _classes(labels, graph.steps[graph.output].shape[0]) if keep_head else ()
    origin = {
        "tflite": path.name,
        "sha256": file.sha256,
        "cut_at": cut.tensor if cut is not None and cut.removed else None,
        "function": graph.function,
    }
    return Network(model, classes, file_range(graph.image, input_range), path.stem, origin)


def file_range(image: Port, asked: InputRange | None = None) -> InputRange:
    """Return which real values the file's own input gives to pixel values 0 and 255.

    A uint8 input of scale 1/128 gives -1 and 0.992, where the recipe says 1: this is what flows in the file.
    """
    chosen, _ = choose_input_range(image, asked)
    if image.dtype == "float32":
        return chosen
    ends = pixel_table(image, chosen)[[0, 255]].astype(np.float64)
    low, high = (ends - image.zero_point) * image.scales[0]
    return float(low), float(high)


def rebuild(graph: Graph, name: str) -> Any:
    """Return the graph as a functional Keras model: `image` (B, H, W, 3) float32 to (B, D).

    Raises:
        ModelError: Keras cannot compute one of its steps.
    """
    import keras

    image = keras.Input(graph.image.shape[1:], name=networks.IMAGE)
    made: dict[int, Any] = {IMAGE: image}
    for index, step in enumerate(graph.steps):
        sources = [made[source] for source in step.sources]
        try:
            layer = _layer(step.layer, step.name)
            made[index] = layer(sources[0] if len(sources) == 1 else sources)
            layer.set_weights(_weights(step.layer))
        except Exception as error:  # Keras raises nearly anything
            raise ModelError(f"{step.name} cannot be rebuilt in Keras ({one_line(error)})") from error
        if made[index].shape[1:] != step.shape:
            raise ModelError(f"{step.name} gives {made[index].shape[1:]} in Keras, {step.shape} in the file")
    return keras.Model(image, made[graph.output], name=_plain(name))


def _layer(what: Layer, name: str) -> Any:
    from keras import layers

    match what:
        case Convolution():
            return layers.Conv2D(what.kernel.shape[3], what.kernel.shape[:2], **_sliding(what), name=name)
        case Depthwise():
            multiplier = what.kernel.shape[3]
            return layers.DepthwiseConv2D(
                what.kernel.shape[:2], depth_multiplier=multiplier, **_sliding(what), name=name
            )
        case Dense():
            return layers.Dense(what.kernel.shape[1], name=name)
        case Average():
            return layers.AveragePooling2D(what.size, what.strides, what.padding, name=name)
        case GlobalAverage():
            return layers.GlobalAveragePooling2D(name=name)
        case Addition():
            return layers.Add(name=name)
        case Padding():
            return layers.ZeroPadding2D((what.rows, what.columns), name=name)
        case Flattening():
            return layers.Flatten(name=name)
        case Activation(function) if function in RELU_TOPS:
            return layers.ReLU(RELU_TOPS[function], name=name)
        case Activation(function):
            return layers.Activation(function, name=name)


def _sliding(what: Convolution | Depthwise) -> dict[str, Any]:
    return {"strides": what.strides, "padding": what.padding, "dilation_rate": what.dilation}


def _weights(what: Layer) -> list[Any]:
    return [what.kernel, what.bias] if isinstance(what, Convolution | Depthwise | Dense) else []


def _classes(labels: Sequence[str] | None, count: int) -> tuple[str, ...]:
    names = tuple(str(i) for i in range(count)) if labels is None else tuple(labels)
    if len(names) != count:
        raise MismatchError(f"{len(names)} labels for {count} outputs: give the model's own list of labels")
    return names


def _bytes_of(path: Path) -> bytes:
    file, _ = open_plain(path, ModelError)
    with file:
        return file.read()


def _plain(name: str) -> str:
    """Return a name that Keras takes: letters, digits, dots, dashes and underscores."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name) or "network"
