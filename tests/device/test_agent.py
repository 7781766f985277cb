"""The agent: what is acknowledged is known, and what is known is what the log says, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from simulators.workshop import ok

from edge_cl.device import agent as agents
from edge_cl.device.agent import Agent
from edge_cl.device.folders import Picture, from_folder
from edge_cl.device.install import read_current
from edge_cl.device.opening import open_agent
from edge_cl.device.replay import replay
from edge_cl.errors import InputError, LabelError, StoreBusyError, StoreError
from edge_cl.learning.learner import EdgeLearner
from edge_cl.memory.opening import open_store
from edge_cl.memory.store import EventKind


def assert_same(one: EdgeLearner, other: EdgeLearner) -> None:
    """Compare answers first: flattening solves what is derived anew."""
    rng = np.random.default_rng(1)
    shown = rng.integers(0, 100, (5, 2, one.space.size)).astype(one.space.dtype)
    assert one.labels == other.labels
    np.testing.assert_array_equal(one.scores_many(shown), other.scores_many(shown))
    mine, theirs = one.flatten(), other.flatten()
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


def a_life(agent: Agent, photos: Path) -> None:
    """Teach, correct, forget, teach again; stop a consolidation half way."""
    pictures = from_folder(photos).pictures
    agent.teach(pictures[:10], steps=20)
    agent.relabel(2, "1")
    agent.forget([3])
    asked = iter([False] * 5 + [True])
    assert agent.consolidate(50, lambda: next(asked)) <= 5
    agent.teach(pictures[10:], views=2, mirror=False, steps=30)
    agent.relabel(4, "0")  # confirmed


def kinds(folder: Path) -> list[str]:
    with open_store(folder, None, read_only=True) as store:
        return [event.kind.name for event in store.events_after(0)]


def test_replaying_the_log_is_the_uninterrupted_run(state, photos):
    """No checkpoint: a fresh learner folds the whole log."""
    with open_agent(state, with_backbone=True) as agent:
        pictures = from_folder(photos).pictures
        agent.teach(pictures[:10], steps=20)
        agent.relabel(2, "1")
        asked = iter([False] * 5 + [True])
        agent.consolidate(50, lambda: next(asked))
        agent.teach(pictures[10:], views=2, mirror=False, steps=30)
        agent.save()
        assert read_current(state).checkpoint is None
        fresh = EdgeLearner(agent.space, agent.learner.config)
        replay(fresh, agent.store.events_after(0))
        assert_same(fresh, agent.learner)
    assert {"TEACH", "CONSOLIDATE", "RELABEL"} == set(kinds(state))


@pytest.mark.parametrize("samples", [4, 7, 1_000])
def test_a_checkpoint_and_the_log_after_it_are_the_uninterrupted_run(state, photos, monkeypatch, samples):
    monkeypatch.setattr(agents, "CHECKPOINT_SAMPLES", samples)
    with open_agent(state, with_backbone=True) as agent:
        a_life(agent, photos)
        agent.save()
        for _ in range(2):
            with open_agent(state, read_only=True) as reader:
                assert_same(reader.learner, agent.learner)
                agent.checkpoint()  # comparing has settled the learner: the log has to say so
    assert read_current(state).checkpoint is not None


def test_the_checkpoint_before_the_last_one_leads_to_the_same_learner(state, photos, monkeypatch):
    """The newest checkpoint is damaged: the log between the two says that it was there."""
    monkeypatch.setattr(agents, "CHECKPOINT_SAMPLES", 6)
    with open_agent(state, with_backbone=True) as agent:
        pictures = from_folder(photos).pictures
        agent.teach(pictures[:8], steps=10)
        agent.teach(pictures[8:], steps=10)
        learner = agent.learner
    current = read_current(state)
    newest = state / "checkpoints" / current.checkpoint.name
    newest.write_bytes(newest.read_bytes()[:-100])
    with open_agent(state) as again:
        assert_same(again.learner, learner)
        assert "damaged" in again.notes[0]


def test_what_waits_for_the_next_commit_is_lost_by_a_crash_and_nothing_else(state, photos):
    agent = open_agent(state, with_backbone=True)
    agent.teach(from_folder(photos).pictures, steps=5)
    agent.close()  # as a pulled plug: nothing is saved
    assert kinds(state) == ["TEACH"] * 18
    with open_agent(state, with_backbone=True) as again:
        taught = again.teach(from_folder(photos).pictures, steps=5)
        assert (taught.skipped, taught.steps) == (18, 5)  # the consolidation is made up for
    assert kinds(state) == ["TEACH"] * 18 + ["CONSOLIDATE"]


def test_stopping_keeps_what_was_seen(state, photos):
    pictures = from_folder(photos).pictures
    seen: list[Picture] = []
    with open_agent(state, with_backbone=True) as agent:
        taught = agent.teach(
            pictures, should_stop=lambda: len(seen) >= 5, watch=lambda _, picture: seen.append(picture)
        )
        assert taught.was_stopped
        assert taught.learned.total() == 5
        assert taught.steps == 0
    with open_agent(state, read_only=True) as reader:
        assert len(reader.samples()) == 5


def test_a_forgotten_sample_leaves_no_byte_behind(state, photos):
    """A whole class and one picture of another: neither name nor features stay in any file."""
    secret = "very-secret-class"
    (photos / "2").rename(photos / secret)
    (photos / "0" / "01.jpg").rename(photos / "0" / "tell-tale.jpg")
    ok("learn", photos, "--state", state)
    with open_agent(state) as agent:
        sample = next(shown.sample for shown in agent.samples() if shown.source == "tell-tale.jpg")
        features = agent.store.features([sample])[sample][0].tobytes()
        assert features in everything(state)
        assert agent.forget([sample], label=secret) == (7, 0)
        assert agent.learner.labels == ("0", "1")
    data = everything(state)
    assert features not in data
    assert secret.encode() not in data
    assert b"tell-tale" not in data


def test_forgetting_is_finished_by_the_next_start_when_it_was_cut_off(taught, monkeypatch):
    """Cut off after the forgetting was acknowledged, before the storage was cleaned."""
    agent = open_agent(taught)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agent, "_erase", lambda self: None)
        agent.forget(label="2")
        agent.close()
    with open_agent(taught) as again:
        assert again.store.erasures() == ()
        assert again.learner.labels == ("0", "1")
        assert not [event for event in again.store.events_after(0) if event.kind is EventKind.FORGET_CLASS]


def test_a_forgotten_class_does_not_come_back_with_the_older_checkpoint(taught):
    with open_agent(taught) as agent:
        agent.forget(label="1")
    newest = taught / "checkpoints" / read_current(taught).checkpoint.name
    newest.write_bytes(b"")
    with open_agent(taught) as again:
        assert again.learner.labels == ("0", "2")


def test_unknown_samples_and_classes_are_refused_and_nothing_changes(taught):
    before = kinds(taught)
    with open_agent(taught) as agent:
        for act in (lambda: agent.forget([99]), lambda: agent.relabel(99, "1")):
            with pytest.raises(InputError, match="no sample 99"):
                act()
        with pytest.raises(LabelError, match="no class"):
            agent.forget(label="mug")
        with pytest.raises(LabelError):
            agent.relabel(1, "a/b")
    assert kinds(taught) == before


def test_one_process_writes_and_others_read(taught, photos):
    with open_agent(taught) as agent:
        with pytest.raises(StoreBusyError, match="another edge-cl"):
            open_agent(taught)
        with open_agent(taught, read_only=True, with_backbone=True) as reader:
            answer = reader.answer(photos / "0" / "01.jpg")
        agent.relabel(1, "1")
    assert answer.best is not None


def test_a_full_disk_loses_nothing_that_was_acknowledged_and_learning_goes_on(state, photos, monkeypatch):
    """The database refuses to grow in the middle; after that it is allowed to again."""
    agent = open_agent(state, with_backbone=True)
    pictures = from_folder(photos).pictures
    agent.teach(pictures[:6], steps=0)
    connection = agent.store._open
    size = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {size}")
    with pytest.raises(StoreError, match="free some space"):
        agent.teach(pictures[6:], steps=0)
    agent.close()
    with open_agent(state, with_backbone=True) as again:
        assert len(again.samples()) == 6
        assert again.teach(pictures, steps=0).learned.total() == 12


def test_the_bytes_of_a_checkpoint_are_counted_by_the_next_process(taught):
    with open_agent(taught) as agent:
        before = agent.sizes().written_bytes_total
        agent.checkpoint()
        written = agent.sizes().written_bytes_total - before
    if written == 0:
        pytest.skip("the kernel counts no bytes for the storage of the temporary folder")
    checkpoint = (taught / "checkpoints" / read_current(taught).checkpoint.name).stat().st_size
    with open_agent(taught, read_only=True) as reader:
        assert reader.sizes().written_bytes_total - before >= written >= checkpoint


def test_timings_account_for_the_time(state, photos):
    with open_agent(state, with_backbone=True) as agent:
        agent.teach(from_folder(photos).pictures)
        found = agent.timings.to_dict(10_000.0)
    parts = {name: value for name, value in found.items() if name != "total_ms"}
    assert sum(parts.values()) == pytest.approx(10_000.0, abs=1.0)
    assert min(parts.values()) >= 0.0
    assert found["embed_ms"] > 0
    assert found["store_ms"] > 0


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("into", ["palm", "1"])
def test_a_class_called_otherwise_is_so_after_the_next_start_too(taught, into):
    with open_agent(taught) as agent:
        agent.rename_class("0", into)
        labels, statistics = agent.learner.labels, agent.learner.base.statistics
        assert "0" not in labels
        assert {shown.label for shown in agent.samples()} == set(labels) == {into, "1", "2"}
        agent.relabel(1, "2")  # from the new name on
        agent.relabel(1, into)
    for _ in range(2):  # replayed, then from a checkpoint
        with open_agent(taught) as agent:
            assert agent.learner.labels == labels
            assert agent.learner.base.statistics.counts.tolist() == statistics.counts.tolist()
            assert {shown.label for shown in agent.samples()} == set(labels)
            agent.checkpoint()
            agent.checkpoint()


def test_a_forgotten_class_takes_its_earlier_names_along(state, photos):
    (photos / "2").rename(photos / "first-name")
    ok("learn", photos, "--state", state)
    with open_agent(state) as agent:
        agent.rename_class("first-name", "second-name")
        assert agent.forget(label="second-name") == (6, 0)
    data = everything(state)
    assert b"first-name" not in data
    assert b"second-name" not in data
