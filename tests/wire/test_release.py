"""What a release says of itself, and which one suits a board."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ReleaseError
from edge_cl.wire.release import (
    CHANNELS,
    MAX_BUNDLE,
    Board,
    Facts,
    Offer,
    misfit,
    newest,
    path_of,
    read_facts,
    role_of,
    to_custom,
)

VERSIONS = st.lists(st.integers(0, 999_999), min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))
CLASSES = st.sampled_from(("any", "cpu", "edgetpu", "orin"))
FACTS = st.builds(
    Facts,
    st.integers(1, MAX_BUNDLE),
    st.lists(CLASSES, min_size=1, max_size=3).map(tuple),
    VERSIONS,
    st.just(""),
)
BOARD = Board(("edgetpu", "cpu"), "0.2.0")


def offer(bundle: int, *hardware: str, **more: str) -> Offer:
    return Offer(f"m/stable/{bundle}-{'-'.join(hardware)}", 1, "00", Facts(bundle, hardware, **more))


@given(FACTS)
def test_facts_come_back_as_they_were(facts: Facts) -> None:
    assert read_facts(to_custom(facts)) == facts


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(("bundle", "hardware", "runtime", "from", "below")), inner)
        ),
    )
)
def test_whatever_a_publisher_says_is_facts_or_one_line(custom: Any) -> None:
    try:
        assert read_facts(custom).bundle >= 1
    except ReleaseError as error:
        assert "\n" not in str(error)


def test_facts_of_a_newer_publisher_are_read_as_far_as_they_are_known() -> None:
    assert read_facts({**to_custom(Facts(3)), "parent": 2}) == Facts(3)


@pytest.mark.parametrize(
    "facts",
    [
        Facts(0),
        Facts(True),
        Facts(MAX_BUNDLE + 1),
        Facts(1, ()),
        Facts(1, ("Two Words",)),
        Facts(1, runtime_from="new"),
        Facts(1, runtime_from="0.2", runtime_below="0.2.0"),
    ],
)
def test_facts_that_make_no_sense_are_refused(facts: Facts) -> None:
    with pytest.raises(ReleaseError):
        to_custom(facts)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(1), ""),
        (Facts(1, ("cpu",), "0.2"), ""),
        (Facts(1, ("orin",)), "is for orin"),
        (Facts(1, runtime_from="0.2.1"), "or newer"),
        (Facts(1, runtime_from="0.1", runtime_below="0.2"), "below 0.2"),
        (Facts(1, runtime_from="0.1", runtime_below="0.2.1"), ""),
    ],
)
def test_a_misfit_is_told_with_its_reason(facts: Facts, reason: str) -> None:
    found = misfit(facts, BOARD)
    assert reason in found
    assert bool(reason) == bool(found)


def test_the_highest_number_that_suits_is_chosen_and_then_the_best_hardware() -> None:
    offers = [
        offer(1, "any"),
        offer(3, "cpu"),
        offer(3, "edgetpu"),
        offer(3, "any"),
        offer(4, "orin"),
        offer(5, "any", runtime_from="9"),
    ]
    choice = newest(offers, BOARD)
    assert choice.offer == offers[2]
    assert len(choice.left) == len(offers) - 1


def test_nothing_below_the_floor_is_chosen() -> None:
    assert newest([offer(3, "any")], BOARD, floor=3).offer is not None
    choice = newest([offer(3, "any")], BOARD, floor=4)
    assert choice.offer is None
    assert "older than 4" in choice.left[0][1]


@given(st.lists(FACTS), st.lists(CLASSES).map(tuple), VERSIONS, st.integers(0, 5))
def test_a_choice_suits_and_no_other_that_suits_is_newer(
    found: list[Facts], hardware: tuple[str, ...], runtime: str, floor: int
) -> None:
    board = Board(hardware, runtime)
    offers = [Offer(f"m/beta/{n}", 1, "00", facts) for n, facts in enumerate(found)]
    choice = newest(offers, board, floor)
    suiting = [each for each in offers if not misfit(each.facts, board) and each.facts.bundle >= floor]
    if choice.offer is None:
        assert not suiting
    else:
        assert choice.offer.facts.bundle == max(each.facts.bundle for each in suiting)
        assert not misfit(choice.offer.facts, board)
    assert len(choice.left) + (choice.offer is not None) == len(offers)


def test_names_that_lead_elsewhere_are_refused() -> None:
    assert [role_of("waste", each) for each in CHANNELS] == ["waste-canary", "waste-beta", "waste-stable"]
    assert path_of("waste", "beta", "b-7.bundle") == "waste/beta/b-7.bundle"
    for model, channel, name in (
        ("../waste", "beta", "x"),
        ("", "beta", "x"),
        ("waste", "nightly", "x"),
        ("waste", "beta", "../x"),
        ("waste", "beta", "a/b"),
        ("waste", "beta", ""),
        ("waste", "beta", ".x"),
        ("waste", "beta", "x\n"),
    ):
        with pytest.raises(ReleaseError):
            path_of(model, channel, name)
