"""Cuts an image classifier at its embedding: the pooled feature before the logits becomes the output."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import EngineError, ModelError
from edge_cl.vision.engines.edgetpu import CUSTOM_OP
from edge_cl.vision.files import one_line
from edge_cl.vision.ports import MAX_FEATURE_SIZE, TFLITE_MAGIC, Port, feature_port, image_port

BUFFER_ALIGNMENT_BYTES = 16  # schema.fbs forces it on constants; kernels read them as wide words
COLLAPSED_FRACTION = 0.9  # of values at zero; useful features lie at 0.3 to 0.6, VWW's collapsed ones at 0.94
MIN_RUNTIME_METADATA = b"min_runtime_version"  # the one piece of metadata that a cut does not make wrong

NO_ACTIVATION = 0  # of ActivationFunctionType in schema.fbs

# Operations between the logits and the output, and those that only change a vector's shape.
DRESSING = {"SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE"}
SHAPING = {"RESHAPE", "SQUEEZE"}
SOFTMAXES = {"SOFTMAX", "LOG_SOFTMAX"}
CASTS = {"QUANTIZE", "DEQUANTIZE"}
POOLS = {"MEAN", "AVERAGE_POOL_2D", "MAX_POOL_2D", "REDUCE_MAX"}


class Cut(NamedTuple):
    """A backbone file made from a classifier.

    Attributes:
        data: the TFLite file; the very bytes given when it was an embedding already.
        tensor: name of the tensor that is the output.
        size: D, values per feature.
        removed: operations left out; 0 when it was an embedding already.
    """

    data: bytes
    tensor: str
    size: int
    removed: int


class ModelFacts(NamedTuple):
    """What a TFLite file says about itself.

    Attributes:
        inputs: of the first subgraph.
        outputs: of the first subgraph.
        operators: how often each operation occurs; custom ones under their own name.
        custom_operators: names of operations that are not standard TFLite.
        subgraphs: how many.
        size_bytes: of the file.
        is_edgetpu: made by the Edge TPU compiler.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, int]
    custom_operators: tuple[str, ...]
    subgraphs: int
    size_bytes: int
    is_edgetpu: bool


def inspect_model(data: bytes) -> ModelFacts:
    """Read what a TFLite file says about itself, without running it.

    Raises:
        ModelError: not TFLite, or damaged.
        EngineError: the schema of LiteRT is not installed.
    """
    return _facts(unpack_model(data), len(data))


def cut_at_embedding(data: bytes) -> Cut:
    """Rewrite a classifier so that the feature before its logits is the only output.

    The head is the last fully connected layer, or 1x1 convolution over a 1x1 picture, found by walking back
    from the output. Everything after its input goes: operations, tensors, constants, signatures, labels.
    A file that ends in a feature (pooled, or with an activation) is returned as it came. The same bytes give
    the same bytes.

    Raises:
        ModelError: the file cannot be cut; the message says why.
        EngineError: the schema of LiteRT is not installed.
    """
    return _cut(data, _embedding)


def cut_at_logits(data: bytes) -> Cut:
    """Rewrite a classifier so that its logits, before the softmax, are the only output.

    8-bit probabilities have steps of 1/256, and say nothing of classes below that; logits do. A file whose
    output are logits is returned as it came. The same bytes give the same bytes.

    Raises:
        ModelError: the file has no logits; the message says what it ends in.
        EngineError: the schema of LiteRT is not installed.
    """
    return _cut(data, _logits)


def collapse_fraction(features: NDArray[Any], zero_point: int) -> float:
    """Return which fraction of the stored values stands for zero: (N, D) to [0, 1]."""
    return float(np.mean(features == zero_point))


def is_collapsed(fraction: float) -> bool:
    """Tell whether so many values are zero that the feature hardly tells pictures apart."""
    return fraction > COLLAPSED_FRACTION


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise EngineError(
            "cutting a model needs LiteRT's schema: `pip install ai-edge-litert flatbuffers`, "
            "or cut it on another computer"
        ) from error
    return schema_py_generated


def unpack_model(data: bytes) -> Any:
    """Read a TFLite file into the schema's object tree (ModelT): whatever it holds, but not nothing.

    Indices and lengths inside are still the file's word: check them, or treat any exception as damage.

    Raises:
        ModelError: not TFLite, damaged, or without operations.
        EngineError: the schema of LiteRT is not installed.
    """
    if data[4:8] != TFLITE_MAGIC:
        raise ModelError("the model is not a TFLite file: give a .tflite file")
    schema = _schema()
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        whole = all(graph.tensors and graph.operators for graph in model.subgraphs or [None])
    except Exception as error:  # reading a damaged flatbuffer can raise anything
        raise damaged_model(error) from error
    if not whole:
        raise ModelError("the model file holds no operations: give an image model")
    return model


def damaged_model(error: Exception) -> ModelError:
    """Return what to raise when reading a file's object tree raised: it is the file that is at fault."""
    return ModelError(f"the model file is damaged or cut off ({one_line(error)}): download it again")


