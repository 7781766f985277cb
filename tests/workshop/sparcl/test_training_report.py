"""Reports are whole pages on their own, say what the record says, and take no name for markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from math import exp

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from host_trainer.pages.charts import Axis, Mark, Series, bars, heat, line, scatter, step, ticks
from host_trainer.pages.figures import duration, flop, shortened, size, text
from host_trainer.sparcl.comparison import compare, grouped
from host_trainer.sparcl.record import Bin, Epoch, Metrics, Record, Task, Totals
from host_trainer.sparcl.report import mean_accuracies, render

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = """<script>alert("x")</script>' onmouseover='\x00\u202e&amp;"""
PHASES = {"train": 600.0, "importance": 40.0, "evaluation": 30.0, "other": 5.0}


class Page(HTMLParser):
    """Reads a page strictly: every element that opens must close, in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join(self.words).replace("\u00a0", " ")


def epoch(task: int, number: int) -> Epoch:
    kept = (1000, 925, 850, 775, 700)[number]
    spent = {"train": 24.0, "importance": 1.6}
    moving = 0.91 if number else 0.9
    return Epoch(
        task,
        number,
        32,
        1000,
        kept,
        0.9,
        moving,
        exp(-number),
        0.8,
        kept,
        kept,
        0,
        64,
        5e13,
        9e13,
        spent,
        40.0,
    )


def run(method: str = "sparcl-derpp", sparsity: float | None = 0.9, seed: int = 0, **parts: object) -> Record:
    names = ("cat", "dog", "frog", "ship")
    tasks = (Task("pets", names[:2], 1000, 200), Task("others", names[2:], 1000, 200))
    record = Record(
        command="host-trainer train --data cifar10 --seed 0",
        method=method,
        mode="edge" if sparsity else None,
        protocol="class-incremental",
        sparsity=sparsity,
        buffer=200,
        seed=seed,
        network="resnet18:0.5",
        dataset="cifar10",
        classes=names,
        tasks=tasks,
        class_il=((0.961, None), (0.512, 0.934)),
        task_il=((0.961, None), (0.953, 0.944)),
        metrics=Metrics(0.723, 0.9485, 0.449, -0.449, None, 0.083),
        totals=Totals(PHASES, 1.1e15, 1.84e15, 13.89e15, 21.7e15, 1_210_000_000, 614_400, 311.0),
        epochs=tuple(epoch(task, number) for task in range(2) for number in range(5)),
        layers={"stem/kernel": 1.0, "stage1_block1_conv1/kernel": 0.1},
        reliability=(Bin(0.35, 0.3, 40), Bin(0.95, 0.9, 160)),
        settings={"epochs": "5"},
    )
    return replace(record, **parts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(run()))


def test_the_report_says_what_the_run_reached_and_cost(page: Page) -> None:
    for figure in ("72.3 %", "94.8 %", "44.9 points", "8.3 %", "11 min 15 s", "1.1 PFLOP", "1.84 PFLOP"):
        assert figure in page.said
    assert "12.6 times fewer than dense (13.9 PFLOP)" in page.said
    assert "11.8 times fewer than dense (21.7 PFLOP)" in page.said
    assert "1.21 GB" in page.said and "buffer 614 kB" in page.said
    assert "host-trainer train --data cifar10 --seed 0" in page.said


def test_every_chart_has_a_name_a_description_and_its_numbers_as_a_table(page: Page) -> None:
    charts = [value for name, value in page.attributes if (name, value) == ("role", "img")]
    assert len(charts) == page.tags.count("desc") == 11
    assert page.tags.count("details") == 11


def test_a_page_is_one_file_that_fetches_and_runs_nothing() -> None:
    for source in (render(run()), compare([run(), run("er", None)])):
        read = Page(source)
        assert not {"script", "link", "img", "iframe", "object", "a", "use", "image"} & set(read.tags)
        assert not {"src", "href", "xlink:href"} & {name for name, _ in read.attributes}
        assert not re.search(r"https?:|//|url\(|@import", source)
        assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes


