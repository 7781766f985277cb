"""Decides how dense a network is at each step of its pruning.

Source: Zhu and Gupta, To prune, or not to prune, 2017, eq. 1: sparsity rises quickly while weights are
redundant and slowly towards the end, s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3.
"""

from dataclasses import dataclass

from edge_cl.errors import ConfigError


@dataclass(frozen=True)
class Cubic:
    """A cubic schedule.

    Attributes:
        final: density at `end` and after it, in (0, 1].
        begin: step of the first pruning.
        end: step of the last; the steps after it only mend.
        every: steps between two.
        initial: density before `begin`.
    """

    final: float
    begin: int
    end: int
    every: int = 100  # Zhu and Gupta prune every 100 to 1,000 steps
    initial: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.final <= self.initial <= 1:
            raise ConfigError(
                f"a density from {self.initial:g} to {self.final:g} does not fall: give 0 < final <= initial"
            )
        if not 0 <= self.begin <= self.end or self.every < 1:
            raise ConfigError(f"steps {self.begin} to {self.end} by {self.every} are no schedule")

    def density(self, step: int) -> float:
        """Return the density that holds from `step` on, should it be pruned then."""
        if step < self.begin:
            return self.initial
        if step >= self.end:
            return self.final
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**3

    def prunes(self, step: int) -> bool:
        """Tell whether weights are pruned before this step."""
        return step == self.end or (self.begin <= step < self.end and (step - self.begin) % self.every == 0)
