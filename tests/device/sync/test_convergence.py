"""Whatever is taught, corrected, forgotten and called otherwise between rounds that may fail: after one that
does not, the host knows what it may know, exactly, and holds nothing that it may not.
"""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from simulators.hearer import NOW, Hearer, Wire
from simulators.home import act, furnish, own, teach
from simulators.line import Fault
from simulators.workshop import ok

from edge_cl.config import SyncSettings
from edge_cl.device.opening import open_agent
from edge_cl.device.sync.history import moved
from edge_cl.device.sync.outbox import Enrolment, open_outbox
from edge_cl.device.sync.syncing import Meeting, Synced
from edge_cl.errors import TransportError
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.sample import label_key
from edge_cl.wire.labels import Assigned, extended

NAMES = ("mug", "cup", "fork", "lamp")
ENROLMENT = Enrolment("http://127.0.0.1:1", "", "pi-1", "00" * 32, "waste", "canary", "images")
LEVEL = {"mug": "statistics", "cup": "features", "fork": "images", "lamp": "never"}


@pytest.fixture(scope="module")
def furnished(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner that may be taught by features; copied, not used."""
    folder = tmp_path_factory.mktemp("home") / "state"
    model = models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
    ok("init", "--state", folder, "--backbone", model, "--buffer-bytes", "4k", "--views", "2", "--no-audit")
    furnish(folder)
    return folder


def meet(state: Path, host: Hearer, rules: SyncSettings, faults=()) -> Synced:
    with open_outbox(state) as outbox:
        if outbox.enrolment() is None:
            outbox.enrol(ENROLMENT, NOW)
        line = Wire(host, faults)
        return Meeting(state, rules, ("cpu",), outbox, line, datetime.fromtimestamp(NOW, timezone.utc)).run()


def check(state: Path, host: Hearer, rules: SyncSettings) -> None:
    """Compare what the host knows with what is here."""
    mine, told = own(state), host.now()
    level = {label_key(each): value for each, value in rules.classes.items()}
    heard = {} if told is None else {label_key(name): at for at, name in enumerate(told.labels)}
    held = {}
    for number, label in enumerate(mine.labels):
        count = int(mine.statistics.counts[number])
        rule = level.get(label_key(label), rules.level)
        least = rules.minimum if rule == "statistics" else 1
        at = heard.pop(label_key(label), None)
        have = 0 if told is None or at is None else int(told.counts[at])
        if rule == "never" or count < least * SAMPLE_WEIGHT:
            assert have == 0, (label, rule, count, have)
        elif have != count:
            assert rule == "statistics"
            assert 0 < count - have < least * SAMPLE_WEIGHT, (label, count, have)
            held[label] = count - have
        else:
            assert told is not None
            assert np.array_equal(told.sums[at], mine.statistics.sums[number]), label
    assert told is None or not any(told.counts[at] for at in heard.values()), heard
    assert host.faults == []
    check_samples(state, host, level, rules.level)
    with open_outbox(state) as outbox:
        here = outbox.told()
        here = here and moved(here, outbox.edits(), host.registry)
        assert outbox.outgoing() == []
        assert outbox.sending() == []
    if told is not None and here is not None:
        assert dict(zip(here.labels, here.counts.tolist(), strict=True)) == dict(
            zip(told.labels, told.counts.tolist(), strict=True)
        )
        assert np.array_equal(here.scatter, told._scatter())


def check_samples(state: Path, host: Hearer, level: dict[str, str], default: str) -> None:
    with open_agent(state, read_only=True) as agent:
        known = {shown.sample: shown.label for shown in agent.samples()}
        live = {sample for sample in agent.learner.live_samples() if sample > 0}
    rules = {sample: level.get(label_key(label), default) for sample, label in known.items()}
    for name, allowed in (("features", ("features", "images")), ("images", ("images",))):
        called = host.called(name)
        assert all(sample in known and rules[sample] in allowed for sample in called), (called, known)
        assert all(
            label_key(called[sample]) == label_key(known[sample]) for sample in called if sample in live
        )
        if name == "features":
            wanted = {sample for sample in live if rules[sample] in allowed}
            assert wanted <= called.keys()


def test_what_is_taught_reaches_the_host(furnished, tmp_path):
    state, host, rules = shutil.copytree(furnished, tmp_path / "state"), Hearer(), SyncSettings(classes=LEVEL)
    for name in NAMES:
        teach(state, name, 5)
    first = meet(state, host, rules)
    check(state, host, rules)
    assert {each.level for each in first.sent.contents} == {"statistics", "features"}
    assert host.now().labels == ("mug", "cup", "fork")
    quiet = meet(state, host, rules)
    check(state, host, rules)
    assert quiet.traffic.up < 2_000


TEACH = st.tuples(st.just("teach"), st.sampled_from(NAMES), st.integers(1, 6))
OTHER = st.one_of(
    st.tuples(st.just("forget"), st.integers(1, 12), st.none()),
    st.tuples(st.just("forget class"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("relabel"), st.integers(1, 12), st.sampled_from(NAMES)),
    st.tuples(st.just("edit"), st.sampled_from(NAMES), st.sampled_from((*NAMES, "vessel"))),
    st.tuples(st.just("split"), st.sampled_from(NAMES), st.integers(1, 12)),
    st.tuples(st.just("level"), st.sampled_from(NAMES), st.sampled_from(sorted(LEVEL.values()))),
    st.tuples(st.just("amnesia"), st.none(), st.none()),
    st.tuples(st.just("bad line"), st.lists(st.sampled_from(Fault), min_size=1, max_size=8), st.none()),
    st.tuples(st.just("sync"), st.none(), st.none()),
)


@settings(max_examples=8, deadline=None)
@given(st.lists(TEACH, min_size=1, max_size=3), st.lists(TEACH | OTHER, max_size=7))
def test_whatever_happens_a_round_that_goes_through_converges(furnished, first, then):
    with tempfile.TemporaryDirectory() as place:
        state, host = shutil.copytree(furnished, Path(place) / "state"), Hearer()
        rules = SyncSettings(classes=LEVEL)
        for step in (*first, *then):
            note(repr(step))
            rules = take(state, host, rules, *step)
        for _ in range(2):  # the second tells what names of classes changed
            meet(state, host, rules)
        check(state, host, rules)


def take(state: Path, host: Hearer, rules: SyncSettings, what: str, first, second) -> SyncSettings:
    if what == "teach":
        teach(state, first, second)
    elif what == "forget":
        act(state, "forget", [first])
    elif what == "forget class":
        forget_class(state, first)
    elif what == "relabel":
        act(state, "relabel", first, second)
    elif what == "edit":
        host.rename(extended(host.edits, [first], second))
    elif what == "split":
        host.rename(extended(host.edits, [first], first, [Assigned("pi-1", second, "vessel")]))
    elif what == "level":
        return SyncSettings(classes={**rules.classes, first: second})
    elif what == "amnesia":
        host.forget_device()
    elif what == "bad line":
        try:
            meet(state, host, rules, fault_list(first))
        except TransportError:
            pass
    else:
        meet(state, host, rules)
    return rules


def forget_class(state: Path, label: str) -> None:
    with open_agent(state) as agent:
        if agent.spelling(label) in agent.learner.labels:
            agent.forget(label=label)


def fault_list(faults: list[Fault]) -> Iterator[Fault]:
    return iter(faults)
