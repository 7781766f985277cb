"""A device and the host add up the same statistics, through renamed and joined classes, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.device.sync import history
from edge_cl.errors import StoreDamagedError
from edge_cl.wire.codec import content_id
from edge_cl.wire.labels import Edits, extended
from edge_cl.wire.messages import Statistics, narrowest
from host_trainer.retraining import told as heard

SIZE, SPACE = 6, "a" * 16
NAMES = ("mug", "cup", "fork", "lamp")


def spoken(number: int, since: str | None, edition: int, labels: tuple[str, ...], seed: int) -> Statistics:
    rng = np.random.default_rng(seed)
    sums = rng.integers(-(10**5), 10**5, (len(labels), SIZE))
    return Statistics(
        *("pi-1", number, since, SPACE, edition, labels, rng.integers(0, 200, len(labels)) * 12),
        *(
            sums.astype(narrowest(sums)),
            int(rng.integers(-9, 9)),
            rng.integers(-7, 8, (3, SIZE)).astype("i1"),
        ),
        *(rng.integers(-(10**6), 10**6, 3), rng.integers(-9, 9, SIZE).astype("i1"), int(rng.integers(9))),
        *(100, np.zeros(0, np.int64)),
    )


STEP = st.tuples(
    st.sampled_from(["tell", "tell", "edit", "anew"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    st.sampled_from((*NAMES, "MUG")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=8))
def test_both_ends_know_the_same(steps):
    edits: Edits = ()
    rows: list[tuple[str, Statistics]] = []
    for number, (what, names, into) in enumerate(steps, 1):
        if what == "edit":
            edits = extended(edits, names, into)
        else:
            since = rows[-1][0] if rows and what == "tell" else None
            message = spoken(number, since, len(edits), tuple(names), number)
            rows.append((content_id(message), message))
    mine, theirs = history.after(None, rows, edits), None
    for name, message in rows:
        theirs = heard.taken_in(theirs, message, name, edits)
    if mine is None or theirs is None:
        assert rows == []
        return
    mine, theirs = history.moved(mine, edits, len(edits)), heard.moved(theirs, edits, len(edits))
    assert mine.id == theirs.contents[-1]
    at = [mine.labels.index(label) for label in theirs.labels]
    found, wanted = mine.named().statistics, theirs.statistics()
    assert found.counts[at].tolist() == wanted.counts.tolist()
    assert np.array_equal(found.sums[at], wanted.sums)
    assert np.array_equal(found.moment, wanted.moment)
    assert found.residue == wanted.residue
    same(history.from_bytes(history.to_bytes(mine)), mine)


def same(first: history.Told, second: history.Told) -> None:
    for name, one in first._asdict().items():
        other = getattr(second, name)
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, name


def test_statistics_that_continue_nothing_are_damage():
    rows = [("a" * 64, spoken(2, "b" * 64, 0, ("mug",), 0))]
    with pytest.raises(StoreDamagedError, match="enrol again"):
        history.after(None, rows, ())