def _facts(model: Any, size_bytes: int) -> ModelFacts:
    try:
        graph = model.subgraphs[0]
        names = Counter(operator_name(model, operator) for operator in graph.operators)
        custom = {_text(code.customCode) for code in model.operatorCodes if code.customCode is not None}
        inputs = tuple(port_of(graph.tensors[i]) for i in graph.inputs)
        outputs = tuple(port_of(graph.tensors[i]) for i in graph.outputs)
    except Exception as error:  # as above: indices and lengths come from the file
        raise damaged_model(error) from error
    return ModelFacts(
        inputs, outputs, dict(names), tuple(sorted(custom)), len(model.subgraphs), size_bytes,
        CUSTOM_OP.decode("ascii") in custom,
    )  # fmt: skip


def check_plain(facts: ModelFacts) -> None:
    """Refuse what is no plain graph of standard operations from one picture to one output.

    Raises:
        ModelError: compiled for the Edge TPU, custom operations, several subgraphs or outputs, no picture.
    """
    if facts.is_edgetpu:
        raise ModelError("the model is compiled for the Edge TPU: give the file that was compiled")
    if facts.custom_operators:
        named = ", ".join(facts.custom_operators)
        raise ModelError(f"the model has operations that are not standard ({named}): give one without them")
    if facts.subgraphs != 1:
        raise ModelError(f"the model has {facts.subgraphs} subgraphs: only a plain graph can be read")
    if len(facts.outputs) != 1:
        raise ModelError(f"the model has {len(facts.outputs)} outputs: only a network with one can be read")
    image_port(facts.inputs, "the model")


def _cut(data: bytes, find: Callable[[Any, list[str]], int | None]) -> Cut:
    """Make the tensor that `find` names the output; None leaves the file as it came."""
    model = unpack_model(data)
    facts = _facts(model, len(data))
    check_plain(facts)
    graph = model.subgraphs[0]
    try:
        names = [operator_name(model, operator) for operator in graph.operators]
        found = find(graph, names)
        if found is None:
            return _uncut(data, graph)
        kept, tensor = _needed(graph, found), graph.tensors[found]
        removed = len(graph.operators) - len(kept)
        shorter = pack_model(_reduced(model, kept, found))
    except ModelError:
        raise
    except Exception as error:  # indices and lengths come from the file
        raise damaged_model(error) from error
    return Cut(shorter, _text(tensor.name), _values(tensor), removed)


def _embedding(graph: Any, names: list[str]) -> int | None:
    """Return the index of the tensor to cut at, None when the output is a feature already."""
    producers = {int(made): i for i, operator in enumerate(graph.operators) for made in operator.outputs}
    last = _walk_back(graph, producers, names, int(graph.outputs[0]), DRESSING)
    name = names[producers[last]] if last in producers else "its input"
    if name in POOLS and _is_vector(graph.tensors[last]):
        return None
    if name not in {"FULLY_CONNECTED", "CONV_2D"} or not _is_vector(graph.tensors[last]):
        raise ModelError(f"the model ends in {name}, not in a classifier's layer: it cannot be cut")
    head = graph.operators[producers[last]]
    if head.builtinOptions.fusedActivationFunction != NO_ACTIVATION:
        return None  # logits have none: this layer makes a feature
    tensor = _walk_back(graph, producers, names, int(head.inputs[0]), SHAPING)
    if not _is_vector(graph.tensors[tensor]) or tensor not in producers:
        raise ModelError("the model has no pooled feature before its classifier: it cannot be cut")
    if _values(graph.tensors[tensor]) > MAX_FEATURE_SIZE:
        raise ModelError(f"the model's feature has more than {MAX_FEATURE_SIZE} values: too large")
    return tensor


def _logits(graph: Any, names: list[str]) -> int | None:
    """Return the index of the tensor that the softmax takes, None when the output is logits already."""
    producers = {int(made): i for i, operator in enumerate(graph.operators) for made in operator.outputs}
    tensor = _walk_back(graph, producers, names, int(graph.outputs[0]), SOFTMAXES | CASTS)
    head = _walk_back(graph, producers, names, tensor, SHAPING)
    name = names[producers[head]] if head in producers else "its input"
    if name not in {"FULLY_CONNECTED", "CONV_2D"} or not _is_vector(graph.tensors[head]):
        raise ModelError(f"the model ends in {name}, not in the logits of a classifier: give a classifier")
    if graph.operators[producers[head]].builtinOptions.fusedActivationFunction != NO_ACTIVATION:
        raise ModelError("the model ends in a feature, not in the logits of a classifier: give a classifier")
    return tensor if SOFTMAXES & set(names) else None


def _walk_back(
    graph: Any, producers: dict[int, int], names: list[str], tensor: int, through: set[str]
) -> int:
    """Follow first inputs backwards from a tensor, through the named operations.

    Raises:
        ModelError: the way goes round in a circle.
    """
    for _ in range(len(names) + 1):
        if tensor not in producers or names[producers[tensor]] not in through:
            return tensor
        tensor = int(graph.operators[producers[tensor]].inputs[0])
    raise ModelError("the model is damaged: an operation takes what it makes itself")


