"""The audit finds wrong labels, leaves hard samples alone, and believes the person."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.learning import audit
from edge_cl.learning.docket import RECORDED, Record
from edge_cl.learning.learner import EdgeLearner, LearnerConfig
from edge_cl.learning.residual import ResidualConfig
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.sample import FeatureSpace

SIZE, CLASSES, VIEWS = 48, 4, 2
SPACE = FeatureSpace("made for tests", SIZE, "int8", 0.1, 0)
SMALL = ResidualConfig(hidden=32, density=0.25)


def made(count, wrong_share, seed=0, spread=12.0):
    """Return features (N, V, D) of clusters, labels as taught, and which of them are wrong (N,)."""
    rng = np.random.default_rng((seed, 7))
    centres = 20 * np.random.default_rng(11).normal(size=(CLASSES, SIZE))
    numbers = rng.permutation(np.arange(count) % CLASSES)
    values = (centres[numbers] + spread * rng.normal(size=(count, SIZE)))[:, None]
    values = values + 3 * rng.normal(size=(count, VIEWS, SIZE))
    wrong = rng.permutation(np.arange(count) < round(count * wrong_share))
    taught = np.where(wrong, (numbers + rng.integers(1, CLASSES, size=count)) % CLASSES, numbers)
    features = np.clip(np.round(values), -128, 127).astype(np.int8)
    return features, [f"class {n}" for n in taught], wrong, [f"class {n}" for n in numbers]


def audited(features, labels, updates=4, **config):
    learner = EdgeLearner(SPACE, LearnerConfig(views=VIEWS, network=SMALL, **config))
    for part in np.array_split(np.arange(len(labels)), updates):
        learner.learn_many(features[part], [labels[i] for i in part], [int(i) + 1 for i in part])
        learner.consolidate(32)
    return learner


# the rule


def test_only_a_doubted_unlearned_sample_of_a_class_with_company_is_accused():
    enough, few = audit.LEAST_SAMPLES, audit.LEAST_SAMPLES - 1
    sure, unsure = audit.ACCUSED + 0.1, audit.ACCUSED - 0.1
    doubts = np.array([sure, unsure, sure, sure])
    learned = np.array([False, False, True, False])
    verdict = audit.judge(np.zeros(4, bool), doubts, learned, np.array([enough, enough, enough, few]))
    assert verdict.tolist() == [True, False, False, False]


def test_a_suspect_stays_one_until_the_doubt_is_clearly_gone():
    doubts = np.array([audit.ACQUITTED - 0.01, (audit.ACQUITTED + audit.ACCUSED) / 2])
    verdict = audit.judge(np.ones(2, bool), doubts, np.zeros(2, bool), np.full(2, 100))
    assert verdict.tolist() == [False, True]


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_no_class_loses_more_than_its_doubts_and_majority_allow_the_least_doubted_are_spared(seed, count):
    rng = np.random.default_rng(seed)
    doubts = rng.random(count) * rng.random()
    numbers, suspects = rng.integers(3, size=count), rng.random(count) < 0.6
    kept = audit.bounded(suspects, doubts, numbers)
    assert not (kept & ~suspects).any()
    for number in range(3):
        mine = numbers == number
        expected = np.ceil(audit.BEYOND_EXPECTED * doubts[mine].sum())
        most = int(min(expected, audit.MOST_OF_A_CLASS * mine.sum()))
        assert kept[mine].sum() == min(suspects[mine].sum(), most)
        spared, stayed = doubts[mine & suspects & ~kept], doubts[mine & kept]
        assert not len(spared) or not len(stayed) or spared.max() <= stayed.min()


def test_a_small_class_full_of_strays_keeps_its_majority():
    features, _, _, truth = made(400, 0.0, spread=30.0)
    rng, taught = np.random.default_rng(3), np.array(truth)
    rare = taught == "class 3"
    chosen = np.flatnonzero(~rare | (rng.random(400) < 0.1))
    strays = rng.permutation(np.flatnonzero(~rare))[: int(2.5 * rare[chosen].sum())]
    taught[strays] = "class 3"
    learner = audited(features[chosen], taught[chosen].tolist(), updates=6)
    slots = learner.buffer.slots
    mine = slots.number[learner.buffer.filled] == learner.labels.index("class 3")
    suspects = slots.suspect[learner.buffer.filled][mine]
    assert 0 < suspects.sum() <= len(suspects) / 2


# the learner that lives by it


@pytest.mark.parametrize("share", [0.1, 0.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_most_wrong_labels_are_found_and_most_suspects_are_wrong(share, seed):
    features, labels, wrong, truth = made(240, share, seed)
    suspects = audited(features, labels).suspects()
    accused = np.array([s.sample for s in suspects]) - 1
    found = wrong[accused]
    assert found.sum() >= 0.7 * wrong.sum()
    assert found.mean() >= 0.5
    rightly = [s for s in suspects if wrong[s.sample - 1]]
    assert np.mean([s.suggestion == truth[s.sample - 1] for s in rightly]) >= 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_clean_data_almost_nobody_is_accused(seed):
    features, labels, _, _ = made(240, 0.0, seed)
    assert len(audited(features, labels).suspects()) <= 240 * 0.02


def test_hard_samples_are_not_taken_for_wrong_ones():
    features, labels, _, _ = made(240, 0.0, spread=45.0)
    learner = audited(features, labels)
    held_out = learner.report().accuracy_leave_one_out
    assert held_out < 0.9  # they really are hard
    assert len(learner.suspects()) <= 240 * 0.05


def test_suspects_tell_their_label_a_suggestion_and_a_doubt_in_order():
    features, labels, _, _ = made(240, 0.1)
    suspects = audited(features, labels).suspects()
    doubts = [s.doubt for s in suspects]
    assert doubts == sorted(doubts, reverse=True)
    assert all(0 <= doubt <= 1 for doubt in doubts)
    assert all(s.label == labels[s.sample - 1] for s in suspects)


def test_a_confirmed_sample_is_never_accused_again():
    features, labels, _, _ = made(240, 0.1)
    learner = audited(features, labels)
    before = learner.suspects()
    for suspect in before:
        learner.relabel(suspect.sample, suspect.label)
    assert learner.suspects() == []
    for _ in range(3):
        learner.consolidate(16)
        assert not {s.sample for s in learner.suspects()} & {s.sample for s in before}
    assert len(before) > 0


def test_correcting_the_suspects_makes_them_count_again():
    features, labels, _, _ = made(240, 0.1)
    learner = audited(features, labels)
    before, count = int(learner.base.counts.sum()), len(learner.suspects())
    for suspect in learner.suspects():
        learner.relabel(suspect.sample, suspect.suggestion)
    assert learner.suspects() == []
    assert learner.base.weight == before + count * (before // (240 - count))
    assert count > 0


def test_suspects_are_out_of_the_statistics_and_never_rehearsed():
    features, labels, _, _ = made(240, 0.1)
    learner = audited(features, labels)
    slots = learner.buffer.slots
    shown = slots.shown[slots.suspect].copy()
    aside = {int(s) for s in slots.sample[slots.suspect]}
    heard = [i for i in range(240) if i + 1 not in aside]
    other = EdgeLearner(SPACE, LearnerConfig(views=VIEWS, network=SMALL))
    other.learn_many(features[heard], [labels[i] for i in heard])
    order = [other.labels.index(label) for label in learner.labels]
    assert np.array_equal(learner.base.statistics.moment, other.base.statistics.moment)
    assert np.array_equal(learner.base.statistics.counts, other.base.statistics.counts[order])
    suspect = slots.suspect.copy()
    learner.consolidate(32)
    still = suspect & slots.suspect
    assert np.array_equal(slots.shown[still], shown[slots.suspect[suspect]])
    assert still.any()


def departed(wrong_share=0.2):
    """Return a learner whose memory holds far less than it was taught, and what was taught."""
    features, labels, wrong, _ = made(360, wrong_share)
    learner = audited(features, labels, updates=12, buffer_bytes=120 * (VIEWS * SIZE + 64))
    return learner, labels, wrong


def test_suspects_stay_listed_after_they_have_left_the_memory():
    learner, labels, wrong = departed()
    gone = [s for s in learner.suspects() if s.sample not in learner.live_samples()]
    assert len(gone) > 5
    assert wrong[[s.sample - 1 for s in gone]].mean() >= 0.5
    assert all(s.label == labels[s.sample - 1] for s in gone)
    assert all(s.suggestion in learner.labels and 0 <= s.doubt <= 1 for s in gone)


def test_nobody_leaves_unjudged():
    """Where most are never kept, or leave before anybody looked, most wrong labels are found all the same."""
    features, labels, wrong, _ = made(360, 0.2)
    learner = audited(features, labels, updates=12, buffer_bytes=60 * (VIEWS * SIZE + 64))
    accused = np.array([s.sample for s in learner.suspects()]) - 1
    late = np.flatnonzero(wrong[120:]) + 120  # by then the share of wrong labels is known
    assert np.isin(late, accused).mean() >= 0.7
    assert wrong[accused].mean() >= 0.5
    weight = SAMPLE_WEIGHT * (len(labels) - len(accused))
    assert learner.base.counts.sum() == weight  # a suspect is in no sum, wherever it is


def test_a_departed_suspect_leaves_the_list_when_the_person_decides():
    learner, _, _ = departed()
    confirmed, forgotten = [s.sample for s in learner.suspects() if s.sample not in learner.live_samples()][
        :2
    ]
    learner.relabel(confirmed, "class 0")
    learner.forget_sample(forgotten)
    assert not {confirmed, forgotten} & {s.sample for s in learner.suspects()}


def test_the_suspects_of_a_forgotten_class_are_forgotten_with_it():
    learner, labels, _ = departed()
    before = {s.sample: s for s in learner.suspects()}
    learner.forget_label("class 1")
    after = learner.suspects()
    assert "class 1" not in {name for s in after for name in (s.label, s.suggestion)}
    assert all(s.label == labels[s.sample - 1] for s in after)
    assert {s.sample for s in after} == {
        n
        for n, s in before.items()
        if s.label != "class 1" and (s.suggestion != "class 1" or n in learner.live_samples())
    }


def test_only_so_many_departed_suspects_are_listed_the_oldest_leaving_first():
    record = Record.empty()
    for sample in range(RECORDED + 3):
        record = record.with_one(sample, 0, 1, 0.5)
    assert record.sample.tolist() == list(range(3, RECORDED + 3))
    assert {len(column) for column in record} == {RECORDED}
    assert len(record.without_sample(5).sample) == RECORDED - 1


def test_without_the_audit_nobody_is_accused():
    features, labels, _, _ = made(240, 0.2)
    assert audited(features, labels, audit=False).suspects() == []
