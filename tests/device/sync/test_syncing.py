"""A learner and a real host: what one tells is what the other knows, and nothing else leaves."""

from datetime import datetime, timezone

import numpy as np
from simulators.hosting import Hosted

from edge_cl.device.agent import open_agent
from edge_cl.device.sync.enrolment import enrol
from edge_cl.device.sync.syncing import sync
from edge_cl.learning import increment, named
from edge_cl.wire.codec import decode
from host_trainer.retraining.told import Told, taken_in


def now() -> datetime:
    return datetime.now(timezone.utc)


def heard(host: Hosted, device: str, edits=()) -> Told | None:
    """What the statistics that a host holds of a device come to."""
    told = None
    rows = [each for each in host.contents.listed() if each.device == device and each.level == "statistics"]
    messages = [(each.id, decode(host.contents.read(each))) for each in rows]
    for name, message in sorted(messages, key=lambda pair: pair[1].number):
        told = taken_in(told, message, name, edits)
    return told


def test_a_learner_tells_its_statistics(taught, host):
    enrol(taught, host.url, host.code("pi-1"), ("cpu",))
    found = sync(taught, now())

    told = heard(host, "pi-1")
    with open_agent(taught, read_only=True) as agent:
        own = named.Named(agent.learner.labels, agent.learner.own_statistics())
    places = increment.places(own.labels, told.labels)
    assert told.counts[places].tolist() == own.statistics.counts.tolist()
    assert np.array_equal(told.sums[places], own.statistics.sums)
    again = sync(taught, now())