def _needed(graph: Any, tensor: int) -> list[int]:
    """Return the indices of the operations that the tensor depends on, in their order."""
    producers = {int(made): i for i, operator in enumerate(graph.operators) for made in operator.outputs}
    waiting, kept = [tensor], set()
    while waiting:
        made_by = producers.get(waiting.pop())
        if made_by is not None and made_by not in kept:
            kept.add(made_by)
            waiting.extend(int(i) for i in graph.operators[made_by].inputs if i >= 0)
    return sorted(kept)


def _reduced(model: Any, kept: list[int], output: int) -> Any:
    """Leave in the model only the kept operations, and number everything anew."""
    graph = model.subgraphs[0]
    graph.operators = [graph.operators[i] for i in kept]
    graph.outputs = np.array([output], np.int32)
    _renumber_tensors(graph)
    _renumber_codes(model, graph)
    model.signatureDefs = None  # they name the outputs that are gone
    model.metadata = [m for m in model.metadata or [] if m.name == MIN_RUNTIME_METADATA] or None
    model.metadataBuffer = None
    graph.debugMetadataIndex = -1
    _renumber_buffers(model, graph)
    return model


def _renumber_tensors(graph: Any) -> None:
    lists = [graph.inputs, graph.outputs]
    for operator in graph.operators:
        lists += [operator.inputs, operator.outputs, operator.intermediates]
    used = sorted({int(i) for numbers in lists if numbers is not None for i in numbers if i >= 0})
    place = {old: new for new, old in enumerate(used)} | {-1: -1}  # -1 stands for an optional input left out

    def moved(numbers: Any) -> Any:
        return None if numbers is None else np.array([place[int(i)] for i in numbers], np.int32)

    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for operator in graph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
        operator.intermediates = moved(operator.intermediates)
        operator.debugMetadataIndex = -1
    graph.tensors = [graph.tensors[i] for i in used]


def _renumber_codes(model: Any, graph: Any) -> None:
    used = sorted({operator.opcodeIndex for operator in graph.operators})
    for operator in graph.operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[i] for i in used]


def _renumber_buffers(model: Any, graph: Any) -> None:
    owners = [*graph.tensors, *(model.metadata or [])]
    used = sorted({0} | {owner.buffer for owner in owners})  # buffer 0 is the empty one by convention
    for owner in owners:
        owner.buffer = used.index(owner.buffer)
    model.buffers = [model.buffers[i] for i in used]
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise ModelError("the model keeps its constants outside of its graph: too large for a device")


def pack_model(model: Any) -> bytes:
    """Write an object tree (ModelT) as a TFLite file; the same tree gives the same bytes."""
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):
        """Aligns byte vectors as schema.fbs demands; the generated code forgets `force_align`."""

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            wide = BUFFER_ALIGNMENT_BYTES if elemSize == 1 else alignment
            return super().StartVector(elemSize, numElems, max(alignment, wide))

    builder = AlignedBuilder(0)
    builder.Finish(model.Pack(builder), file_identifier=TFLITE_MAGIC)
    return bytes(builder.Output())


def _uncut(data: bytes, graph: Any) -> Cut:
    output = graph.tensors[int(graph.outputs[0])]
    feature_port((port_of(output),), "the model")
    return Cut(data, _text(output.name), _values(output), 0)


def operator_name(model: Any, operator: Any) -> str:
    """Return an operation's name as schema.fbs spells it, or the name of a custom one."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode is not None:
        return _text(code.customCode)
    # Files of old converters fill only the first field, new ones both; the larger is the true one.
    return _names(_schema().BuiltinOperator)[max(code.builtinCode, code.deprecatedBuiltinCode)]


def port_of(tensor: Any) -> Port:
    """Describe a tensor of the file (TensorT): name, shape, dtype, quantisation."""
    shape = tuple(_numbers(tensor.shape))
    scales: list[float] = []
    zero_points: list[int] = []
    if tensor.quantization is not None:
        scales, zero_points = _numbers(tensor.quantization.scale), _numbers(tensor.quantization.zeroPoint)
    return Port(
        name=_text(tensor.name),
        shape=shape,
        signature=tuple(_numbers(tensor.shapeSignature)) or shape,
        dtype=_names(_schema().TensorType)[tensor.type].lower(),
        scales=tuple(scales),
        zero_point=zero_points[0] if zero_points else 0,
    )


def _numbers(vector: Any) -> list[Any]:
    return [] if vector is None else np.asarray(vector).tolist()


def _names(enumeration: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


def _is_vector(tensor: Any) -> bool:
    """Tell whether all sizes but the last are 1: one value per channel, no map."""
    return tensor.shape is not None and len(tensor.shape) >= 2 and all(n == 1 for n in tensor.shape[:-1])


def _values(tensor: Any) -> int:
    return int(np.prod(tensor.shape))


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else (name or "")
