"""Every learner passes every shared check."""

import pytest
from checks.learner import CHECKS, LEARNERS


def test_no_learner_and_no_check_was_lost():
    assert len(LEARNERS) == 8
    assert len(CHECKS) == 11


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_passes(name, check):
    check(LEARNERS[name])