def test_names_are_never_markup() -> None:
    task = Task(HOSTILE, (HOSTILE, "dog"), 1000, 200)
    tame = run()
    bad = run(
        HOSTILE,
        command=HOSTILE,
        mode=HOSTILE,
        dataset=HOSTILE,
        network=HOSTILE,
        protocol=HOSTILE,
        classes=(HOSTILE, "dog"),
        tasks=(task, task),
        layers={HOSTILE: 0.5},
        settings={HOSTILE: HOSTILE},
        totals=replace(tame.totals, seconds={HOSTILE: 1.0}),
    )
    for source in (render(bad), compare([bad, tame])):
        read = Page(source)
        assert "script" not in read.tags
        assert not [name for name, _ in read.attributes if name.startswith("on")]
        assert '<script>alert("x")</script>' in read.said
        assert "\x00" not in source and "\u202e" not in source


def test_tasks_are_counted_in_whole_numbers() -> None:
    chart = render(run()).partition("<title>Accuracy over tasks</title>")[2].partition("</svg>")[0]
    assert "tasks taught" in chart
    assert re.findall(r'class="tick"[^>]*>([^<]*)<', chart) == ["1", "2"]


def test_a_dense_run_has_no_ratio_and_no_sparsity() -> None:
    said = Page(render(run("er", None))).said
    assert "times fewer" not in said and "Sparsity" not in said


def test_a_run_of_which_little_is_known_still_has_its_report() -> None:
    nothing = Metrics(None, None, None, None, None, None)
    blank = ((None, None), (None, None))
    one = run(metrics=nothing, class_il=blank, task_il=blank, epochs=(), layers=None, reliability=())
    assert "–" in Page(render(one)).said
    joint = run("joint", None, class_il=((None, None), (0.9, 0.8)), task_il=((None, None), (0.9, 0.8)))
    assert "85.0 %" in Page(render(joint)).said
    none = run(tasks=(), class_il=(), task_il=(), metrics=nothing, epochs=(), classes=())
    assert "0 tasks" in Page(render(none)).said


def test_means_are_over_the_tasks_taught_by_then() -> None:
    assert mean_accuracies(((0.9, 0.1), (0.5, 0.7))) == [0.9, pytest.approx(0.6)]
    assert mean_accuracies(((None, None), (0.5, None))) == [None, 0.5]


def test_seeds_of_a_run_are_one_row_of_a_comparison() -> None:
    better = replace(run().metrics, class_il=0.743)
    runs = [run(), run(seed=1, metrics=better), run("er", None), run(seed=2, buffer=500)]
    assert [(group.name, len(group.runs)) for group in grouped(runs)] == [
        ("sparcl-derpp edge 0.9, buffer 200", 2),
        ("er, buffer 200", 1),
        ("sparcl-derpp edge 0.9, buffer 500", 1),
    ]
    assert "73.3 ± 1.4 %" in Page(compare(runs)).said


def test_a_run_with_another_setting_is_no_seed_of_the_first() -> None:
    whole = {"masks": "True", "removal": "True", "momentum": "0.0", "seed": "0"}
    others = ({"seed": "1"}, {"removal": "False"}, {"momentum": "0.9"})
    runs = [run(settings=whole), *(run(settings={**whole, **other}) for other in others)]
    assert [(group.name, len(group.runs)) for group in grouped(runs)] == [
        ("sparcl-derpp edge 0.9, momentum 0.0", 2),
        ("sparcl-derpp edge 0.9, without removal, momentum 0.0", 1),
        ("sparcl-derpp edge 0.9, momentum 0.9", 1),
    ]


def test_runs_of_different_kinds_are_compared_with_a_warning() -> None:
    assert "not of one kind" in Page(compare([run(), run(network="resnet18")])).said
    assert "not of one kind" not in Page(compare([run(), run("er", None)])).said
    assert "0 trainings" in Page(compare([])).said


