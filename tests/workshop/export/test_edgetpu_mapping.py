"""What the Edge TPU would run of a TFLite file: real exports, real pairs of Google, and each rule alone."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ModelError
from host_trainer.export.edgetpu.constraints import RULES, Refusal, refusal
from host_trainer.export.edgetpu.executable import read_compiled
from host_trainer.export.edgetpu.graph import (
    MAX_FILE_BYTES,
    Graph,
    Operation,
    Tensor,
    load_graph,
    load_model,
    read_graph,
)
from host_trainer.export.edgetpu.mapping import FILE_REFUSED, MAPPED, ONE_PART, Verdict, place
from host_trainer.export.edgetpu.memory import LEAST_ROOM_BYTES, estimate, parameter_bytes

# Files of the developer data: operations that run on the Edge TPU, of how many, and what refuses the file.
REAL_FILES = {
    "coral/mobilenet_quant_v1_224_head_layers": (3, 3, ()),
    "coral/mobilenet_v1_0.25_128_quant": (31, 31, ()),
    "coral/mobilenet_v1_0.5_160_quant": (31, 31, ()),
    "coral/mobilenet_v1_1.0_224_quant_embedding_extractor": (28, 28, ()),
    "coral/mobilenet_v2_1.0_224_quant": (66, 66, ()),
    "coral/tf2_mobilenet_v2_1.0_224_ptq": (68, 68, ()),
    "coral/model_invoking_error": (0, 1, ("quantised",)),
    "mlperf_tiny/kws_ref_model": (0, 13, ("fixed sizes",)),
    "mlperf_tiny/kws_ref_model_float32": (0, 13, ("fixed sizes", "quantised")),
    "mlperf_tiny/pretrainedResnet": (0, 16, ("fixed sizes", "quantised")),
    "mlperf_tiny/pretrainedResnet_quant": (0, 16, ("fixed sizes",)),
    "mlperf_tiny/vww_96_float": (0, 31, ("fixed sizes", "quantised")),
    "mlperf_tiny/vww_96_int8": (0, 31, ("fixed sizes",)),
}
COMPILED = "coral/mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu"


# A small world for one rule: tensors by name, one operation on them.


def tensor(shape: tuple[int, ...], dtype: str = "int8", values: Any = None, **more: Any) -> Tensor:
    held = np.empty(0, np.uint8) if values is None else np.frombuffer(np.asarray(values).tobytes(), np.uint8)
    plain = Tensor("t", shape, shape, dtype, 1, 0, values is not None, len(held), held)
    return plain._replace(**more)


def int32(*values: int) -> Tensor:
    return tensor((len(values),), "int32", np.array(values, "<i4"))


def weights(*shape: int) -> Tensor:
    return tensor(shape, values=np.ones(shape, np.int8))


def world(name: str, *inputs: Tensor, output: Tensor, version: int = 1, **options: float) -> Graph:
    count = len(inputs)
    operation = Operation(0, name, version, False, tuple(range(count)), (count,), options, b"")
    return Graph((*inputs, output), (operation,), 1)


def refused(graph: Graph) -> Refusal | None:
    return refusal(graph, graph.operations[0])


PICTURE, MAP = tensor((1, 8, 8, 3)), tensor((1, 8, 8, 16))
VECTOR, SMALL = tensor((1, 16)), tensor((1, 1, 1, 16))
BROKEN_RULES = {
    "an operation nobody listed": (world("ARG_MAX", MAP, output=SMALL), "operation"),
    "an operation of the future": (world("OPERATION_999", MAP, output=SMALL), "operation"),
    "float activations": (world("ADD", MAP, MAP, output=tensor((1, 8, 8, 16), "float32")), "data type"),
    "computed int32": (world("ADD", tensor((1, 4), "int32"), VECTOR, output=VECTOR), "data type"),
    "a batch of 2": (world("RELU", tensor((2, 8, 8, 16)), output=MAP), "three dimensions"),
    "a version of tomorrow": (world("ADD", MAP, MAP, output=MAP, version=99), "operation version"),
    "pooling with an activation": (
        world("AVERAGE_POOL_2D", MAP, output=SMALL, fusedActivationFunction=1),
        "no fused activation",
    ),
    "uneven dilation": (
        world("CONV_2D", PICTURE, weights(16, 3, 3, 3), output=MAP, dilationWFactor=2, dilationHFactor=1),
        "equal dilation",
    ),
    "computed weights": (world("CONV_2D", PICTURE, MAP, output=MAP), "constant parameters"),
    "a constant in a concatenation": (
        world("CONCATENATION", MAP, weights(1, 8, 8, 16), output=tensor((1, 8, 8, 32)), axis=3),
        "constant input",
    ),
    "shuffled weights": (
        world("FULLY_CONNECTED", VECTOR, weights(4, 16), output=tensor((1, 4)), weightsFormat=1),
        "weights format",
    ),
    "a dense layer on a map": (
        world("FULLY_CONNECTED", tensor((8, 16)), weights(4, 16), output=tensor((8, 4))),
        "one-dimensional output",
    ),
    "a mean over the batch": (world("MEAN", MAP, int32(0, 1), output=SMALL), "no batch reduction"),
    "the same, counted from the end": (world("MEAN", MAP, int32(-4), output=SMALL), "no batch reduction"),
    "a mean over 3 channels": (
        world("MEAN", PICTURE, int32(3), output=tensor((1, 8, 8))),
        "channels a multiple of 4",
    ),
    "computed axes": (
        world("MEAN", MAP, int32()._replace(is_constant=True), output=SMALL),
        "constant axes",
    ),
    "padding of the batch": (
        world("PAD", MAP, int32(1, 0, 0, 0, 0, 0, 0, 0), output=MAP),
        "no batch padding",
    ),
    "packing along the batch": (
        world("PACK", VECTOR, VECTOR, output=tensor((2, 1, 16)), axis=0),
        "no packing of batches",
    ),
    "PReLU with an alpha a pixel": (
        world("PRELU", MAP, weights(8, 8, 16), output=MAP),
        "one alpha per channel",
    ),
    "resizing sixteen times": (
        world("RESIZE_BILINEAR", MAP, int32(128, 128), output=tensor((1, 128, 128, 16))),
        "precise resizing",
    ),
    "a softmax over a map": (world("SOFTMAX", MAP, output=MAP), "one dimension, at most 16000"),
    "a softmax of 20,000": (
        world("SOFTMAX", tensor((1, 20_000)), output=tensor((1, 20_000))),
        "one dimension, at most 16000",
    ),
    "splitting the batch": (world("SPLIT", int32(0), MAP, output=MAP), "no batch split"),
    "a slice that skips": (
        world("STRIDED_SLICE", MAP, int32(0), int32(8), int32(2), output=MAP),
        "strides of 1",
    ),
}
KEPT_RULES = {
    "a convolution": world("CONV_2D", PICTURE, weights(16, 3, 3, 3), int32(*range(16)), output=MAP),
    "a mean over the map": world("MEAN", MAP, int32(1, 2), output=tensor((1, 16))),
    "a mean over 16 channels": world("MEAN", MAP, int32(-1), output=tensor((1, 8, 8))),
    "zeros in a concatenation": world(
        "CONCATENATION", MAP, tensor((1, 8, 8, 16), values=np.zeros(1024, np.int8)), output=MAP
    ),
    "zeros, as quantised": world(
        "CONCATENATION",
        MAP,
        tensor((1, 8, 8, 16), values=np.full(1024, -5, np.int8), zero_point=-5),
        output=MAP,
    ),
    "padding of the sides": world("PAD", MAP, int32(0, 0, 1, 1, 1, 1, 0, 0), output=MAP),
    "a dense layer": world("FULLY_CONNECTED", VECTOR, weights(4, 16), output=tensor((1, 4))),
    "a picture of one more size of 1": world("RELU", tensor((1, 1, 8, 8, 3)), output=PICTURE),
    "resizing twice": world("RESIZE_BILINEAR", MAP, int32(16, 16), output=tensor((1, 16, 16, 16))),
    "a plain slice": world("STRIDED_SLICE", MAP, int32(0), int32(8), int32(1, 1), output=MAP),
}


@pytest.mark.parametrize(("graph", "constraint"), BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_a_broken_constraint_is_named_with_its_remedy(graph: Graph, constraint: str) -> None:
    found = refused(graph)
    assert found is not None
    assert found.constraint == constraint
    assert found.reason and found.remedy


@pytest.mark.parametrize("graph", KEPT_RULES.values(), ids=KEPT_RULES)
def test_what_keeps_the_constraints_is_not_refused(graph: Graph) -> None:
    assert refused(graph) is None
    assert place(graph).maps_fully


GUESSES = {
    "resizing beyond what was seen": world(
        "RESIZE_BILINEAR", MAP, int32(32, 32), output=tensor((1, 32, 32, 16))
    ),
    "a large reshape": world("RESHAPE", tensor((1, 64, 64, 4)), int32(1, 16384), output=tensor((1, 16384))),
    "a huge map": world("ADD", MAP, MAP, output=tensor((1, 2000, 2000, 4))),
    "dense weights with many scales": world(
        "FULLY_CONNECTED", VECTOR, weights(4, 16)._replace(scales=4), output=tensor((1, 4))
    ),
    "a grouped convolution": world("CONV_2D", MAP, weights(16, 3, 3, 4), output=MAP),
    "documented only": world("TRANSPOSE_CONV", int32(1), weights(4, 3, 3, 16), MAP, output=MAP),
}


@pytest.mark.parametrize("graph", GUESSES.values(), ids=GUESSES)
def test_a_guess_is_called_one(graph: Graph) -> None:
    (placement,) = place(graph).placements
    assert placement.on_edgetpu
    assert placement.doubt


def test_every_documented_operation_has_a_rule() -> None:
    assert len(RULES) == 41


# The partition.


def chain(*names: str, links: dict[int, tuple[int, ...]] | None = None) -> Graph:
    """Return operations in a row, each reading the one before, or the tensors that `links` names."""
    reads = {i: (i,) for i in range(len(names))} | (links or {})
    operations = tuple(
        Operation(i, name, 1, False, reads[i], (i + 1,), {}, b"") for i, name in enumerate(names)
    )
    return Graph((MAP,) * (len(names) + 1), operations, 1)


def fates(verdict: Verdict) -> list[bool]:
    return [each.on_edgetpu for each in verdict.placements]


def test_what_follows_the_first_refused_operation_stays_on_the_cpu() -> None:
    verdict = place(chain("RELU", "RELU", "EXP", "RELU", "RELU"))
    assert fates(verdict) == [True, True, False, False, False]
    assert [each.behind for each in verdict.placements] == [None, None, None, 2, 2]
    assert verdict.rows[("RELU", ONE_PART)] == 2
    assert verdict.stop is not None and verdict.stop.operation.number == 2


def test_what_precedes_the_part_may_be_on_the_cpu() -> None:
    verdict = place(chain("CAST", "RELU", "RELU"))
    assert fates(verdict) == [False, True, True]
    assert verdict.stop is not None and verdict.stop.operation.name == "CAST"


def test_a_branch_beside_the_cut_stays_in_the_part() -> None:
    verdict = place(chain("RELU", "EXP", "RELU", "RELU", links={2: (1,)}))
    assert fates(verdict) == [True, False, True, True]


def test_a_join_of_the_branch_and_the_cut_leaves_the_part() -> None:
    verdict = place(chain("RELU", "EXP", "RELU", "ADD", links={2: (1,), 3: (2, 3)}))
    assert fates(verdict) == [True, False, True, False]


@given(st.lists(st.sampled_from(["RELU", "EXP"]), min_size=1, max_size=12))
def test_there_is_one_part_and_no_way_back_into_it(names: list[str]) -> None:
    verdict = place(chain(*names))
    fate = fates(verdict)
    begin = fate.index(True) if True in fate else len(fate)
    end = begin + fate[begin:].index(False) if False in fate[begin:] else len(fate)
    assert not any(fate[end:])
    assert names[begin:end] == ["RELU"] * (end - begin)


def test_open_sizes_refuse_the_whole_file_and_say_what_would_map() -> None:
    graph = chain("RELU", "RELU")
    opened = MAP._replace(signature=(-1, 8, 8, 16))
    verdict = place(graph._replace(tensors=(opened, *graph.tensors[1:])))
    assert [fault.constraint for fault in verdict.faults] == ["fixed sizes"]
    assert verdict.mapped == 0
    assert verdict.rows == {("RELU", FILE_REFUSED): 2}


def test_loops_refuse_the_whole_file() -> None:
    verdict = place(chain("RELU")._replace(subgraphs=3))
    assert [fault.constraint for fault in verdict.faults] == ["one subgraph"]


# Real files.


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_are_placed_as_their_twins_and_their_kind_say(name: str, models_dir: Path) -> None:
    verdict = place(load_graph(models_dir / f"{name}.tflite"))
    mapped, count, faults = REAL_FILES[name]
    assert (verdict.mapped, len(verdict.placements)) == (mapped, count)
    assert tuple(fault.constraint for fault in verdict.faults) == faults


def test_every_file_of_the_developer_data_is_in_the_table(models_dir: Path) -> None:
    found = {str(f.relative_to(models_dir).with_suffix("")) for f in models_dir.rglob("*.tflite")}
    assert found == {*REAL_FILES, COMPILED}


def test_a_compiled_file_is_recognised_and_agrees_with_its_source(models_dir: Path) -> None:
    source = load_graph(models_dir / f"{COMPILED.removesuffix('_edgetpu')}.tflite")
    graph = load_graph(models_dir / f"{COMPILED}.tflite")
    compiled = read_compiled(graph)
    verdict = place(source)
    assert graph.is_compiled and not source.is_compiled
    assert (compiled.parts, compiled.left) == (1, 0)
    assert verdict.maps_fully
    foreseen = estimate(source, verdict)
    assert foreseen.total_bytes == pytest.approx(compiled.cached_bytes, rel=0.05)
    assert (foreseen.answer, compiled.streamed_bytes) == ("yes", 0)


# Our own exports.


def exported(network: Any, folder: Path, batch: int | None, is_float: bool = False) -> bytes:
    """Return the network as a TFLite file: int8 by post-training quantisation, or float."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = pytest.importorskip("keras")
    tensorflow = pytest.importorskip("tensorflow")
    shape = network.input_shape[1:]
    archive = keras.export.ExportArchive()
    archive.track(network)
    signature = [tensorflow.TensorSpec((batch, *shape), tensorflow.float32)]
    archive.add_endpoint("serve", lambda x: network(x, training=False), signature)
    archive.write_out(str(folder), verbose=False)
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(folder))
    if not is_float:
        rng = np.random.default_rng(0)
        pictures = [rng.uniform(-1, 1, (1, *shape)).astype(np.float32) for _ in range(4)]
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tensorflow.int8
    return bytes(converter.convert())


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A network of five layers: what a backbone is made of, and quick to convert."""
    keras = pytest.importorskip("keras", reason="the workshop's networks need keras")
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(keras.layers.ReLU(6.0)(x))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def our_int8(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return exported(tiny, tmp_path_factory.mktemp("int8"), batch=1)


def test_our_own_int8_export_maps_fully(our_int8: bytes) -> None:
    graph = read_graph(our_int8)
    verdict = place(graph)
    assert verdict.maps_fully
    assert not any(each.doubt for each in verdict.placements)
    assert verdict.stop is None
    assert estimate(graph, verdict).total_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("text", ["separable:0.25/32", "mobilenetv1:0.25/64", "mobilenetv2:0.35/64"])
def test_every_family_of_ours_maps_fully_with_a_head_too(text: str, tmp_path: Path) -> None:
    from host_trainer.backbones.networks import build, parse_spec, with_head

    network = with_head(build(parse_spec(text)), 10)
    assert place(read_graph(exported(network, tmp_path, batch=1))).maps_fully


def test_an_open_batch_is_flagged(tiny: Any, tmp_path: Path) -> None:
    verdict = place(read_graph(exported(tiny, tmp_path, batch=None)))
    assert "fixed sizes" in [fault.constraint for fault in verdict.faults]
    assert "batch of 1" in verdict.faults[0].remedy


def test_a_float_export_is_flagged(tiny: Any, tmp_path: Path) -> None:
    verdict = place(read_graph(exported(tiny, tmp_path, batch=1, is_float=True)))
    assert [fault.constraint for fault in verdict.faults] == ["quantised"]
    assert verdict.stop is not None and verdict.stop.operation.number == 0


# The parameter cache.


def test_parameters_are_padded_as_the_chip_keeps_them() -> None:
    graph = world("CONV_2D", PICTURE, weights(16, 3, 3, 3), output=MAP)
    assert parameter_bytes(graph, graph.operations[0]) == 64 * 9 * 4 + 64 * 8


def test_what_does_not_fit_is_streamed() -> None:
    wide = tensor((1, 8192), values=None)
    graph = world("FULLY_CONNECTED", wide, weights(2048, 8192), output=tensor((1, 2048)))
    cache = estimate(graph, place(graph))
    assert cache.answer == "no"
    assert cache.streamed_at_most == cache.total_bytes - LEAST_ROOM_BYTES
    assert 0 < cache.streamed_at_least < cache.streamed_at_most


# Hostile files.


def read_all(data: bytes) -> None:
    """Do all that the command does, on bytes from anywhere."""
    graph = read_graph(data)
    if graph.is_compiled:
        read_compiled(graph)
    estimate(graph, place(graph))


odd_tensors = st.builds(
    lambda shape, dtype, values, scales: tensor(shape, dtype, values, scales=scales),
    st.lists(st.integers(-1, 9), max_size=6).map(tuple),
    st.sampled_from(["int8", "uint8", "int32", "float32", "int64"]),
    st.none() | st.lists(st.integers(0, 255), max_size=12).map(lambda v: np.array(v, np.uint8)),
    st.integers(0, 3),
)
odd_options = st.dictionaries(
    st.sampled_from(["axis", "fusedActivationFunction", "dilationWFactor", "newAxisMask"]),
    st.integers(-9, 9),
)


@given(
    st.sampled_from([*RULES, "EXP"]), st.lists(odd_tensors, max_size=5), odd_tensors, odd_options,
    st.integers(0, 3),
)  # fmt: skip
def test_no_shape_of_an_operation_crashes_a_rule(
    name: str, inputs: list[Tensor], output: Tensor, options: dict[str, int], version: int
) -> None:
    graph = world(name, *inputs, output=output, version=version, **options)
    estimate(graph, place(graph))


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"\x1c\0\0\0TFL3", b"GIF89a" * 9], ids=repr)
def test_what_is_no_model_is_a_model_error(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_all(data)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_export_is_read_or_refused_but_never_crashes(our_int8: bytes, data: st.DataObject) -> None:
    _damage(our_int8, data)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_compiled_file_is_read_or_refused(models_dir: Path, data: st.DataObject) -> None:
    _damage((models_dir / f"{COMPILED}.tflite").read_bytes(), data)


def _damage(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)), label="cut")])
    near = st.integers(0, 4096) | st.integers(-4096, -1) | st.integers(0, max(len(damaged) - 1, 0))
    for place_, value in data.draw(st.lists(st.tuples(near, st.integers(0, 255)), max_size=16)):
        if damaged:
            damaged[place_ % len(damaged)] = value
    try:
        read_all(bytes(damaged))
    except ModelError as error:
        assert "\n" not in str(error)


def test_operations_of_the_future_are_named_by_their_number(models_dir: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(
        schema.Model.GetRootAs((models_dir / "coral/mobilenet_v1_0.25_128_quant.tflite").read_bytes(), 0)
    )
    for code in model.operatorCodes:
        code.builtinCode, code.deprecatedBuiltinCode = 9999, 127
    verdict = place(read_graph(_packed(model)))
    assert {each.operation.name for each in verdict.placements} == {"OPERATION_9999"}
    assert verdict.mapped == 0


def test_an_index_beyond_the_tensors_is_damage(models_dir: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    data = (models_dir / "coral/mobilenet_quant_v1_224_head_layers.tflite").read_bytes()
    for hostile in (-2, 10_000):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        model.subgraphs[0].operators[0].inputs = np.array([hostile, 1, 2], np.int32)
        with pytest.raises(ModelError, match="not there"):
            read_graph(_packed(model))


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_file_too_large_for_any_edge_tpu_is_not_even_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.tflite"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelError, match="smaller"):
        load_model(huge)


def test_a_mapped_operation_says_so_in_the_compilers_words() -> None:
    assert place(chain("RELU")).rows == {("RELU", MAPPED): 1}
