"""Reads what the kernel says about the machine, and decides what of it a person should act on.

Every probe is a function of a tree (`root`, with proc/ and sys/ in it) and returns findings; none of them
changes anything. What a kernel does not tell is left out or said to be unknown, never guessed.
"""

import os
from pathlib import Path
from typing import NamedTuple

OK, WARN, FAIL = "ok", "warn", "fail"

MEGABYTE = 1_000_000  # bytes
MIN_AVAILABLE_BYTES = 150 * MEGABYTE  # learning with MobileNetV1 loaded takes about 110 MB
MIN_FREE_DISK_BYTES = 100 * MEGABYTE  # a full default state is about 30 MB; salvage and backup need copies
LOW_FREE_DISK_BYTES = 500 * MEGABYTE  # below this a person should know before it is full
WARM_C, HOT_C = 70.0, 80.0  # a Raspberry Pi slows down at 80 to 85 degrees, a Jetson at about 97
EARLIEST_YEAR, LATEST_YEAR = (
    2025,
    2099,
)  # a board without a clock battery wakes up in 1970 or at its image's date
MAX_FACT_BYTES = 4096  # what is read of any file under /proc and /sys

# Bits of the firmware's get_throttled (Raspberry Pi documentation, vcgencmd).
THROTTLED_NOW = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
THROTTLED_SINCE_BOOT = 16  # the same four, shifted: happened since the machine was started

# eMMC 5.0, EXT_CSD: life time in steps of 10 %, 0x0B = exceeded; pre-EOL 1 normal, 2 warning, 3 urgent.
LIFE_EXCEEDED = 0x0B
LIFE_WARN = 0x09  # 80 to 90 % used
PRE_EOL = {1: (OK, "normal"), 2: (WARN, "80 % of the reserve blocks are used"), 3: (FAIL, "90 % are used")}


class Finding(NamedTuple):
    """One line of the doctor.

    Attributes:
        topic: what was looked at, a word or two.
        verdict: `ok`, `warn` or `fail`.
        text: what was found.
        advice: what to do about it; "" when nothing.
    """

    topic: str
    verdict: str
    text: str
    advice: str = ""


def memory(root: Path) -> list[Finding]:
    """Judge the memory that is available to new programs."""
    facts = _keyed(_read(root / "proc/meminfo"))
    if "MemTotal" not in facts or "MemAvailable" not in facts:
        return [Finding("memory", WARN, "the kernel does not tell", "look at it with `free -m`")]
    total, available = (_kilobytes(facts[name]) for name in ("MemTotal", "MemAvailable"))
    text = f"{available // MEGABYTE} MB available of {total // MEGABYTE} MB"
    if available < MIN_AVAILABLE_BYTES:
        return [Finding("memory", WARN, text, "stop other programs, or use a smaller backbone")]
    return [Finding("memory", OK, text)]


def disk(folder: Path) -> list[Finding]:
    """Judge free space, and the right to write, where a state folder is or will be."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        facts = os.statvfs(place)
    except OSError as error:
        return [Finding("disk", FAIL, f"{place}: {error.strerror}", "look at the storage")]
    free = facts.f_bavail * facts.f_frsize
    text = f"{free // MEGABYTE} MB free at {place}"
    if facts.f_flag & os.ST_RDONLY or not os.access(place, os.W_OK):
        return [
            Finding("disk", FAIL, f"{place} cannot be written to", "remount it, or choose another --state")
        ]
    if free < MIN_FREE_DISK_BYTES:
        return [Finding("disk", FAIL, text, "free some space before teaching")]
    if free < LOW_FREE_DISK_BYTES:
        return [Finding("disk", WARN, text, "free some space soon")]
    return [Finding("disk", OK, text)]


def clock(year: int, is_synchronised: bool | None) -> list[Finding]:
    """Judge the clock by its year, and by what the kernel says of its synchronisation (None: it does not)."""
    if not EARLIEST_YEAR <= year <= LATEST_YEAR:
        advice = "set it, or connect to a network with time: releases and logs are judged by it"
        return [Finding("clock", FAIL, f"the year is {year}", advice)]
    if is_synchronised is None:
        return [
            Finding("clock", OK, f"the year is {year}; the kernel does not say whether it is synchronised")
        ]
    if not is_synchronised:
        advice = "enable NTP, for example `timedatectl set-ntp true`"
        return [Finding("clock", WARN, f"the year is {year}, but nothing keeps it synchronised", advice)]
    return [Finding("clock", OK, "synchronised")]


def temperature(root: Path) -> list[Finding]:
    """Judge the hottest of the kernel's thermal zones; nothing where there is none."""
    zones = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _integer(_read(zone / "temp"))
        if value is not None and value > 0:
            zones[_read(zone / "type") or zone.name] = value / 1000
    if not zones:
        return []
    name, hottest = max(zones.items(), key=lambda zone: zone[1])
    text = f"{hottest:.0f} degrees Celsius ({name})"
    if hottest >= HOT_C:
        return [Finding("temperature", FAIL, text, "cool it: fan, heat sink, or fewer --threads")]
    if hottest >= WARM_C:
        return [Finding("temperature", WARN, text, "give it air before long work")]
    return [Finding("temperature", OK, text)]


