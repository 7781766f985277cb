"""Decides what this machine lacks to be a workshop, from the parts that were found on it."""

from collections.abc import Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """One thing the workshop is made of.

    Attributes:
        module: name by which Python imports it.
        purpose: what the workshop does with it.
        packages: index names it may come from, the one to install first.
    """

    module: str
    purpose: str
    packages: tuple[str, ...]


class Finding(NamedTuple):
    """A part and the version that is installed; None when it is not."""

    part: Part
    version: str | None


# The `host` extra brings tensorflow-cpu; on a machine with a GPU `tensorflow` may stand in its place.
PARTS = (
    Part("tensorflow", "training, and the int8 export", ("tensorflow-cpu", "tensorflow")),
    Part("keras", "the networks that are trained", ("keras",)),
    Part("onnx", "the export for Jetson boards", ("onnx",)),
    Part("tf2onnx", "turns networks into ONNX files", ("tf2onnx",)),
    Part("onnxruntime", "checks that the ONNX file answers as the network did", ("onnxruntime",)),
    Part("tuf", "signs what devices may install", ("tuf",)),
    Part("cryptography", "the keys that sign it", ("cryptography",)),
    Part("ai_edge_litert", "checks that the int8 file answers as the network did", ("ai-edge-litert",)),
)


def advice(findings: Sequence[Finding], devices: Sequence[str]) -> list[str]:
    """Return what to do, most urgent first; empty when nothing is missing.

    `devices` are the GPUs that TensorFlow sees.
    """
    missing = [finding.part for finding in findings if finding.version is None]
    lines = [f"pip install {part.packages[0]}  # {part.purpose}" for part in missing]
    if not devices and not any(part.module == "tensorflow" for part in missing):
        lines.append("no GPU is visible to TensorFlow: training runs on the CPU, which is slower")
    return lines
