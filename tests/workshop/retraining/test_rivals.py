"""A backbone that was trained on goes to the devices only where it answers no worse than a mere head."""

import re
from dataclasses import replace

import numpy as np
from simulators.devices import SPACE, VIEWS, drawn_samples

from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.residual import ResidualConfig
from host_trainer.retraining.heads import HeadConfig
from host_trainer.retraining.rivals import Seen, why_not
from host_trainer.retraining.samples import Samples, nothing

CONFIG = HeadConfig(LearnerConfig(views=VIEWS, network=ResidualConfig(hidden=32)))
LABELS = ("can", "mug", "tin")


def blurred(samples: Samples, share: float, seed: int) -> Samples:
    """Return samples as a backbone sees them that tells some of them from nothing: noise in their place."""
    rng = np.random.default_rng(seed)
    features = samples.features.copy()
    lost = rng.random(len(samples)) < share
    features[lost] = rng.integers(-128, 128, features[lost].shape)
    return replace(samples, features=features)


def seen(share: float = 0.0) -> Seen:
    taught, asked = drawn_samples(LABELS, 20, 0), drawn_samples(LABELS, 20, 9)
    return Seen(SPACE, blurred(taught, share, 1), blurred(asked, share, 2))


def test_a_backbone_that_sees_less_stays_at_home() -> None:
    reason = why_not(seen(), seen(share=0.5), CONFIG)
    asked, now, before = map(int, re.findall(r"\d+", reason))
    assert asked == 60 and now < before


def test_one_that_sees_more_or_as_much_goes_out() -> None:
    assert why_not(seen(share=0.5), seen(), CONFIG) == ""
    assert why_not(seen(), seen(), CONFIG) == ""


def test_where_nobody_asks_nothing_is_said_against_it() -> None:
    before, after = (each._replace(asked=nothing(SPACE, VIEWS)) for each in (seen(), seen(share=0.5)))
    assert why_not(before, after, CONFIG) == ""


def test_a_backbone_in_use_that_nothing_was_taught_is_no_rival() -> None:
    assert why_not(seen()._replace(taught=nothing(SPACE, VIEWS)), seen(), CONFIG) == ""
