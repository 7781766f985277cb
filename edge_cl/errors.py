"""Every error this project raises on purpose, grouped by who must act.

EdgeError
|-- InputError         the person: what was given cannot be used; exit status 2
|   |-- ConfigError        settings, options, the shape of a command
|   |-- ImageError         a picture that cannot be read safely
|   |-- LabelError         a class name that cannot be kept
|   |-- ModelError         a backbone file that cannot serve
|   `-- MismatchError      things that do not belong together (another backbone, a newer version)
|-- EngineError        the hardware: an interpreter, a delegate, an accelerator
|-- StoreError         the storage: disk full, read-only, damaged, in use
|   |-- StoreBusyError     another process holds the state folder
|   `-- StoreDamagedError  the database does not read back whole
|-- TransportError     the network
|-- ProtocolError      the peer: bytes that break the agreed format
`-- ReleaseError       the publisher: a release that is not acceptable

Misuse by a programmer is ValueError or RuntimeError, never one of these.
Messages are one line: what is wrong, then how to mend it.
"""


class EdgeError(Exception):
    """Root of the tree; `exit_status` is what a command ends with."""

    exit_status = 1


class InputError(EdgeError):
    """The person must act: what was given cannot be used."""

    exit_status = 2


class ConfigError(InputError):
    """Settings or options that make no sense together."""


class ImageError(InputError):
    """A picture that is unreadable, truncated, not a picture, or too large to be decoded safely."""


class LabelError(InputError):
    """A class name that is empty, too long, or holds characters that cannot be kept."""


class ModelError(InputError):
    """A backbone file that is not TFLite, not for images, or cannot be cut at its embedding."""


class MismatchError(InputError):
    """State, backbone and program that do not belong together."""


class EngineError(EdgeError):
    """An interpreter, delegate or accelerator that is missing or has failed."""


class StoreError(EdgeError):
    """Storage that refuses: full, read-only, unreadable."""


class StoreBusyError(StoreError):
    """Another process holds the state folder."""

    exit_status = 2


class StoreDamagedError(StoreError):
    """A database that does not read back whole."""


class TransportError(EdgeError):
    """The network failed; trying again later may help."""


class ProtocolError(EdgeError):
    """Bytes from a peer that break the agreed format."""


class ReleaseError(EdgeError):
    """A release that may not be installed."""
