"""Devices that follow the registry, each in its own steps, all end with the same classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ProtocolError
from edge_cl.learning.increment import placed, places
from edge_cl.learning.statistics import Statistics
from edge_cl.wire.labels import (
    MAX_EDITS,
    Assigned,
    Edit,
    check_order,
    extended,
    followed,
    later,
    moves,
    reassigned,
)

NAMES = ("mug", "cup", "fork", "lamp", "bowl")


def test_a_class_is_renamed_whatever_its_spelling():
    edits = extended((), ["Mug"], "cup")
    assert followed("mug", edits) == followed("ＭＵＧ", edits) == "cup"
    assert followed("fork", edits) == "fork"
    assert moves(["MUG", "fork"], edits) == {"MUG": "cup"}


def test_a_name_may_change_its_spelling_alone():
    assert followed("mug", extended((), ["mug"], "Mug")) == "Mug"


def test_classes_are_merged_and_what_was_merged_goes_on_with_the_rest():
    edits = extended(extended((), ["mug", "cup"], "vessel"), ["vessel", "bowl"], "dish")
    assert [followed(name, edits) for name in NAMES] == ["dish", "dish", "fork", "lamp", "dish"]


def test_a_class_is_split_by_samples_and_the_rest_goes_as_a_whole():
    edits = extended((), ["mug"], "mug", [Assigned("pi-1", 3, "cup"), Assigned("pi-2", 3, "bowl")])
    assert followed("mug", edits, device="pi-1", sample=3) == "cup"
    assert followed("mug", edits, device="pi-2", sample=3) == "bowl"
    assert followed("mug", edits, device="pi-1", sample=4) == followed("mug", edits) == "mug"
    assert reassigned(edits, "pi-1") == {3}
    assert reassigned(edits, "pi-1", version=1) == frozenset()


def test_a_sample_that_was_split_off_follows_its_new_class():
    edits = extended((), ["mug"], "mug", [Assigned("pi-1", 3, "cup")])
    edits = extended(edits, ["cup"], "beaker")
    assert followed("mug", edits, device="pi-1", sample=3) == "beaker"
    assert followed("mug", edits) == "mug"


def test_a_class_taught_after_the_edit_keeps_its_name():
    edits = extended((), ["mug"], "cup")
    assert followed("mug", edits, version=1) == "mug"


drawn = st.lists(
    st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True), st.sampled_from(NAMES)),
    max_size=8,
).map(lambda pairs: _registry(pairs))


def _registry(pairs):
    edits = ()
    for sources, into in pairs:
        edits = extended(edits, sources, into)
    return edits


@given(edits=drawn, label=st.sampled_from(NAMES), cut=st.integers(0, 8))
def test_in_one_step_or_in_several_it_is_the_same_and_again_it_is_nothing(edits, label, cut):
    version = edits[-1].version if edits else 0
    halfway = followed(label, edits[:cut])
    assert followed(halfway, edits, min(cut, version)) == followed(label, edits)
    assert followed(followed(label, edits), edits, version) == followed(label, edits)


@settings(max_examples=30)
@given(edits=drawn)
def test_statistics_follow_as_samples_do(edits):
    rows = np.arange(len(NAMES) * 3, dtype=float).reshape(len(NAMES), 3)
    before = Statistics(np.arange(1, 6) * 12, rows, np.eye(3), 0)
    new = tuple(dict.fromkeys(followed(name, edits) for name in NAMES))
    after = placed(before, places([followed(name, edits) for name in NAMES], new), len(new))
    for number, name in enumerate(new):
        members = [i for i, old in enumerate(NAMES) if followed(old, edits) == name]
        assert after.counts[number] == before.counts[members].sum()
        assert np.array_equal(after.sums[number], before.sums[members].sum(axis=0))


def test_a_device_that_is_far_behind_gets_them_in_pages_and_notices_a_gap():
    edits = _registry([(["mug"], "mug")] * (MAX_EDITS + 5))
    page = later(edits, 0)
    assert len(page) == MAX_EDITS
    check_order(page, 0)
    rest = later(edits, page[-1].version)
    check_order(rest, MAX_EDITS)
    assert page + rest == edits
    with pytest.raises(ProtocolError, match="ask for them again"):
        check_order(rest, 3)
    with pytest.raises(ProtocolError):
        check_order(page[::-1], 0)


def test_an_edit_that_makes_no_sense_is_not_made():
    for sources, into, assigned in (
        ((), "mug", ()),
        (("mug", "MUG"), "cup", ()),
        (("mug",), "../cup", ()),
        (("mug",), "cup", (Assigned("pi-1", 3, "a"), Assigned("pi-1", 3, "b"))),
    ):
        with pytest.raises(ValueError):
            Edit(1, sources, into, assigned)
