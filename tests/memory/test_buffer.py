"""The rehearsal buffer keeps within its budget, is fair to classes and samples, and favours hard ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_cl.memory import buffer as module
from edge_cl.memory.buffer import EMPTY, SLOT_OVERHEAD_BYTES, Buffer, capacity

VIEWS, SIZE = 2, 4


def buffer_of(slots, classes):
    buffer = Buffer(slots, VIEWS, SIZE, "int8")
    for _ in range(classes):
        buffer.add_class()
    return buffer


def features(sample):
    """Return (V, D) features that tell the sample they belong to."""
    return np.random.default_rng(sample).integers(-128, 128, (VIEWS, SIZE)).astype(np.int8)


def offered(buffer, numbers, seed=0):
    rng = np.random.default_rng(seed)
    return [buffer.offer(sample, int(n), features(sample), rng) for sample, n in enumerate(numbers, 1)]


@given(st.integers(0, 10**7), st.integers(1, 10**4))
def test_a_full_buffer_stays_within_its_budget(budget_bytes, sample_bytes):
    slots = capacity(budget_bytes, sample_bytes)
    assert slots >= 1
    assert slots == 1 or slots * (sample_bytes + SLOT_OVERHEAD_BYTES) <= budget_bytes
    assert (slots + 1) * (sample_bytes + SLOT_OVERHEAD_BYTES) > budget_bytes


def test_the_bookkeeping_of_a_slot_is_within_its_overhead():
    assert sum(column.itemsize for column in buffer_of(1, 1).slots) <= SLOT_OVERHEAD_BYTES


def test_while_there_is_room_everything_is_kept_as_it_came():
    buffer = buffer_of(10, 2)
    offers = offered(buffer, [0, 1] * 5)
    assert [offer.leaving for offer in offers] == [None] * 10
    assert buffer.kept().tolist() == [5, 5]
    for sample in range(1, 11):
        assert np.array_equal(buffer.features[buffer.find(sample)], features(sample))
    assert buffer.slots.fresh.all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=120), st.integers(1, 20), st.integers(0, 2**32))
def test_a_class_has_its_fair_share_of_the_slots_as_far_as_it_was_offered(numbers, slots, seed):
    buffer = buffer_of(slots, 4)
    offered(buffer, numbers, seed)
    kept, all_offered = buffer.kept(), np.bincount(numbers, minlength=4)
    assert kept.sum() == min(slots, len(numbers))
    assert np.array_equal(buffer.offered, all_offered)
    # Who has fewer than the largest class but one has lost nothing to it.
    short = kept < kept.max() - 1
    assert np.array_equal(kept[short & (kept < slots // 4)], all_offered[short & (kept < slots // 4)])


def test_classes_that_arrive_one_after_the_other_end_up_even():
    buffer = buffer_of(40, 4)
    offered(buffer, np.repeat(np.arange(4), 100))
    assert buffer.kept().tolist() == [10, 10, 10, 10]


def test_a_rare_class_is_kept_whole_however_many_of_another_follow():
    buffer = buffer_of(20, 2)
    offered(buffer, [0] * 3 + [1] * 500)
    assert buffer.kept().tolist() == [3, 17]


def test_every_sample_of_a_class_has_the_same_chance_to_be_kept():
    times, runs, slots, count = np.zeros(30), 1500, 6, 30
    for seed in range(runs):
        buffer = buffer_of(slots, 1)
        rng = np.random.default_rng(seed)
        for sample in range(count):
            buffer.offer(sample, 0, np.zeros((VIEWS, SIZE), np.int8), rng)
        times[buffer.slots.sample] += 1
    expected = runs * slots / count
    # 29 degrees of freedom, p = 1e-4; the variance of draws without replacement is smaller still.
    assert ((times - expected) ** 2 / expected).sum() < 65.0


def chances(mistakes, suspect=(), runs=3000):
    """Return how often each of the samples of one class leaves for a sample of another."""
    left = np.zeros(len(mistakes))
    for seed in range(runs):
        buffer = buffer_of(len(mistakes), 2)
        offered(buffer, [0] * len(mistakes))
        buffer.slots.shown[:] = 100
        buffer.slots.mistakes[:] = mistakes
        buffer.slots.suspect[list(suspect)] = True
        offer = buffer.offer(99, 1, features(99), np.random.default_rng((seed, 5)))
        left[offer.leaving.sample - 1] += 1
    return left / runs


def test_samples_that_are_equally_hard_leave_equally_often():
    share = chances([20] * 5)
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.16 / 3000)


def test_harder_samples_stay_longer():
    share = chances([5, 5, 5, 5, 80])
    # Of two drawn the easier one leaves, but only every so often: 1/5 becomes 1/5 - FAVOUR * 4/25.
    expected = 0.2 - module.FAVOUR * 4 / 25
    assert abs(share[4] - expected) < 5 * np.sqrt(expected / 3000)
    assert share[4] < share[:4].min()


def test_suspects_are_not_favoured_for_being_wrong():
    # The usual rate lies between the two easy and the two hard ones: spared as often as given away.
    assert abs(chances([5, 5, 60, 60, 90], suspect=[4])[4] - 0.2) < 5 * np.sqrt(0.16 / 3000)
    buffer = buffer_of(3, 1)
    offered(buffer, [0] * 3)
    buffer.slots.shown[:] = 10
    buffer.slots.mistakes[:] = [0, 3, 9]
    buffer.slots.suspect[2] = True
    assert buffer.difficulty()[2] == pytest.approx(12 / 30)


def test_a_sample_hardly_shown_counts_as_usual():
    buffer = buffer_of(3, 1)
    offered(buffer, [0] * 3)
    buffer.slots.shown[:] = [100, 0, 100]
    buffer.slots.mistakes[:] = [10, 0, 30]
    low, untried, high = buffer.difficulty()
    assert untried == pytest.approx(0.2)
    assert low < untried < high


def test_a_removed_sample_leaves_nothing_behind():
    buffer = buffer_of(4, 2)
    offered(buffer, [0, 1, 1])
    slot = buffer.find(2)
    buffer.slots.suspect[slot] = buffer.slots.confirmed[slot] = True
    buffer.slots.mistakes[slot] = 3
    buffer.remove(slot)
    assert buffer.find(2) is None
    assert not buffer.features[slot].any()
    untouched = module.empty_slots(1)
    assert all(column[slot] == empty[0] for column, empty in zip(buffer.slots, untouched, strict=True))


def test_an_empty_slot_is_no_sample():
    buffer = buffer_of(4, 1)
    offered(buffer, [0])
    assert buffer.find(EMPTY) is None


def test_a_slot_that_is_taken_again_starts_unmarked():
    buffer = buffer_of(1, 2)
    offered(buffer, [0])
    for column, value in zip(buffer.slots[2:], (4, 9, False, True, True), strict=True):
        column[0] = value
    offer = buffer.offer(2, 1, features(2), np.random.default_rng(0))
    assert offer.slot == 0
    assert (offer.leaving.sample, offer.leaving.number) == (1, 0)
    assert offer.leaving.suspect and offer.leaving.confirmed
    assert [column[0] for column in buffer.slots] == [2, 1, 0, 0, True, False, False]


def test_the_buffer_keeps_no_hold_on_the_callers_array():
    buffer, given_array = buffer_of(2, 1), features(1)
    buffer.offer(1, 0, given_array, np.random.default_rng(0))
    given_array[:] = 0
    assert np.array_equal(buffer.features[buffer.find(1)], features(1))


class Rehearsing(RuleBasedStateMachine):
    """The buffer beside a dictionary that is told the same."""

    def __init__(self):
        super().__init__()
        self.slots = 6
        self.buffer = buffer_of(self.slots, 1)
        self.kept = {}  # sample -> class
        self.offers = [0]
        self.next = 1

    @precondition(lambda self: len(self.offers) < 5)
    @rule()
    def add_class(self):
        self.buffer.add_class()
        self.offers.append(0)

    @precondition(lambda self: self.offers)
    @rule(data=st.data(), seed=st.integers(0, 2**32))
    def offer(self, data, seed):
        number = data.draw(st.integers(0, len(self.offers) - 1))
        before = dict(self.kept)
        was_kept = [list(before.values()).count(c) for c in range(len(self.offers))]
        sample, self.next = self.next, self.next + 1
        offer = self.buffer.offer(sample, number, features(sample), np.random.default_rng(seed))
        self.offers[number] += 1
        if len(before) < self.slots:
            assert offer.slot is not None
            assert offer.leaving is None
        if offer.slot is None:
            assert offer.leaving.sample == sample
        elif offer.leaving is not None:
            left = self.kept.pop(offer.leaving.sample)
            assert left == offer.leaving.number
            assert np.array_equal(offer.leaving.features, features(offer.leaving.sample))
            assert was_kept[left] == max(was_kept)
            assert was_kept[number] < max(was_kept) or left == number
        if offer.slot is not None:
            self.kept[sample] = number
            assert self.buffer.slots.sample[offer.slot] == sample
        else:
            assert was_kept[number] == max(was_kept)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def remove(self, data):
        sample = data.draw(st.sampled_from(sorted(self.kept)))
        self.buffer.remove(self.buffer.find(sample))
        del self.kept[sample]

    @precondition(lambda self: self.offers)
    @rule(data=st.data())
    def forget_class(self, data):
        number = data.draw(st.integers(0, len(self.offers) - 1))
        for sample in [s for s, c in self.kept.items() if c == number]:
            self.buffer.remove(self.buffer.find(sample))
            del self.kept[sample]
        self.buffer.drop_class(number)
        del self.offers[number]
        self.kept = {s: c - (c > number) for s, c in self.kept.items()}

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def train(self, data):
        slot = self.buffer.find(data.draw(st.sampled_from(sorted(self.kept))))
        self.buffer.slots.shown[slot] += 2
        self.buffer.slots.mistakes[slot] += data.draw(st.integers(0, 2))

    @invariant()
    def holds_what_the_dictionary_holds(self):
        found = self.buffer.filled
        samples = self.buffer.slots.sample[found].tolist()
        assert dict(zip(samples, self.buffer.slots.number[found].tolist(), strict=True)) == self.kept
        for slot, sample in zip(found, samples, strict=True):
            assert np.array_equal(self.buffer.features[slot], features(sample))

    @invariant()
    def never_holds_more_than_its_slots(self):
        assert len(self.kept) <= self.slots
        assert len(self.buffer.slots.sample) == self.slots

    @invariant()
    def counts_what_was_offered_and_what_is_kept(self):
        assert self.buffer.offered.tolist() == self.offers
        expected = [list(self.kept.values()).count(c) for c in range(len(self.offers))]
        assert self.buffer.kept().tolist() == expected

    @invariant()
    def free_slots_are_blank(self):
        free = self.buffer.slots.sample == EMPTY
        assert not self.buffer.features[free].any()
        assert all(not column[free].any() for column in self.buffer.slots[1:])

    @invariant()
    def difficulties_are_rates(self):
        difficulty = self.buffer.difficulty()
        assert ((difficulty >= 0) & (difficulty <= 1)).all()


TestRehearsing = Rehearsing.TestCase
TestRehearsing.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
