"""A run's record survives the disk, and nothing else is taken for one."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_cl.errors import MismatchError
from host_trainer.sparcl.record import Bin, Epoch, Metrics, Record, Task, Totals, from_json, to_json

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**62)
phases = st.dictionaries(names, numbers, max_size=3)


def drawn(cls: type, **parts: st.SearchStrategy) -> st.SearchStrategy:
    """Values of a dataclass whose numbers are numbers."""
    usual = {int: counts, float: numbers, str: names, float | None: maybe, dict[str, float]: phases}
    left = {name: usual[kind] for name, kind in cls.__annotations__.items() if name not in parts}
    return st.builds(cls, **left, **parts)


@st.composite
def records(draw: st.DrawFn) -> Record:
    count = draw(st.integers(0, 4))
    grids = st.tuples(*[st.tuples(*[maybe] * count)] * count)
    lists = st.lists(names, max_size=3).map(tuple)
    return draw(
        drawn(
            Record,
            mode=st.none() | names,
            classes=lists,
            tasks=st.tuples(*[drawn(Task, classes=lists)] * count),
            class_il=grids,
            task_il=grids,
            metrics=drawn(Metrics),
            totals=drawn(Totals),
            epochs=st.lists(drawn(Epoch), max_size=2).map(tuple),
            layers=st.none() | phases,
            reliability=st.lists(drawn(Bin), max_size=2).map(tuple),
            settings=st.none() | st.dictionaries(names, names, max_size=2),
            version=st.just(1),
        )
    )


def one() -> Record:
    totals = Totals({"train": 2.0, "other": 0.5}, 1.0, 2.0, 3.0, 4.0, 5, 6, 7.0)
    metrics = Metrics(0.5, 0.9, None, None, None, None)
    task = Task("1", ("cat", "dog"), 20, 10)
    grid = ((0.5,),)
    return Record(
        "c", "derpp", None, "p", None, 9, 0, "n", "d", ("cat", "dog"), (task,), grid, grid, metrics, totals
    )


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(records())
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    assert from_json(to_json(record)) == record


def test_whole_numbers_may_stand_for_fractions() -> None:
    told = asdict(one())
    told["totals"]["images_per_s"] = 7
    assert from_json(json.dumps(told)) == one()


def test_a_number_that_is_none_is_not_written() -> None:
    bad = replace(one(), metrics=replace(one().metrics, class_il=float("nan")))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(bad)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "record has other parts"),
        ("{}", "version None"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1}', "other parts than expected"),
        (to_json(one()).replace('"seed": 0', '"seed": "0"'), "record.seed is str, not int"),
        (to_json(one()).replace('"train": 20', '"train": true'), r"record.tasks\[0\].train is bool, not int"),
        (to_json(one()).replace('"class_il": 0.5', '"class_il": [1]'), "metrics.class_il is list, not float"),
        (to_json(one()).replace('"name": "1"', '"name": "1", "age": 3'), r"tasks\[0\] has other .*\(age\)"),
        (to_json(one()).replace('"class_il": 0.5', '"class_il": NaN'), "not JSON"),
        (json.dumps({**asdict(one()), "class_il": [[1, 2]]}), "1 tasks need accuracies of 1 x 1"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(MismatchError, match=said) as caught:
        from_json(text)
    assert "\n" not in str(caught.value)


def test_a_table_calls_a_run_by_what_sets_it_apart() -> None:
    assert one().name == "derpp"
    assert replace(one(), method="sparcl-er", mode="edge", sparsity=0.9).name == "sparcl-er edge 0.9"
    assert one().totals.all_seconds == 2.5
