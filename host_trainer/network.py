"""The noun that travels between the workshop's commands: a network and what must be known to use it."""

from typing import Any, NamedTuple

from edge_cl.errors import ModelError

WEIGHTED = ("Conv2D", "DepthwiseConv2D", "Dense")  # Keras kinds that have a kernel


class Network(NamedTuple):
    """A network and its meaning.

    Attributes:
        model: functional Keras model, (B, H, W, 3) float32 to a feature (B, D) or logits (B, C).
        classes: names of the logits in their order; empty for a bare backbone.
        input_range: what pixel values 0 and 255 become at the input.
        name: what a person calls it.
        origin: where it comes from, as plain JSON values: recipe, teacher, command.
    """

    model: Any
    classes: tuple[str, ...] = ()
    input_range: tuple[float, float] = (-1.0, 1.0)
    name: str = "network"
    origin: dict[str, Any] = {}

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return (int(self.model.input.shape[1]), int(self.model.input.shape[2]))


def to_input(pixels: Any, input_range: tuple[float, float]) -> Any:
    """Turn (B, H, W, 3) uint8 pixels into what the network takes: float32, 0 to `low` and 255 to `high`."""
    import numpy as np

    low, high = input_range
    return np.asarray(pixels, np.float32) * np.float32((high - low) / 255.0) + np.float32(low)


def check_image_network(model: Any, name: str) -> None:
    """Refuse a Keras model that does not take one RGB picture and give one vector.

    Raises:
        ModelError: another kind of model.
    """
    try:
        takes, gives = tuple(model.input.shape), tuple(model.output.shape)
    except (AttributeError, ValueError) as error:
        raise ModelError(f"{name} is no plain network with one input and one output") from error
    if len(takes) != 4 or takes[3] != 3 or None in takes[1:] or len(gives) != 2 or gives[1] is None:
        raise ModelError(
            f"{name} takes {takes} and gives {gives}: a backbone takes (B, H, W, 3) and gives (B, D)"
        )
