"""What is decided without TensorRT: what an ONNX file says, which engines stay, whether memory suffices."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ModelError
from edge_cl.vision.backbone import read_model_file
from edge_cl.vision.engines.tensorrt_worker import (
    MAX_PLANS,
    Key,
    Plan,
    memory_fault,
    pack_plan,
    superseded,
    unpack_plan,
    workspace_bytes,
)
from edge_cl.vision.onnx_file import OnnxFacts, read_facts

MB = 1024 * 1024
MEMINFO = "MemTotal:  4000000 kB\nMemAvailable:  {} kB\nHugePages_Total:  0\nSwapFree:  {} kB\n"


def field(number: int, payload: bytes | int) -> bytes:
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def model(precision: bytes = b"int8", graph: bytes = b"g" * 9000) -> bytes:
    """An ONNX file's outermost message, field by field, its graph opaque."""
    metadata = field(1, b"edge_cl.precision") + field(2, precision)
    foreign = field(1, b"com.microsoft") + field(2, 1)
    return (
        field(1, 7) + field(2, b"edge-cl") + field(7, graph) + field(8, foreign) + field(8, field(2, 13))
        + field(14, field(1, b"author") + field(2, b"somebody")) + field(14, metadata)
    )  # fmt: skip


def facts(data: bytes) -> OnnxFacts | None:
    return read_facts(io.BytesIO(data), len(data))


def test_a_file_says_its_opset_and_precision() -> None:
    assert facts(model()) == (7, 13, "int8")
    assert facts(model(b"fp16", graph=b"")) == (7, 13, "fp16")
    assert facts(model(b"fp8")) == (7, 13, "")


def test_a_file_cut_anywhere_is_no_onnx_file_or_says_nothing_false() -> None:
    whole = model(graph=b"g" * 50)
    for end in range(len(whole)):
        found = facts(whole[:end])
        assert found is None or found[:2] == (7, 13)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    facts(data)


@given(st.data())
def test_any_damage_is_read_without_an_exception(data: st.DataObject) -> None:
    whole = bytearray(model(graph=b"g" * 50))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    facts(bytes(whole))


@pytest.mark.parametrize(("name", "precision"), [("QuantizeLinear", "int8"), ("Conv", "fp32")])
def test_a_file_of_another_exporter_is_known_by_its_operations(
    tmp_path: Path, name: str, precision: str
) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(field(1, 8) + field(7, b"g" * 8000 + name.encode()) + field(8, field(2, 13)))
    file = read_model_file(path)
    assert (file.format, file.precision, file.is_edgetpu) == ("onnx", precision, False)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 64, b"PK\x03\x04 a zip file", model()[:-3], field(1, 7) + field(8, field(2, 13))]
)
def test_what_is_neither_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is not a TFLite file, nor a whole ONNX file") as refusal:
        read_model_file(path)
    assert "\n" not in str(refusal.value)


def test_a_build_waits_for_memory_or_swap() -> None:
    assert memory_fault(MEMINFO.format(1_500_000, 0), 1400 * MB) is None
    assert memory_fault(MEMINFO.format(500_000, 1_000_000), 1400 * MB) is None
    fault = memory_fault(MEMINFO.format(512_000, 102_400), 1400 * MB)
    assert fault == "a build takes about 1400 MB, 500 MB of memory and 100 MB of swap are free"
    assert memory_fault("MemTotal: 4000 kB\n", 1400 * MB) is None  # an old kernel does not say


@given(st.integers(0, 1 << 42))
def test_the_workspace_is_a_share_of_the_memory_within_limits(memory_bytes: int) -> None:
    found = workspace_bytes(memory_bytes)
    assert 64 * MB <= found <= 1024 * MB
    assert found in (64 * MB, 1024 * MB, memory_bytes // 8)


keys = st.builds(Key, *[st.text(max_size=12)] * 4)
plans = st.builds(Plan, keys, st.integers(0, 10**9), st.binary(max_size=200))


@given(plans)
def test_a_plan_is_read_back_whole(plan: Plan) -> None:
    assert unpack_plan(pack_plan(plan)) == plan


@given(plans, st.data())
def test_a_plan_with_any_byte_changed_or_missing_never_reaches_tensorrt_as_another(
    plan: Plan, data: st.DataObject
) -> None:
    packed = bytearray(pack_plan(plan))
    place = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[place] ^= data.draw(st.integers(1, 255))
    else:
        del packed[place:]
    found = unpack_plan(bytes(packed))
    assert found is None or found.data == plan.data


@given(st.lists(plans, max_size=10, unique_by=lambda plan: plan.key))
def test_old_plans_go_and_the_newest_never(kept: list[Plan]) -> None:
    if not kept:
        return
    newest = max(kept, key=lambda plan: plan.number)
    gone = superseded(kept, newest.key)
    assert newest not in gone and len(kept) - len(gone) == min(len(kept), MAX_PLANS)
    stay = [plan for plan in kept if plan not in gone and plan != newest]
    assert all(old.number <= each.number for old in gone for each in stay)


def test_anything_else_about_an_engine_needs_another_file() -> None:
    key = Key("Orin-8.7", "10.3.0", "ab" * 32, "int8")
    others = [key._replace(**{name: "other"}) for name in Key._fields]
    assert len({each.file_name for each in (key, *others)}) == 5
    assert key.file_name.endswith(".plan") and len(key.file_name) == 37
