"""The store against a dictionary: teaching, forgetting, cleaning, crashing and reopening in any order."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_cl.memory import slots as slots_module
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import Event, EventKind
from edge_cl.sample import FeatureSpace

SPACE = FeatureSpace("stateful", 700, "int8", 0.02, -128)


class StoreAgainstDictionary(RuleBasedStateMachine):
    """`log` is every event that must come back; `dead` are samples the store may have overwritten."""

    @initialize(ring=st.sampled_from([4, 16, 1024]))
    def start(self, ring):
        self.ring = slots_module.SMALLEST_RING
        slots_module.SMALLEST_RING = ring  # a small ring comes round within a few steps
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.store = open_store(self.folder / "state", SPACE)
        self.log: dict[int, Event] = {}
        self.dead: set[int] = set()
        self.trimmed = 0

    @rule(counts=st.lists(st.integers(1, 4), max_size=12), seed=st.integers(0, 99), jpeg=st.booleans())
    def teach(self, counts, seed, jpeg):
        rng = np.random.default_rng(seed)
        events = [
            Event(
                self.store.next_seq + i,
                EventKind.TEACH,
                self.store.next_sample + i,
                f"label {views}",
                features=rng.integers(-128, 128, (views, SPACE.size), dtype=np.int8),
                image_hash=rng.bytes(16),
                jpeg=rng.bytes(5_000) if jpeg else None,
            )
            for i, views in enumerate(counts)
        ]
        self.store.append(events)
        self.log |= {event.seq: event for event in events}

    @rule(kind=st.sampled_from([EventKind.RELABEL, EventKind.CONSOLIDATE, EventKind.FORGET_CLASS]))
    def note(self, kind):
        event = Event(self.store.next_seq, kind, label="other", amount=3)
        self.store.append([event])
        self.log[event.seq] = event

    @precondition(lambda self: self.taught())
    @rule(data=st.data())
    def forget(self, data):
        gone = data.draw(st.sets(st.sampled_from(self.taught()), min_size=1))
        self.store.forget(gone)
        self.log = {seq: event for seq, event in self.log.items() if event.sample not in gone}

    @precondition(lambda self: self.taught())
    @rule(data=st.data())
    def clean(self, data):
        live = data.draw(st.sets(st.sampled_from(self.taught())))
        up_to = data.draw(st.integers(0, self.store.next_seq))
        live -= self.dead
        self.store.clean(live, up_to)
        self.dead |= {e.sample for e in self.log.values() if e.sample and e.seq <= up_to} - live

    @rule()
    def reopen(self):
        self.store.close()
        self.store = open_store(self.folder / "state", SPACE)

    @rule()
    def crash(self):
        """Go on with the files as they are now: what a process that dies here leaves behind."""
        shutil.copytree(
            self.folder / "state", self.folder / "crashed", ignore=shutil.ignore_patterns("*-shm")
        )
        self.store.close()
        shutil.rmtree(self.folder / "state")
        (self.folder / "crashed").rename(self.folder / "state")
        self.store = open_store(self.folder / "state", SPACE)

    @invariant()
    def everything_alive_comes_back(self):
        if not hasattr(self, "store"):
            return
        assert self.store.salvage is None
        found = {event.seq: event for event in self.store.events_after(0)}
        for seq, expected in self.log.items():
            if expected.sample in self.dead:
                continue
            assert found[seq]._replace(features=None) == expected._replace(features=None, jpeg=None)
            if expected.features is not None:
                np.testing.assert_array_equal(found[seq].features, expected.features)
                assert self.store.jpeg(expected.sample) == expected.jpeg
        for seq, event in found.items():  # nothing that was never taught, nothing half overwritten
            if event.features is not None:
                np.testing.assert_array_equal(event.features, self.log[seq].features)
        assert self.store.known_hashes() == {
            e.image_hash for e in self.log.values() if e.features is not None
        }

    def taught(self):
        return sorted(event.sample for event in self.log.values() if event.features is not None)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)
            slots_module.SMALLEST_RING = self.ring


TestStoreAgainstDictionary = StoreAgainstDictionary.TestCase
TestStoreAgainstDictionary.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