def places(svg: str) -> list[float]:
    return [
        float(number) for pair in re.findall(r'points="([^"]*)"', svg) for number in re.split("[ ,]", pair)
    ]


@settings(deadline=None)
@example([(0.0, 5e-324)])
@given(st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), min_size=1, max_size=8))
def test_a_line_stays_on_its_paper(values: list[tuple[float, float]]) -> None:
    for draw in (line, step):
        drawn = draw("t", [Series("one", sorted(values))], Axis("x"), Axis("y"), [(values[0][0], "a")])
        Page(drawn)
        found = places(drawn)
        assert all(0 <= left <= 360 for left in found[::2])
        assert all(0 <= top <= 224 for top in found[1::2])


def test_a_higher_value_lies_higher_and_a_later_one_further_right() -> None:
    (x1, y1, x2, y2) = places(line("t", [Series("one", [(0, 1), (5, 3)])], Axis("x"), Axis("y", 0)))
    assert x1 < x2 and y1 > y2


def test_stairs_hold_a_value_until_the_next() -> None:
    (x1, y1, x2, y2, x3, y3) = places(step("t", [Series("one", [(0, 1), (5, 3)])], Axis("x"), Axis("y")))
    assert (y1, x2) == (y2, x3) and y3 < y2 and x1 < x2


def test_a_bar_is_as_long_as_its_value() -> None:
    widths = re.findall(r'width="([0-9.]+)" height', bars("t", [("a", 2.0), ("b", 1.0)], Axis("x")))
    assert float(widths[0]) == pytest.approx(2 * float(widths[1]), abs=0.1)
    Page(bars("t", [], Axis("x")) + bars("t", [("a", 0.0)], Axis("x")))


def test_a_scatter_numbers_its_points_on_a_logarithmic_axis_too() -> None:
    marks = [Mark(1, "one", 1e13, 0.5, around=[(9e12, 0.49)]), Mark(2, "two", 1e15, 0.7)]
    drawn = scatter("t", marks, Axis("FLOPs", write=flop, logarithmic=True), Axis("accuracy"))
    assert 'class="number"' in drawn and "2 two" in Page(drawn).said


def test_a_heat_table_is_deeper_where_the_share_is_higher() -> None:
    drawn = heat("t", "corner", ["1"], ["a", "b", "c"], [[0.25, 1.0, None]])
    depths = [float(depth) for depth in re.findall(r"220,([0-9.]+)\)", drawn)]
    assert depths == [pytest.approx(0.1375, abs=1e-3), 0.55] and "–" in drawn


def test_a_chart_of_no_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        line("t", [Series("one", [(0.0, float("nan"))])], Axis("x"), Axis("y"))


@settings(deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9))
def test_ticks_are_few_and_between_the_ends(low: float, length: float) -> None:
    assume(length > 1e-8 * abs(low))  # shorter axes are widened before they get ticks
    found = ticks(low, low + length)
    assert 1 <= len(found) <= 7
    assert all(low - length * 1e-6 <= value <= low + length * (1 + 1e-6) for value in found)


@settings(deadline=None)
@given(st.text(), st.integers(3, 40))
def test_any_name_is_text_and_fits(name: str, length: int) -> None:
    read = Page(f'<p title="{text(name)}">{text(name)}</p>')
    assert read.tags == ["p"] and len(read.attributes) == 1
    assert len(shortened(name, length)) <= length


def test_figures_are_written_as_people_read_them() -> None:
    said = [duration(s).replace("\u00a0", " ") for s in (0.5, 12.4, 75, 120, 3600, 9000)]
    assert said == ["0.5 s", "12 s", "1 min 15 s", "2 min", "1 h", "2 h 30 min"]
    assert flop(2.55e15) == "2.55\u00a0PFLOP" and size(614_400) == "614\u00a0kB" and flop(0) == "0\u00a0FLOP"
