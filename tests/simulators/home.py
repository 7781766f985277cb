"""A learner's home: a real state folder, taught with features drawn around class centres; no pictures."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edge_cl.device.opening import open_agent
from edge_cl.device.staged import read_manifest
from edge_cl.device.teaching import Seen, Taught
from edge_cl.errors import EdgeError
from edge_cl.learning.named import Named
from edge_cl.memory.opening import open_store
from edge_cl.sample import FeatureSpace


def furnish(state: Path) -> None:
    """Let a state folder that `edge-cl init` made be taught without its backbone."""
    manifest = read_manifest(state)
    space = FeatureSpace("0123456789abcdef", manifest.feature_size, manifest.feature_dtype, 1.0, 0)
    open_store(state, space).close()


def teach(state: Path, label: str, count: int, seed: int = 0, jpeg: bytes | None = None) -> list[int]:
    """Teach `count` samples of a class; return their numbers."""
    with open_agent(state) as agent:
        first = agent.store.next_sample
        rng = np.random.default_rng((seed, first))
        centre = np.random.default_rng(sum(label.casefold().encode())).normal(0, 40, agent.space.size)
        batch = []
        for _ in range(count):
            values = np.clip(np.rint(centre + 25 * rng.normal(size=(2, agent.space.size))), -128, 127)
            rows: Any = values.astype(agent.space.dtype)
            batch.append(Seen(agent.spelling(label), rows, rng.bytes(16), "", f"{label}.jpg", jpeg))
        agent.keep(batch, Taught(Counter(), [], []))
        return list(range(first, first + count))


def own(state: Path) -> Named:
    """Return the statistics of what was taught here."""
    with open_agent(state, read_only=True) as agent:
        return Named(agent.learner.labels, agent.learner.own_statistics())


def act(state: Path, what: str, *words: Any) -> None:
    """Call something of the agent; what makes no sense does nothing."""
    with open_agent(state) as agent:
        try:
            getattr(agent, what)(*words)
        except EdgeError:
            return