def throttling(root: Path) -> list[Finding]:
    """Judge a Raspberry Pi's power and heat flags; nothing on machines without them."""
    found = sorted((root / "sys/devices/platform").glob("*/*firmware*/get_throttled"))
    flags = [_hexadecimal(_read(path)) for path in found]
    if not flags or flags[0] is None:
        return []
    now = [name for bit, name in THROTTLED_NOW.items() if flags[0] >> bit & 1]
    earlier = [name for bit, name in THROTTLED_NOW.items() if flags[0] >> bit + THROTTLED_SINCE_BOOT & 1]
    advice = "use the official power supply and a short cable; cool it"
    if now:
        return [Finding("throttling", FAIL, f"now: {', '.join(now)}", advice)]
    if earlier:
        return [Finding("throttling", WARN, f"since it was started: {', '.join(earlier)}", advice)]
    return [Finding("throttling", OK, "none since it was started")]


def wear(root: Path) -> list[Finding]:
    """Judge the wear figures of eMMC and of the SD cards that report them; one finding a card."""
    findings = []
    for card in sorted((root / "sys/block").glob("mmcblk*")):
        if "boot" in card.name or "rpmb" in card.name:
            continue
        name = f"{card.name} {_read(card / 'device/name')}".strip()
        findings.append(_wear(name, _read(card / "device/life_time"), _read(card / "device/pre_eol_info")))
    return findings


def jetson(root: Path) -> list[Finding]:
    """Say which Jetson this is; nothing on other machines."""
    release = _read(root / "etc/nv_tegra_release").lstrip("# ").split(",")
    model = board(root)
    if not release[0] and "jetson" not in model.lower():
        return []
    text = f"{model or 'Jetson'}, L4T {release[0].split('(')[0].strip() or 'of unknown release'}"
    return [Finding("Jetson", OK, text, "")]


def board(root: Path) -> str:
    """Return the board's name from its device tree or firmware; "" when the kernel does not tell."""
    tree = _read(root / "proc/device-tree/model") or _read(root / "sys/firmware/devicetree/base/model")
    return tree or _read(root / "sys/class/dmi/id/product_name")


def worst(findings: list[Finding]) -> str:
    """Return the gravest verdict."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in (FAIL, WARN) if verdict in verdicts), OK)


def _wear(name: str, life_time: str, pre_eol: str) -> Finding:
    used = [step for step in map(_hexadecimal, life_time.split()) if step]
    reserve = _hexadecimal(pre_eol)
    if not used and not reserve:
        return Finding("flash wear", OK, f"{name}: the card does not tell (SD cards rarely do)")
    verdict, text = PRE_EOL.get(reserve or 0, (OK, "not told"))
    worst_step = max(used, default=0)
    if worst_step >= LIFE_EXCEEDED:
        verdict = FAIL
    elif worst_step >= LIFE_WARN and verdict == OK:
        verdict = WARN
    life = f"up to {min(worst_step * 10, 100)} % of its life used" if used else "life not told"
    advice = "" if verdict == OK else "make a backup now (`edge-cl backup`) and replace the card"
    return Finding("flash wear", verdict, f"{name}: {life}, reserve: {text}", advice)


def _read(path: Path) -> str:
    """Return the text of a kernel's file without the NUL that device trees end in; "" when unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FACT_BYTES).decode("utf-8", "replace").strip().strip("\0").strip()
    except OSError:
        return ""


def _keyed(text: str) -> dict[str, str]:
    """Split lines of `name: value`."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _kilobytes(text: str) -> int:
    return 1024 * (_integer(text.split()[0] if text else "") or 0)


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
