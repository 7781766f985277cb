"""Decides in which precision a Jetson board gets its network: int8 where its GPU multiplies int8, else fp16.

From NVIDIA's support matrix of TensorRT, hardware and precision: INT8 needs compute capability 6.1 or 7.x and
newer; 5.3 and 6.2 have fast FP16 only.
"""

from typing import NamedTuple

from edge_cl.errors import ConfigError


class Board(NamedTuple):
    """A board family.

    Attributes:
        name: what a person writes after `--board`.
        capability: CUDA compute capability of its GPU.
        jetpack: the newest JetPack line that it gets.
        tensorrt: the TensorRT of that line.
        precision: `fp16` or `int8`.
    """

    name: str
    capability: tuple[int, int]
    jetpack: str
    tensorrt: str
    precision: str


BOARDS = (
    Board("nano", (5, 3), "4.6", "8.2", "fp16"),
    Board("tx1", (5, 3), "4.6", "8.2", "fp16"),
    Board("tx2", (6, 2), "4.6", "8.2", "fp16"),
    Board("xavier", (7, 2), "5.1", "8.5", "int8"),
    Board("orin", (8, 7), "6.2", "10.3", "int8"),
)
DEFAULT_BOARD = "orin"


def choose_board(text: str) -> Board:
    """Return the board that a text names: its family, or a name that holds it (`Jetson Orin Nano Super`).

    Raises:
        ConfigError: no board of the table.
    """
    words = text.lower().replace("-", " ").replace("_", " ").split()
    # "Orin Nano" is an Orin: the family decides, and "nano" alone is the Jetson Nano.
    for board in (*reversed(BOARDS),):
        if board.name in words:
            return board
    names = ", ".join(board.name for board in BOARDS)
    raise ConfigError(f"{text!r} is no board that is known here: give one of {names}")


def has_int8(capability: tuple[int, int]) -> bool:
    """Tell whether a GPU of this compute capability multiplies int8 faster than fp16."""
    return capability == (6, 1) or capability >= (7, 0)
