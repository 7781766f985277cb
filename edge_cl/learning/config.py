"""What a person may choose about how a learner learns; fixed for the life of its state."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_cl.learning.residual import ResidualConfig


@dataclass(frozen=True)
class LearnerConfig:
    """How a learner learns; fixed for the life of its state."""

    views: int = 4  # views stored of a sample; fewer are repeated in turn up to this many
    buffer_bytes: int = 4_000_000  # rehearsal memory
    lam: float = 0.5  # chance that a place in a batch is an old sample
    steps_per_update: int = (
        64  # SGD steps of one consolidation; about the update set's size (Kaeding et al. 2016)
    )
    batch: int = 32  # samples a step
    removed: float = 0.3  # rho, share of samples that data removal leaves out by the end of a round
    cutoff: int = 4  # stages after which a round removes no more
    removal_steps: int = 16  # SGD steps of a removal stage
    masked_loss: bool = False  # train new samples against the update set's classes only (L~), as SparCL does
    seed: int = 0
    residual: bool = True  # off: the base alone
    audit: bool = True  # set suspects aside
    unknown: float = 0.02  # familiarity below which the answer is "unknown"
    network: ResidualConfig = field(default_factory=ResidualConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a settings file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LearnerConfig":
        """Return the config of `to_dict`."""
        return cls(**{**values, "network": ResidualConfig(**values.get("network", {}))})
