"""What the server decides, by the rules alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ConfigError
from edge_cl.wire.release import Board, Facts
from host_trainer.server.rules import quota
from host_trainer.server.rules.admission import Patience, Throttle, check_name, free_name
from host_trainer.server.rules.offer import Asker, Listed, chosen
from host_trainer.server.rules.quota import DAY_S, Spent
from host_trainer.server.rules.retraining import Policy, is_due
from host_trainer.server.rules.rollout import ALL, Rollout, Tally, advanced, check, includes, place

NAMES = [f"pi-{number}" for number in range(2000)]
BOARD = Board(("edgetpu",), "0.2.0")
ASKER = Asker("pi-1", "waste", BOARD, 4)


def listed(number: int, *hardware: str, **facts: str) -> Listed:
    name = f"waste/canary/{number}-{'-'.join(hardware)}"
    return Listed(name, 100, "f" * 64, Facts(number, hardware or ("any",), **facts), "a" * 64)


class TestRollout:
    def test_a_share_is_about_that_share_of_the_devices(self) -> None:
        group = [name for name in NAMES if includes(Rollout(share=100), name, "waste", 7)]
        assert 150 < len(group) < 250

    def test_other_devices_are_first_with_another_bundle(self) -> None:
        groups = [{n for n in NAMES if includes(Rollout(share=100), n, "waste", k)} for k in (7, 8)]
        assert len(groups[0] & groups[1]) < 50

    @given(st.sampled_from(NAMES), st.integers(1, 999))
    def test_who_is_in_stays_in_as_the_share_grows(self, name: str, share: int) -> None:
        if includes(Rollout(share=share), name, "waste", 7):
            assert includes(Rollout(share=share + 1), name, "waste", 7)
        assert includes(Rollout(share=ALL), name, "waste", 7)
        assert 0 <= place(name, "waste", 7) < ALL

    def test_the_place_of_a_device_never_changes(self) -> None:
        assert [place(name, "waste", 7) for name in NAMES[:4]] == [757, 208, 740, 756]

    def test_enough_who_keep_it_let_the_next_group_follow(self) -> None:
        rollout = Rollout(share=100, steps=(500, 1000), success=900)
        assert advanced(rollout, Tally(10, 8, 0)) == rollout
        assert advanced(rollout, Tally(10, 9, 0)) == Rollout(share=500, steps=(1000,), success=900)

    def test_too_many_who_fail_stop_it(self) -> None:
        rollout = Rollout(share=100, steps=(500, 1000), error=200)
        assert advanced(rollout, Tally(10, 9, 1)).share == 500
        stopped = advanced(rollout, Tally(10, 8, 2))
        assert stopped.share == 100
        assert "2 of 10" in stopped.reason
        assert not includes(stopped, NAMES[1], "waste", 7)
        assert advanced(stopped, Tally(10, 10, 0)) == stopped

    def test_a_group_of_nobody_decides_nothing(self) -> None:
        rollout = Rollout(share=1, steps=(1000,))
        assert advanced(rollout, Tally()) == rollout

    @pytest.mark.parametrize(
        "rollout",
        [
            Rollout(share=0),
            Rollout(share=500, steps=(100,)),
            Rollout(share=500, steps=(500,)),
            Rollout(share=500, steps=(1001,)),
            Rollout(success=0),
            Rollout(error=1001),
        ],
    )
    def test_a_rollout_that_makes_no_sense_is_refused(self, rollout: Rollout) -> None:
        with pytest.raises(ConfigError):
            check(rollout)

    def test_one_that_makes_sense_is_not(self) -> None:
        check(Rollout())
        check(Rollout(share=1, steps=(10, 1000), success=1000, error=1))


class TestOffer:
    def test_the_newest_that_suits_is_offered(self) -> None:
        found = [listed(5), listed(7), listed(6), listed(9, "tensorrt"), listed(8, runtime_from="0.3")]
        assert chosen(found, {}, ASKER) == listed(7)

    def test_of_one_number_the_one_for_the_better_hardware(self) -> None:
        assert chosen([listed(7), listed(7, "edgetpu")], {}, ASKER) == listed(7, "edgetpu")

    def test_who_runs_the_parent_gets_what_the_parent_lacks_and_all_others_the_whole(self) -> None:
        whole, lean = listed(7), listed(7)._replace(path="waste/canary/7-from-4", parent=4)
        assert chosen([whole, lean], {}, ASKER) == lean
        assert chosen([lean, whole], {}, ASKER) == lean
        assert chosen([whole, lean], {}, ASKER._replace(bundle=3)) == whole
        assert chosen([whole, lean], {}, ASKER._replace(bundle=0)) == whole
        assert chosen([lean], {}, ASKER._replace(bundle=3)) is None

    def test_one_that_is_not_rolled_out_to_the_device_leaves_the_one_before(self) -> None:
        at = place("pi-1", "waste", 7)
        found = [listed(6), listed(7)]
        assert chosen(found, {7: Rollout(share=at)}, ASKER) == listed(6)
        assert chosen(found, {7: Rollout(share=at + 1)}, ASKER) == listed(7)
        assert chosen(found, {7: Rollout(reason="bad")}, ASKER) == listed(6)

    def test_nothing_older_than_what_runs_is_offered(self) -> None:
        assert chosen([listed(3)], {}, ASKER) is None
        assert chosen([listed(4)], {}, ASKER) == listed(4)
        assert chosen([], {}, ASKER) is None


class TestQuota:
    def test_what_is_left_is_new_every_day(self) -> None:
        spent = quota.after(Spent(), 10 * DAY_S + 5, 300)
        spent = quota.after(spent, 10 * DAY_S + 6, 300)
        assert quota.left(spent, 11 * DAY_S - 1, 1000) == 400
        assert quota.left(spent, 11 * DAY_S - 1, 500) == 0
        assert quota.left(spent, 11 * DAY_S, 1000) == 1000
        assert quota.after(spent, 11 * DAY_S, 1) == Spent(11, 1)

    def test_the_wait_ends_with_the_day(self) -> None:
        assert quota.wait_s(10 * DAY_S + 5) == DAY_S - 5


class TestAdmission:
    def test_a_name_that_is_taken_gets_a_number(self) -> None:
        assert free_name("pi", set().__contains__) == "pi"
        assert free_name("pi", {"pi", "pi-2"}.__contains__) == "pi-3"
        long = "a" * 64
        assert free_name(long, {long}.__contains__) == "a" * 62 + "-2"

    @pytest.mark.parametrize("name", ["", "Pi", "../pi", "a" * 65, "pi\n", "-pi"])
    def test_what_is_no_name_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match="names no device"):
            check_name(name)

    def test_ten_wrong_codes_are_enough_for_an_address(self) -> None:
        throttle = Throttle(Patience(tries=10, seconds=600.0))
        for _ in range(10):
            assert throttle.wait_s("a", 0.0) == 0.0
            throttle.failed("a", 0.0)
        assert throttle.wait_s("a", 0.0) == pytest.approx(60.0)
        assert throttle.wait_s("b", 0.0) == 0.0
        assert throttle.wait_s("a", 60.0) == 0.0
        throttle.failed("a", 60.0)
        assert throttle.wait_s("a", 60.0) > 0.0

    def test_it_does_not_remember_without_end(self) -> None:
        throttle = Throttle(Patience())
        for number in range(10_000):
            throttle.failed(str(number), 0.0)
        assert len(throttle._buckets) <= 4096


class TestRetraining:
    def test_it_is_due_when_enough_wait_or_one_waits_for_long(self) -> None:
        assert not is_due(Policy(), 10_000, 10**9)
        assert is_due(Policy(contents=10), 10, 0)
        assert not is_due(Policy(contents=10), 9, 10**9)
        assert is_due(Policy(hours=24), 1, 24 * 3600)
        assert not is_due(Policy(hours=24), 0, 24 * 3600)
