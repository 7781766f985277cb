"""The calendar of a task: when masks move and by how much, and who is still shown."""

import numpy as np
import pytest

from edge_cl.errors import ConfigError
from host_trainer.sparcl.attendance import dismissed, everybody, noted
from host_trainer.sparcl.schedule import Move, Sparsity, move_at, stage_length, stage_of


def test_a_task_of_fifty_epochs_has_ten_stages_of_five() -> None:
    assert stage_length(50) == 5
    assert [epoch for epoch in range(50) if stage_of(epoch, 50) is not None] == list(range(0, 50, 5))
    assert stage_length(5) == stage_length(1) == 1


def test_the_authors_table_of_a_task() -> None:
    """reference: prune to 0.75, grow to 0.74 | to 0.76, to 0.75 at 5..40 | to 0.75, no growth at 45."""
    moves = {epoch: move_at(Sparsity("official"), 0, epoch, 50) for epoch in range(50)}
    assert moves[0] == Move(0.0, 0.01)
    assert {moves[epoch] for epoch in range(5, 45, 5)} == {Move(-0.01, 0.0)}
    assert moves[45] == Move(0.0, 0.0)
    assert sum(move is not None for move in moves.values()) == 10


def test_the_paper_grows_for_a_new_task_only() -> None:
    rules = Sparsity("paper", intra=0.005)
    assert move_at(rules, 0, 0, 50) == Move(0.0, 0.0)
    assert move_at(rules, 1, 0, 50) == Move(0.0, 0.01)
    assert move_at(rules, 1, 5, 50) == Move(-0.005, 0.0)


def test_a_task_of_one_stage_does_not_grow_what_it_cannot_shrink() -> None:
    assert move_at(Sparsity("official"), 1, 0, 1) == Move(0.0, 0.0)


def test_data_leaves_as_published() -> None:
    attendance, kept = everybody(10_000), []
    for stage in range(6):
        if stage:
            attendance = dismissed(attendance, 0.3, 4, stage, False, np.random.default_rng(stage))
        kept.append(int(attendance.kept.sum()))
    assert kept == [10_000, 9_250, 8_500, 7_750, 7_000, 7_000]


def test_the_easiest_leave_and_do_not_come_back() -> None:
    attendance = everybody(8)
    wrong = np.array([0, 1, 0, 1, 0, 1, 0, 1], bool)
    for _ in range(2):
        attendance = noted(attendance, np.arange(8), ~wrong)
    less = dismissed(attendance, 0.5, 1, 1, False, np.random.default_rng(0))
    assert less.kept.tolist() == wrong.tolist()
    assert less.mistakes.sum() == 0
    assert dismissed(less, 0.5, 1, 2, False, np.random.default_rng(0)).kept.tolist() == wrong.tolist()


def test_forgetting_events_are_falls_from_right_to_wrong() -> None:
    attendance, one = everybody(3), np.array([0, 1, 2])
    for answers in ([True, False, True], [False, False, True], [True, False, True], [False, False, True]):
        attendance = noted(attendance, one, np.array(answers))
    assert attendance.forgotten.tolist() == [2, 0, 0]
    assert attendance.mistakes.tolist() == [2, 4, 0]
    assert attendance.ever.tolist() == [True, False, True]
    left = dismissed(attendance, 2 / 3, 1, 1, True, np.random.default_rng(0))
    assert left.kept.tolist() == [False, True, False]  # never right counts most, as in the authors' code


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sparsity": 0.0}, "leaves all or nothing"),
        ({"sparsity": 1.0}, "leaves all or nothing"),
        ({"mode": "fast"}, "no mode"),
        ({"sparsity": 0.9, "gradient": 0.5}, "gradient sparsity"),
        ({"inter": 0.3}, "p_inter"),
        ({"initial": "zero"}, "masks begin"),
        ({"removed": 1.0}, "remove a share"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Sparsity(**values)
