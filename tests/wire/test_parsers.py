"""No bytes bring a parser to anything but a refusal in one line, or a value that keeps its rules.

The same table is run for as long as one likes by `benchmarks/fuzz.py`, guided by coverage.
"""

import pytest
from checks.parsers import CASES, run
from hypothesis import given, settings
from hypothesis import strategies as st


def test_no_parser_was_lost():
    assert len(CASES) == 12


@pytest.mark.parametrize("name", CASES)
def test_what_it_begins_with_is_read(name):
    assert not any(run(CASES[name], seed) for seed in CASES[name].seeds)


@pytest.mark.parametrize("name", CASES)
def test_spoiled_bytes_are_refused_or_keep_the_rules(name):
    case = CASES[name]

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def check(data):
        good = data.draw(st.sampled_from(case.seeds))
        spoiled = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(0, len(spoiled) - 1)))
            match data.draw(st.sampled_from(("set", "cut", "insert", "repeat"))):
                case "set":
                    spoiled[at : at + 1] = data.draw(st.binary(min_size=1, max_size=4))
                case "cut":
                    del spoiled[at : at + data.draw(st.integers(1, 64))]
                case "insert":
                    spoiled[at:at] = data.draw(st.binary(min_size=1, max_size=16))
                case "repeat":
                    spoiled[at:at] = spoiled[at : at + 64]
        run(case, bytes(spoiled))

    check()
