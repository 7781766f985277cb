"""Loads delegates (the Edge TPU's, or any TFLite plugin), and tells which Coral devices this machine sees."""

import ctypes
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edge_cl.errors import EngineError
from edge_cl.vision.chatter import native_chatter_held
from edge_cl.vision.engines import litert
from edge_cl.vision.files import one_line

CUSTOM_OP = b"edgetpu-custom-op"  # what the Edge TPU compiler leaves in a file that it compiled
LIBRARY = "libedgetpu.so.1"  # the name in Google's and in the community's Debian packages
INSTALL_HINT = "install the Edge TPU runtime (docs/hardware.md), or use the CPU file"

# (vendor, product) in hexadecimal, as the kernel prints them.
USB_IDS = {
    ("1a6e", "089a"): "Coral USB Accelerator, firmware not loaded yet (it loads at first use)",
    ("18d1", "9302"): "Coral USB Accelerator, ready",
}
PCI_IDS = {("1ac1", "089a"): "Coral PCIe or M.2 Accelerator"}


class DelegateChoice(NamedTuple):
    """A delegate as the person named it: `edgetpu`, `edgetpu:usb`, `edgetpu:pci:0`, or a library's path.

    Attributes:
        name: short name for the kernel set.
        library: what the loader is asked for.
        options: passed to the plugin as strings.
        is_edgetpu: the Edge TPU runtime rather than another plugin.
    """

    name: str
    library: str
    options: dict[str, str]
    is_edgetpu: bool


class CoralDevice(NamedTuple):
    """One accelerator seen by the kernel: its bus (`usb` or `pci`), its address there, and what it is."""

    bus: str
    address: str
    description: str


def choose_delegate(text: str) -> DelegateChoice:
    """Read the value of a `--delegate` option."""
    if text == "edgetpu" or text.startswith("edgetpu:"):
        device = text.partition(":")[2]
        return DelegateChoice("edgetpu", LIBRARY, {"device": device} if device else {}, True)
    stem = Path(text).name.split(".")[0]
    return DelegateChoice(stem.removeprefix("lib"), text, {}, "edgetpu" in stem)


def open_engine(path: Path, num_threads: int = 1, delegate: str | None = None) -> litert.LitertEngine:
    """Open a model file in this process, on the CPU or through a delegate.

    Raises:
        ModelError: the file cannot be loaded.
        EngineError: no interpreter works here, or the delegate is absent or failed.
    """
    if delegate is None:
        return litert.open_interpreter(path, num_threads)
    choice = choose_delegate(delegate)
    kernels = f"delegate:{choice.name}"
    pycoral = real_pycoral() if choice.is_edgetpu and choice.library == LIBRARY else None
    if pycoral is not None:
        return _open_with_pycoral(pycoral, path, choice, kernels)
    return litert.open_interpreter(path, num_threads, _loader(choice), kernels)


def real_pycoral() -> Any | None:
    """Return Google's `pycoral.utils.edgetpu`, or None.

    Asked for by that module and never by the distribution's name: the package index has another project
    called pycoral.
    """
    try:
        module = importlib.import_module("pycoral.utils.edgetpu")
    except Exception:  # its compiled half fails in many ways beside another Python or numpy
        return None
    return module if hasattr(module, "make_interpreter") else None


def library_fault(library: str) -> str | None:
    """Say why a delegate's library cannot be loaded; None when it can.

    Probed here because the runtime's `load_delegate` on a missing library prints a traceback from a
    destructor that nobody can catch.
    """
    try:
        handle = ctypes.CDLL(library)
    except OSError as error:
        return one_line(error)
    if not hasattr(handle, "tflite_plugin_create_delegate"):
        return f"{library} is a library, but not a TFLite delegate"
    return None


def coral_devices(sys_root: Path = Path("/sys")) -> tuple[CoralDevice, ...]:
    """List the Coral accelerators that the kernel sees on USB and PCIe."""
    found = []
    for bus, ids, vendor, product in (
        ("usb", USB_IDS, "idVendor", "idProduct"),
        ("pci", PCI_IDS, "vendor", "device"),
    ):
        for device in sorted((sys_root / "bus" / bus / "devices").glob("*")):
            key = (_hex_id(device / vendor), _hex_id(device / product))
            if key in ids:
                found.append(CoralDevice(bus, device.name, ids[key]))
    return tuple(found)


def _open_with_pycoral(pycoral: Any, path: Path, choice: DelegateChoice, kernels: str) -> litert.LitertEngine:
    try:
        with native_chatter_held(litert.is_announcement):
            interpreter = pycoral.make_interpreter(str(path), device=choice.options.get("device"))
            return litert.LitertEngine(litert.allocated(interpreter), kernels)
    except (ValueError, RuntimeError, OSError) as error:
        raise EngineError(
            f"pycoral could not open the Edge TPU: {one_line(error)}: {INSTALL_HINT}"
        ) from error


def _loader(choice: DelegateChoice) -> Callable[[Any], Any]:
    """Return what turns a runtime's `load_delegate` into this delegate."""

    def load(load_delegate: Any) -> Any:
        fault = library_fault(choice.library)
        if fault:
            raise EngineError(f"the delegate {choice.name!r} is not here ({fault}): {INSTALL_HINT}")
        try:
            return load_delegate(choice.library, choice.options)
        except (ValueError, RuntimeError, OSError) as error:
            raise EngineError(f"the delegate {choice.name!r} refused: {one_line(error)}") from error

    return load


def _hex_id(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip().lower().removeprefix("0x")
    except (OSError, UnicodeDecodeError):
        return ""
