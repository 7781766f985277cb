"""What the doctor makes of the trees that real kernels show."""

from pathlib import Path

import pytest

from edge_cl.device import health
from edge_cl.device.health import FAIL, OK, WARN

MEMINFO = "MemTotal:         {total} kB\nMemFree:           12345 kB\nMemAvailable:     {available} kB\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def verdicts(findings: list[health.Finding]) -> list[str]:
    assert all(
        bool(found.advice) == (found.verdict != OK) for found in findings
    )  # a complaint says what to do
    return [found.verdict for found in findings]


@pytest.mark.parametrize(("available", "verdict"), [(400_000, OK), (100_000, WARN)])
def test_memory_is_judged_by_what_is_available(tmp_path, available, verdict):
    root = tree(tmp_path, {"proc/meminfo": MEMINFO.format(total=444_000, available=available)})
    assert verdicts(health.memory(root)) == [verdict]


def test_a_kernel_that_tells_nothing_is_no_reason_to_guess(tmp_path):
    assert verdicts(health.memory(tmp_path)) == [WARN]
    for probe in (health.temperature, health.throttling, health.wear, health.jetson):
        assert probe(tmp_path) == []
    assert health.board(tmp_path) == ""


@pytest.mark.parametrize(("milli", "verdict"), [("48312", OK), ("74000", WARN), ("85123", FAIL)])
def test_the_hottest_zone_decides(tmp_path, milli, verdict):
    files = {
        "sys/class/thermal/thermal_zone0/temp": "30000\n",
        "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": f"{milli}\n",
        "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone2/temp": "broken\n",
    }
    found = health.temperature(tree(tmp_path, files))
    assert verdicts(found) == [verdict]
    assert "cpu-thermal" in found[0].text


@pytest.mark.parametrize(
    ("flags", "verdict", "words"),
    [("0", OK, "none"), ("50005", FAIL, "now: under-voltage, throttled"), ("50000", WARN, "under-voltage")],
)
def test_a_raspberry_pi_tells_of_bad_power(tmp_path, flags, verdict, words):
    root = tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": f"{flags}\n"})
    found = health.throttling(root)
    assert verdicts(found) == [verdict]
    assert words in found[0].text


@pytest.mark.parametrize(
    ("life", "reserve", "verdict", "words"),
    [
        ("0x01 0x01", "0x01", OK, "up to 10 %"),
        ("0x02 0x09", "0x01", WARN, "up to 90 %"),
        ("0x0b 0x02", "0x01", FAIL, "up to 100 %"),
        ("0x01 0x01", "0x02", WARN, "80 % of the reserve"),
        ("0x01 0x01", "0x03", FAIL, "90 %"),
        ("0x00 0x00", "0x00", OK, "does not tell"),
        ("", "", OK, "does not tell"),
    ],
)
def test_the_wear_of_a_card_is_read_where_it_tells(tmp_path, life, reserve, verdict, words):
    card = "sys/block/mmcblk0"
    files = {
        f"{card}/device/life_time": life, f"{card}/device/pre_eol_info": reserve,
        f"{card}/device/name": "BJTD4R", "sys/block/mmcblk0boot0/device/name": "BJTD4R",
    }  # fmt: skip
    found = health.wear(tree(tmp_path, files))
    assert verdicts(found) == [verdict]
    assert words in found[0].text
    assert "mmcblk0 BJTD4R" in found[0].text


def test_a_jetson_is_named(tmp_path):
    files = {
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n",
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    }
    found = health.jetson(tree(tmp_path, files))
    assert [each.text for each in found] == ["NVIDIA Jetson Nano Developer Kit, L4T R32"]


def test_a_pi_is_no_jetson(tmp_path):
    root = tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi Zero 2 W Rev 1.0\0"})
    assert health.board(root) == "Raspberry Pi Zero 2 W Rev 1.0"
    assert health.jetson(root) == []


@pytest.mark.parametrize(
    ("year", "is_synchronised", "verdict"),
    [(1970, True, FAIL), (2120, True, FAIL), (2026, False, WARN), (2026, True, OK), (2026, None, OK)],
)
def test_a_clock_is_judged_by_its_year_and_by_who_keeps_it(year, is_synchronised, verdict):
    assert verdicts(health.clock(year, is_synchronised)) == [verdict]


def test_the_disk_is_looked_at_where_the_state_will_be(tmp_path):
    assert verdicts(health.disk(tmp_path / "not" / "yet"))[0] in {OK, WARN, FAIL}
    assert str(tmp_path) in health.disk(tmp_path / "not" / "yet")[0].text
    assert verdicts(health.disk(Path("/proc"))) == [FAIL]


def test_the_gravest_finding_is_the_verdict():
    found = [health.Finding("a", verdict, "") for verdict in (OK, FAIL, WARN)]
    assert health.worst(found) == FAIL
    assert health.worst(found[:1]) == OK
    assert health.worst([]) == OK
