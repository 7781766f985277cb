"""What a release must not do in the shadow of what runs: be worse where that is at home, or crowd it out."""

import pytest

from edge_cl.device.installation.shadow import Compared, check_compared, check_frames
from edge_cl.errors import ReleaseError
from edge_cl.sample import Prediction
from edge_cl.wire.bundle import Gates

GATES = Gates(0, 20, 0, 990, 0, 0)  # two of a hundred may fall


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Compared(0, 0, 0, 0, 0, 0, 0, 0), ""),  # nothing to say
        (Compared(100, 90, 88, 2, 0, 88, 2, 0), ""),
        (Compared(100, 90, 87, 5, 2, 87, 5, 2), ""),  # could be luck
        (Compared(100, 90, 80, 10, 0, 80, 10, 0), "answers 80 % right, what runs answers 90 %"),
        (Compared(100, 90, 90, 0, 0, 75, 15, 0), ""),  # taken for classes that it did not know before
        (Compared(100, 90, 90, 0, 0, 60, 30, 0), "60 % right among its new classes"),
        (Compared(4, 4, 1, 3, 0, 1, 3, 0), ""),  # of so few three may be luck ...
        (Compared(4, 4, 0, 4, 0, 0, 4, 0), "0 % right"),  # ... but not all
    ],
)
def test_a_fall_counts_when_it_is_none_of_luck(found, words):
    if not words:
        check_compared(found, GATES)
        return
    with pytest.raises(ReleaseError, match=words):
        check_compared(found, GATES)


def answer(best: str, probability: float = 0.9) -> Prediction:
    return Prediction(best, probability, best, None, 0.0, 1.0)


def test_live_frames_count_where_the_answer_was_sure():
    before = [answer("mug")] * 10 + [answer("mug", 0.5)] * 10
    after = [answer("Mug")] * 5 + [answer("cup")] * 15
    assert check_frames(before, after) == {"frames": 20, "frames_changed": 5}
    with pytest.raises(ReleaseError, match="of 10 live frames with a sure answer it answers 6 otherwise"):
        check_frames(before, [answer("Mug")] * 4 + [answer("cup")] * 16)
    assert check_frames(before[:9], [answer("cup")] * 9)["frames_changed"] == 9  # too few to say anything
    assert check_frames([], []) == {}
