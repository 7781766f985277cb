"""When peers exchange, and whom they believe, follows from step counts alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from host_trainer.distillation.codistillation.schedule import Schedule, believed, exchanges, kept

schedules = st.builds(Schedule, burn_in=st.integers(0, 500), interval=st.integers(1, 300), max_age=st.none())


def test_nobody_teaches_in_the_burn_in() -> None:
    schedule = Schedule(burn_in=100, interval=30)
    assert believed(99, {1: 98, 2: 60}, schedule) == ()
    assert believed(100, {1: 98, 2: 60}, schedule) == (1, 2)


def test_the_first_exchange_ends_the_burn_in_and_the_others_follow_at_the_interval() -> None:
    schedule = Schedule(burn_in=100, interval=30)
    assert [step for step in range(200) if exchanges(step, schedule)] == [100, 130, 160, 190]


def test_a_peer_that_has_published_nothing_is_not_waited_for() -> None:
    assert believed(500, {}, Schedule(burn_in=100, interval=30)) == ()


def test_a_peer_that_is_gone_for_good_is_forgotten_when_an_age_is_set() -> None:
    schedule = Schedule(burn_in=0, interval=10, max_age=50)
    assert believed(100, {1: 50, 2: 49, 3: 100}, schedule) == (1, 3)


@given(schedule=schedules, steps=st.integers(1, 2000))
def test_a_peer_never_goes_longer_than_the_interval_without_news(schedule: Schedule, steps: int) -> None:
    moments = [step for step in range(steps) if exchanges(step, schedule)]
    assert all(
        later - sooner == schedule.interval for sooner, later in zip(moments, moments[1:], strict=False)
    )
    assert (not moments) == (steps <= schedule.burn_in)


@given(schedule=schedules, save_every=st.integers(1, 400), died_at=st.integers(0, 3000))
def test_what_a_revived_peer_asks_for_again_is_still_kept(
    schedule: Schedule, save_every: int, died_at: int
) -> None:
    """The others can be one exchange ahead of a dead peer, not more: in lockstep they wait for it there."""
    resumes_at = died_at // save_every * save_every
    asked = [step for step in range(resumes_at, died_at + 1) if exchanges(step, schedule)]
    published = [s for s in range(died_at + schedule.interval + 1) if exchanges(s, schedule)]
    assert set(asked) <= set(published[-kept(schedule, save_every) :])


@pytest.mark.parametrize(
    "bad",
    [
        {"burn_in": -1, "interval": 5},
        {"burn_in": 0, "interval": 0},
        {"burn_in": 0, "interval": 5, "weight": 0.0},
        {"burn_in": 0, "interval": 50, "max_age": 49},
    ],
)
def test_a_schedule_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Schedule(**bad)  # type: ignore[arg-type]
