"""What the quantisation tests share: networks whose normalisation has seen something."""

from typing import Any

import numpy as np
import pytest

from host_trainer.backbones.networks import build, parse_spec

pytest.importorskip("keras", reason="the workshop's networks need keras")


@pytest.fixture
def settled() -> Any:
    """Draw a network by its text form, its normalisations as they are after some training."""

    def draw(text: str, seed: int = 0) -> Any:
        model, rng = build(parse_spec(text), seed), np.random.default_rng(seed)
        for layer in model.layers:
            if type(layer).__name__ == "BatchNormalization":
                size = layer.moving_mean.shape[0]
                gamma, variance = rng.uniform(0.5, 1.5, size), rng.uniform(0.5, 2.0, size)
                layer.set_weights([gamma, rng.normal(0, 0.3, size), rng.normal(0, 0.3, size), variance])
        return model

    return draw


@pytest.fixture
def pixels() -> np.ndarray:
    """Sixteen smooth random pictures (16, 32, 32, 3) uint8."""
    coarse = np.random.default_rng(5).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
