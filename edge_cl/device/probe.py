"""Tries what only trying can tell: interpreter, delegate, staged backbone, the kernel's clock flag."""

import base64
import ctypes
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from edge_cl.config import Settings
from edge_cl.device.health import FAIL, OK, WARN, Finding
from edge_cl.device.staged import open_staged
from edge_cl.errors import EdgeError
from edge_cl.vision.engines import edgetpu, litert

# One 1x1 convolution, (1, 2, 2, 3) int8 to (1, 2, 2, 4): the smallest graph that XNNPACK takes over. Made
# with LiteRT's schema (816 bytes), compressed. An interpreter counts as present when it has run a model.
PROBE_MODEL = (
    "eNqNUrFOwzAQfXasKi0GKhEhhgwMDB1AQmLpViamDgwZGJgKEUKKaIWKWBj6BXwFX8DHMPdDUM3ZfiVpK0QtPV/ufL57vrwcQHE1"
    "vEBYezhChi4sUhjxIB4wEcwEcw0kiLgR9AVG8OWc87aL/1Yr1G3xnhUsHJTmZmBCfFdQ3j+UZ3fV8eR5PCrFV6xvG/wsYxU5TpmX"
    "8S2H4dxih2/JIwl1IlsvfHbkfD/U6vCuYo5C/VYwrmmTOi/wrcSZi72l/7lwzvM6jyltbz8klpKbWptK9GeXvu74ZRpqLPtp1nyX"
    "GWecu47XdCHbN+ueMm+bxbxBE77fiH1NQwsHa1ooav7ta9neXOzf27L/X71feWYa/yEhjyz8JfzyyKk9z6EfNGGDs9RESl2ozRkP"
    "/Owen7Ax42RFY3U/u6qD5AflNTVM"
)
PROBE_INPUT = (2, 2, 3)
TIME_ERROR = 5  # what adjtimex(2) returns when nothing keeps the clock synchronised
TIMEX_BYTES = 512  # struct timex has 208 on 64 bits; all zero only asks


def interpreter() -> list[Finding]:
    """Load and run a tiny model with the first interpreter that can."""
    descriptor = os.memfd_create("probe.tflite")
    try:
        os.write(descriptor, zlib.decompress(base64.b64decode(PROBE_MODEL)))
        engine = litert.open_interpreter(Path(f"/proc/self/fd/{descriptor}"))
        engine.run(np.ones(PROBE_INPUT, np.int8))
    except EdgeError as error:
        return [Finding("interpreter", FAIL, str(error), litert.INSTALL_HINT)]
    finally:
        os.close(descriptor)
    title = next((title for title, module in litert.INTERPRETERS if module in sys.modules), "unknown")
    found = [Finding("interpreter", OK, f"{title} loads and runs a model")]
    if engine.kernels == "xnnpack":
        return [*found, Finding("XNNPACK", OK, "computes the graph")]
    advice = "install LiteRT where it has a wheel: `pip install ai-edge-litert`; it is many times faster"
    return [*found, Finding("XNNPACK", WARN, "does not compute the graph", advice)]


def coral(settings: Settings | None, sys_root: Path) -> list[Finding]:
    """Look for Coral devices and for the library that drives them, or for the delegate that is asked for."""
    devices = edgetpu.coral_devices(sys_root)
    asked = settings.engine.delegate if settings else ""
    found = [
        Finding("Coral", OK, f"{device.bus} {device.address}: {device.description}") for device in devices
    ]
    if asked.partition(":")[0] == "tensorrt":
        asked = ""  # the row of the backbone tells, which runs it
    if not devices and not asked:
        return [Finding("Coral", OK, "none on USB or PCIe (not needed)")]
    choice = edgetpu.choose_delegate(asked or "edgetpu")
    fault = edgetpu.library_fault(choice.library)
    if fault is not None:
        return [*found, Finding("delegate", FAIL if asked else WARN, fault, edgetpu.INSTALL_HINT)]
    found.append(Finding("delegate", OK, f"{choice.library} can be loaded"))
    if asked and choice.is_edgetpu and not devices:
        advice = "plug the Coral in, and see docs/hardware.md for the udev rule"
        found.append(Finding("Coral", FAIL, "none on USB or PCIe, but the settings ask for one", advice))
    return found


def backbone(folder: Path, settings: Settings | None) -> list[Finding]:
    """Open the backbone in use and run it once."""
    if settings is None:
        return [Finding("backbone", WARN, f"{folder} holds no learner", "run `edge-cl init`")]
    try:
        with open_staged(folder, settings) as opened:
            opened.embed(np.zeros((*opened.input_size, 3), np.uint8))
            text = f"runs with {opened.kernels} kernels, {opened.space.size} values a picture"
            return [Finding("backbone", OK, text)]
    except EdgeError as error:
        return [Finding("backbone", FAIL, str(error), "add it again with `edge-cl backbone add FILE`")]


def is_clock_synchronised() -> bool | None:
    """Ask the kernel whether something keeps its clock right; None where it cannot be asked."""
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != TIME_ERROR
