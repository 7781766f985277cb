"""Puts a learned linear map behind a student's feature, so that it can be held against a wider teacher's.

The map is trained with the student and thrown away afterwards: `networks.backbone_of` ends at the feature.
"""

from typing import Any

import numpy as np

from edge_cl.errors import ConfigError

PROJECTION = "projection"  # name of the layer


def with_projection(backbone: Any, size: int, seed: int = 0) -> Any:
    """Return the backbone with a linear layer on top: (B, H, W, 3) to (B, size); the layers are shared.

    Args:
        backbone: functional Keras model to a feature (B, D).
        size: values of the teacher's feature.
        seed: of the first weights, drawn from numpy so that both Keras backends start alike.

    Raises:
        ConfigError: fewer than one value.
    """
    import keras

    if size < 1:
        raise ConfigError(f"a teacher's feature of {size} values teaches nothing: give another teacher")
    width = int(backbone.output.shape[-1])
    layer = keras.layers.Dense(size, name=PROJECTION)
    model = keras.Model(backbone.input, layer(backbone.output), name=backbone.name)
    kernel = np.random.default_rng((seed, width, size)).normal(0, width**-0.5, (width, size))
    layer.set_weights([kernel.astype(np.float32), np.zeros(size, np.float32)])
    return model
